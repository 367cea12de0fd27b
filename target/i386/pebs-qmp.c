/*
 * Intel PEBS for guests: what those see who monitor
 *
 * A vCPU publishes where its PEBS counters are; whoever asks reads that.  No
 * lock is taken for it and no vCPU disturbed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-pebs.h"
#include "qapi/qapi-events-pebs.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "cpu.h"
#include "pebs.h"
#include "pebs-record.h"

/*
 * A path is announced when it has been seen twice, this far apart.  Guests
 * stop their counters in each PMI, which is no news.
 */
#define PEBS_SETTLED_MS     100

/* Where it has to be looked for, a change is announced within a second. */
#define PEBS_POLL_MS        500

static PebsPath path_of(const X86CPU *cpu, uint64_t report)
{
    if (!x86_cpu_has_pebs(cpu)) {
        return PEBS_PATH_OFF;
    }
    if (!x86_pebs_is_watched(cpu)) {
        return PEBS_PATH_UNKNOWN;
    }
    for (unsigned i = 0; i < PEBS_REPORT_COUNTERS; i++) {
        unsigned physical = pebs_report_counter(report, i);

        if (physical != PEBS_REPORT_INACTIVE &&
            physical != PEBS_REPORT_MAPPED + i) {
            return PEBS_PATH_SLOW;
        }
    }
    return report ? PEBS_PATH_FAST : PEBS_PATH_IDLE;
}

/* ---- queries ---- */

static uint8_t counter_bit(unsigned index)
{
    return index < PEBS_REPORT_GP ? index
                                  : PEBS_FIXED_BASE + index - PEBS_REPORT_GP;
}

static PebsCounterList *active_counters(uint64_t report)
{
    PebsCounterList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < PEBS_REPORT_COUNTERS; i++) {
        unsigned physical = pebs_report_counter(report, i);
        PebsCounter *counter;

        if (physical == PEBS_REPORT_INACTIVE) {
            continue;
        }
        counter = g_new0(PebsCounter, 1);
        counter->fixed = i >= PEBS_REPORT_GP;
        counter->counter = counter->fixed ? i - PEBS_REPORT_GP : i;
        if (physical != PEBS_REPORT_UNMAPPED) {
            counter->has_physical = true;
            counter->physical = counter_bit(physical - PEBS_REPORT_MAPPED);
        }
        QAPI_LIST_APPEND(tail, counter);
    }
    return list;
}

static void describe_records(const X86CPU *cpu, PebsVcpu *vcpu)
{
    const CPUX86State *env = &cpu->env;

    vcpu->has_fast_records = true;
    vcpu->fast_records = qatomic_read(&env->pebs_fast_records);
    vcpu->has_slow_records = true;
    vcpu->slow_records = qatomic_read(&env->pebs_slow_records);
    vcpu->has_dropped_records = true;
    vcpu->dropped_records = qatomic_read(&env->pebs_dropped_records);
}

static PebsVcpu *describe(X86CPU *cpu)
{
    PebsVcpu *vcpu = g_new0(PebsVcpu, 1);
    uint64_t report = x86_pebs_report(cpu);

    vcpu->cpu_index = CPU(cpu)->cpu_index;
    vcpu->qom_path = object_get_canonical_path(OBJECT(cpu));
    vcpu->path = path_of(cpu, report);
    vcpu->suspended = report & PEBS_REPORT_SUSPENDED;
    vcpu->counters = active_counters(report);
    if (x86_cpu_has_pebs(cpu)) {
        vcpu->has_format = true;
        vcpu->format = x86_cpu_pebs_format(cpu);
        vcpu->has_baseline = true;
        vcpu->baseline = x86_cpu_pebs_baseline(cpu);
    }
    if (x86_cpu_has_pebs(cpu) && x86_cpu_has_tcg_pmu(cpu)) {
        vcpu->source = PEBS_PATH_SOURCE_TCG;
        describe_records(cpu, vcpu);
    } else if (x86_cpu_has_pebs(cpu) && x86_pebs_is_watched(cpu)) {
        vcpu->source = PEBS_PATH_SOURCE_KVM;
    }
    return vcpu;
}

PebsVcpuList *qmp_query_pebs(Error **errp)
{
    PebsVcpuList *list = NULL, **tail = &list;
    CPUState *cs;

    CPU_FOREACH(cs) {
        QAPI_LIST_APPEND(tail, describe(X86_CPU(cs)));
    }
    return list;
}

PebsCapabilities *qmp_query_pebs_capabilities(Error **errp)
{
    PebsCapabilities *caps = g_new0(PebsCapabilities, 1);
    X86PebsOffer offer;
    Error *reason = NULL;

    caps->supported = x86_pebs_offered(&offer, &reason);
    if (!caps->supported) {
        caps->reason = g_strdup(error_get_pretty(reason));
        error_free(reason);
        return caps;
    }
    caps->has_format = true;
    caps->format = offer.format;
    caps->has_baseline = true;
    caps->baseline = offer.baseline;
    caps->has_gp_counters = true;
    caps->gp_counters = offer.gp_counters;
    return caps;
}

/* ---- for people ---- */

static char *counters_text(const PebsCounterList *list)
{
    GString *text = g_string_new(NULL);

    for (; list; list = list->next) {
        const PebsCounter *c = list->value;

        g_string_append_printf(text, "%s%s%d", text->len ? " " : "",
                               c->fixed ? "fixed" : "gp", c->counter);
        if (!c->has_physical) {
            g_string_append(text, "->none");
        } else if (c->physical != c->counter +
                                  (c->fixed ? PEBS_FIXED_BASE : 0)) {
            bool fixed = c->physical >= PEBS_FIXED_BASE;

            g_string_append_printf(text, "->%s%d", fixed ? "fixed" : "gp",
                                   c->physical -
                                   (fixed ? PEBS_FIXED_BASE : 0));
        }
    }
    return g_string_free(text, false);
}

static char *count_text(bool known, uint64_t count)
{
    return known ? g_strdup_printf("%" PRIu64, count) : g_strdup("-");
}

static void print_vcpu(Monitor *mon, const PebsVcpu *v)
{
    g_autofree char *counters = counters_text(v->counters);
    g_autofree char *fast = count_text(v->has_fast_records, v->fast_records);
    g_autofree char *slow = count_text(v->has_slow_records, v->slow_records);
    g_autofree char *dropped = count_text(v->has_dropped_records,
                                          v->dropped_records);

    monitor_printf(mon, "%4" PRId64 "  %-7s  %-9s  %12s  %12s  %12s  %s\n",
                   v->cpu_index, PebsPath_str(v->path),
                   v->suspended ? "yes" : "no", fast, slow, dropped,
                   *counters ? counters : "-");
}

void hmp_info_pebs(Monitor *mon, const QDict *qdict)
{
    g_autoptr(PebsVcpuList) list = qmp_query_pebs(NULL);

    monitor_printf(mon, "%4s  %-7s  %-9s  %12s  %12s  %12s  %s\n", "vCPU",
                   "path", "suspended", "fast", "slow", "dropped",
                   "active counters");
    for (PebsVcpuList *e = list; e; e = e->next) {
        print_vcpu(mon, e->value);
    }
}

/* ---- the event ---- */

/* What of a report is news: the path, and whether it is suspended */
static unsigned news_of(const X86CPU *cpu, uint64_t report)
{
    return path_of(cpu, report) << 1 | !!(report & PEBS_REPORT_SUSPENDED);
}

static void look_again(X86CPU *cpu, int ms)
{
    timer_mod(cpu->pebs_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ms);
}

static void look_if_polled(X86CPU *cpu)
{
    if (x86_pebs_is_polled()) {
        look_again(cpu, PEBS_POLL_MS);
    }
}

static void announce(void *opaque)
{
    X86CPU *cpu = opaque;
    unsigned now = news_of(cpu, x86_pebs_report(cpu));
    bool lasts = now == cpu->pebs_seen;
    g_autofree char *qom_path = NULL;

    cpu->pebs_seen = now;
    if (now != cpu->pebs_announced && !lasts) {
        look_again(cpu, PEBS_SETTLED_MS);
        return;
    }
    look_if_polled(cpu);
    if (now == cpu->pebs_announced) {
        return;
    }
    cpu->pebs_announced = now;
    qom_path = object_get_canonical_path(OBJECT(cpu));
    qapi_event_send_pebs_path_changed(qom_path, CPU(cpu)->cpu_index, now >> 1,
                                      now & 1);
}

void x86_pebs_watch(X86CPU *cpu)
{
    if (x86_cpu_has_pebs(cpu)) {
        cpu->pebs_announced = news_of(cpu, 0);
        cpu->pebs_seen = cpu->pebs_announced;
        cpu->pebs_timer = timer_new_ms(QEMU_CLOCK_REALTIME, announce, cpu);
        look_if_polled(cpu);
    }
}

void x86_pebs_unwatch(X86CPU *cpu)
{
    g_clear_pointer(&cpu->pebs_timer, timer_free);
}

void x86_pebs_publish(X86CPU *cpu, uint64_t report)
{
    if (cpu->pebs_report == report) {
        return;
    }
    qatomic_set(&cpu->pebs_report, report);
    if (cpu->pebs_timer && !timer_pending(cpu->pebs_timer)) {
        look_again(cpu, PEBS_SETTLED_MS);
    }
}
