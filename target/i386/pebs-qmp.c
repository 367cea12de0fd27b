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
#include "qapi/qapi-types-stats.h"
#include "qemu/module.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "system/stats.h"
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

static PebsCounterState state_of(uint64_t report, unsigned index)
{
    unsigned place = pebs_report_counter(report, index);

    switch (place) {
    case PEBS_REPORT_UNMAPPED:
        return PEBS_COUNTER_STATE_NO_COUNTER;
    case PEBS_REPORT_MAPPED ... PEBS_REPORT_BEYOND:
        return place == PEBS_REPORT_MAPPED + index ?
               PEBS_COUNTER_STATE_SAMPLING : PEBS_COUNTER_STATE_CROSS_MAPPED;
    case PEBS_REPORT_HOST_PEBS:
        return PEBS_COUNTER_STATE_HOST_PEBS;
    default:
        return PEBS_COUNTER_STATE_OTHER;
    }
}

static bool is_active(uint64_t report, unsigned index)
{
    return pebs_report_counter(report, index) != PEBS_REPORT_INACTIVE;
}

/* States that there are, BIT(PEBS_COUNTER_STATE_...) */
static unsigned states_in(uint64_t report)
{
    unsigned states = 0;

    for (unsigned i = 0; i < PEBS_REPORT_COUNTERS; i++) {
        if (is_active(report, i)) {
            states |= BIT(state_of(report, i));
        }
    }
    return states;
}

static PebsPath path_of(uint64_t report)
{
    const unsigned fast = BIT(PEBS_COUNTER_STATE_SAMPLING) |
                          BIT(PEBS_COUNTER_STATE_HOST_PEBS);
    unsigned states = states_in(report);

    return !states ? PEBS_PATH_IDLE :
           states & ~fast ? PEBS_PATH_SLOW : PEBS_PATH_FAST;
}

static bool is_suspended(uint64_t report)
{
    return report & PEBS_REPORT_SUSPENDED;
}

/* ---- queries ---- */

static PebsCounterId *counter_id(unsigned position)
{
    PebsCounterId *id = g_new0(PebsCounterId, 1);

    if (position < PEBS_REPORT_GP) {
        id->type = PEBS_COUNTER_TYPE_GP;
        id->index = position;
    } else {
        id->type = PEBS_COUNTER_TYPE_FIXED;
        id->index = position - PEBS_REPORT_GP;
    }
    return id;
}

/* The physical counter that counter @index is on, if that can be told */
static PebsCounterId *physical_of(uint64_t report, unsigned index)
{
    unsigned place = pebs_report_counter(report, index);

    if (place == PEBS_REPORT_HOST_PEBS) {
        return counter_id(index);
    }
    if (place >= PEBS_REPORT_MAPPED && place < PEBS_REPORT_BEYOND) {
        return counter_id(place - PEBS_REPORT_MAPPED);
    }
    return NULL;
}

static PebsCounterInfoList *active_counters(uint64_t report)
{
    PebsCounterInfoList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < PEBS_REPORT_COUNTERS; i++) {
        if (is_active(report, i)) {
            PebsCounterInfo *info = g_new0(PebsCounterInfo, 1);

            info->counter = counter_id(i);
            info->physical = physical_of(report, i);
            info->state = state_of(report, i);
            QAPI_LIST_APPEND(tail, info);
        }
    }
    return list;
}

/* Returns NULL without PEBS, or if nobody watches. */
static PebsPathInfo *describe_path(const X86CPU *cpu)
{
    X86PebsObservation seen;
    PebsPathInfo *info;

    if (!x86_pebs_observe(cpu, &seen)) {
        return NULL;
    }
    info = g_new0(PebsPathInfo, 1);
    info->source = seen.source;
    info->path = path_of(seen.report);
    info->suspended = is_suspended(seen.report);
    info->counters = active_counters(seen.report);
    info->has_entries = seen.source == PEBS_PATH_SOURCE_KVM_HELPER;
    info->entries = seen.entries;
    return info;
}

static PebsVcpuInfo *describe(X86CPU *cpu)
{
    PebsVcpuInfo *vcpu = g_new0(PebsVcpuInfo, 1);

    vcpu->cpu_index = CPU(cpu)->cpu_index;
    vcpu->qom_path = object_get_canonical_path(OBJECT(cpu));
    vcpu->enabled = x86_cpu_has_pebs(cpu);
    if (vcpu->enabled) {
        vcpu->has_format = true;
        vcpu->format = x86_cpu_pebs_format(cpu);
        vcpu->has_baseline = true;
        vcpu->baseline = x86_cpu_pebs_baseline(cpu);
    }
    vcpu->observed = describe_path(cpu);
    return vcpu;
}

PebsVcpuInfoList *qmp_query_pebs(Error **errp)
{
    PebsVcpuInfoList *list = NULL, **tail = &list;
    CPUState *cs;

    CPU_FOREACH(cs) {
        QAPI_LIST_APPEND(tail, describe(X86_CPU(cs)));
    }
    return list;
}

static PebsObstacleList *obstacle_list(uint32_t obstacles)
{
    PebsObstacleList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < PEBS_OBSTACLE__MAX; i++) {
        if (obstacles & BIT(i)) {
            QAPI_LIST_APPEND(tail, i);
        }
    }
    return list;
}

static strList *cpu_models(void)
{
    strList *list = NULL, **tail = &list;
    g_autoptr(GSList) classes = object_class_get_list_sorted(TYPE_X86_CPU,
                                                             false);

    for (GSList *e = classes; e; e = e->next) {
        if (x86_pebs_starts(e->data)) {
            QAPI_LIST_APPEND(tail, cpu_model_from_type(
                                       object_class_get_name(e->data)));
        }
    }
    return list;
}

static PebsOffer *describe_offer(const X86PebsOffer *offered)
{
    PebsOffer *offer = g_new0(PebsOffer, 1);

    offer->perf_capabilities = offered->perf_capabilities;
    offer->format = extract64(offered->perf_capabilities,
                              PERF_CAP_PEBS_FORMAT_SHIFT,
                              PERF_CAP_PEBS_FORMAT_LENGTH);
    offer->baseline = offered->perf_capabilities & PERF_CAP_PEBS_BASELINE;
    offer->gp_counters = offered->gp_counters;
    offer->family = offered->family;
    offer->model = offered->model;
    offer->cpuid_0xa = g_new0(PebsCpuidRegs, 1);
    offer->cpuid_0xa->eax = offered->cpuid_0xa[0];
    offer->cpuid_0xa->ebx = offered->cpuid_0xa[1];
    offer->cpuid_0xa->ecx = offered->cpuid_0xa[2];
    offer->cpuid_0xa->edx = offered->cpuid_0xa[3];
    offer->cpu_models = cpu_models();
    return offer;
}

PebsCapabilities *qmp_query_pebs_capabilities(Error **errp)
{
    PebsCapabilities *caps = g_new0(PebsCapabilities, 1);
    X86PebsOffer offered;
    uint32_t obstacles;
    Error *error = NULL;

    caps->supported = x86_pebs_offered(&offered, &obstacles, &error);
    if (caps->supported) {
        caps->offer = describe_offer(&offered);
    } else {
        caps->has_obstacles = true;
        caps->obstacles = obstacle_list(obstacles);
        caps->error_desc = g_strdup(error_get_pretty(error));
        error_free(error);
    }
    return caps;
}

/* ---- statistics ---- */

/* A number that one source counts, in an X86PebsObservation */
static const struct {
    const char *name;
    PebsPathSource source;
    size_t offset;
} counts[] = {
    { "pebs_fast_records", PEBS_PATH_SOURCE_TCG,
      offsetof(X86PebsObservation, fast_records) },
    { "pebs_slow_records", PEBS_PATH_SOURCE_TCG,
      offsetof(X86PebsObservation, slow_records) },
    { "pebs_dropped_records", PEBS_PATH_SOURCE_TCG,
      offsetof(X86PebsObservation, dropped_records) },
    { "pebs_entries", PEBS_PATH_SOURCE_KVM_HELPER,
      offsetof(X86PebsObservation, entries) },
    { "pebs_active_entries", PEBS_PATH_SOURCE_KVM_HELPER,
      offsetof(X86PebsObservation, active_entries) },
    { "pebs_suspended_entries", PEBS_PATH_SOURCE_KVM_HELPER,
      offsetof(X86PebsObservation, suspended_entries) },
};

static bool is_anything_active(uint64_t report)
{
    return path_of(report) != PEBS_PATH_IDLE;
}

static bool is_slow(uint64_t report)
{
    return path_of(report) == PEBS_PATH_SLOW;
}

static bool is_cross_mapped(uint64_t report)
{
    return states_in(report) & BIT(PEBS_COUNTER_STATE_CROSS_MAPPED);
}

static bool is_without_counter(uint64_t report)
{
    return states_in(report) & BIT(PEBS_COUNTER_STATE_NO_COUNTER);
}

static bool is_stopped_by_host(uint64_t report)
{
    return states_in(report) & BIT(PEBS_COUNTER_STATE_HOST_PEBS);
}

/* What a report says of a vCPU, as of now */
static const struct {
    const char *name;
    bool (*holds)(uint64_t report);
} conditions[] = {
    { "pebs_active", is_anything_active },
    { "pebs_slow", is_slow },
    { "pebs_suspended", is_suspended },
    { "pebs_cross_mapped", is_cross_mapped },
    { "pebs_no_counter", is_without_counter },
    { "pebs_host_pebs", is_stopped_by_host },
};

static Stats *new_stat(const char *name, QType type)
{
    Stats *stat = g_new0(Stats, 1);

    stat->name = g_strdup(name);
    stat->value = g_new0(StatsValue, 1);
    stat->value->type = type;
    return stat;
}

static StatsList *stats_of(const X86PebsObservation *seen, strList *names)
{
    StatsList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        if (counts[i].source == seen->source &&
            apply_str_list_filter(counts[i].name, names)) {
            Stats *stat = new_stat(counts[i].name, QTYPE_QNUM);

            stat->value->u.scalar =
                *(const uint64_t *)((const char *)seen + counts[i].offset);
            QAPI_LIST_APPEND(tail, stat);
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(conditions); i++) {
        if (apply_str_list_filter(conditions[i].name, names)) {
            Stats *stat = new_stat(conditions[i].name, QTYPE_QBOOL);

            stat->value->u.boolean = conditions[i].holds(seen->report);
            QAPI_LIST_APPEND(tail, stat);
        }
    }
    return list;
}

static void query_vcpu(StatsResultList **result, const X86CPU *cpu,
                       strList *names, strList *targets)
{
    g_autofree char *qom_path = object_get_canonical_path(OBJECT(cpu));
    X86PebsObservation seen;
    StatsList *list;

    if (!apply_str_list_filter(qom_path, targets) ||
        !x86_pebs_observe(cpu, &seen)) {
        return;
    }
    list = stats_of(&seen, names);
    if (list) {
        add_stats_entry(result, STATS_PROVIDER_PEBS, qom_path, list);
    }
}

static void query_stats(StatsResultList **result, StatsTarget target,
                        strList *names, strList *targets, Error **errp)
{
    CPUState *cs;

    if (target == STATS_TARGET_VCPU) {
        CPU_FOREACH(cs) {
            query_vcpu(result, X86_CPU(cs), names, targets);
        }
    }
}

static StatsSchemaValue *new_schema(const char *name, StatsType type)
{
    StatsSchemaValue *schema = g_new0(StatsSchemaValue, 1);

    schema->name = g_strdup(name);
    schema->type = type;
    return schema;
}

/* In the order of stats_of(), on which "info stats" relies */
static void query_schemas(StatsSchemaList **result, Error **errp)
{
    StatsSchemaValueList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        QAPI_LIST_APPEND(tail, new_schema(counts[i].name,
                                          STATS_TYPE_CUMULATIVE));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(conditions); i++) {
        StatsSchemaValue *schema = new_schema(conditions[i].name,
                                              STATS_TYPE_INSTANT);

        schema->has_unit = true;
        schema->unit = STATS_UNIT_BOOLEAN;
        QAPI_LIST_APPEND(tail, schema);
    }
    add_stats_schema(result, STATS_PROVIDER_PEBS, STATS_TARGET_VCPU, list);
}

/*
 * libvirt takes the first entry of a vCPU and no other, and entries are
 * prepended: those of a provider come before those of the ones registered
 * before it.  KVM registers its own when it is initialized, so this is earlier.
 */
static void register_stats(void)
{
    add_stats_callbacks(STATS_PROVIDER_PEBS, query_stats, query_schemas);
}

type_init(register_stats)

/* ---- for people ---- */

static void append_counter(GString *text, const PebsCounterId *id)
{
    g_string_append_printf(text, "%s%u",
                           PebsCounterType_str(id->type), id->index);
}

/* gp0 if all is well, gp0->gp1 if it is elsewhere, else gp0:no-counter */
static char *counters_text(const PebsCounterInfoList *list)
{
    GString *text = g_string_new(NULL);

    for (; list; list = list->next) {
        const PebsCounterInfo *c = list->value;

        if (text->len) {
            g_string_append_c(text, ' ');
        }
        append_counter(text, c->counter);
        if (c->state == PEBS_COUNTER_STATE_CROSS_MAPPED && c->physical) {
            g_string_append(text, "->");
            append_counter(text, c->physical);
        } else if (c->state != PEBS_COUNTER_STATE_SAMPLING) {
            g_string_append_printf(text, ":%s",
                                   PebsCounterState_str(c->state));
        }
    }
    return g_string_free(text, false);
}

static const char *path_text(const PebsVcpuInfo *v)
{
    return v->observed ? PebsPath_str(v->observed->path) :
           v->enabled ? "unknown" : "off";
}

#define INFO_FORMAT "%4s  %-7s  %-9s  %12s  %s\n"

static void print_vcpu(Monitor *mon, const PebsVcpuInfo *v)
{
    const PebsPathInfo *seen = v->observed;
    g_autofree char *index = g_strdup_printf("%" PRId64, v->cpu_index);
    g_autofree char *entries = seen && seen->has_entries ?
                               g_strdup_printf("%" PRIu64, seen->entries) :
                               g_strdup("-");
    g_autofree char *counters = counters_text(seen ? seen->counters : NULL);

    monitor_printf(mon, INFO_FORMAT, index, path_text(v),
                   !seen ? "-" : seen->suspended ? "yes" : "no", entries,
                   *counters ? counters : "-");
}

/* What is wrong with a counter in this state, and what to do about it */
static const char *const advice[PEBS_COUNTER_STATE__MAX] = {
    [PEBS_COUNTER_STATE_CROSS_MAPPED] =
        "the host holds the counter of that index: end what uses it there, "
        "such as perf, the NMI watchdog or a host-pmc-claim device",
    [PEBS_COUNTER_STATE_NO_COUNTER] =
        "all counters that could count its event are taken: end what uses "
        "them on the host, or sample fewer events in the guest",
    [PEBS_COUNTER_STATE_HOST_PEBS] =
        "the host uses PEBS itself, which stops the guest's: end perf there",
    [PEBS_COUNTER_STATE_OTHER] =
        "KVM doesn't count its event: look for a PMU event filter",
};

static unsigned observed_states(const PebsVcpuInfoList *list)
{
    unsigned states = 0;

    for (; list; list = list->next) {
        const PebsPathInfo *seen = list->value->observed;

        for (PebsCounterInfoList *c = seen ? seen->counters : NULL; c;
             c = c->next) {
            states |= BIT(c->value->state);
        }
    }
    return states;
}

static bool is_anyone_unwatched(const PebsVcpuInfoList *list)
{
    for (; list; list = list->next) {
        if (list->value->enabled && !list->value->observed) {
            return true;
        }
    }
    return false;
}

static void print_advice(Monitor *mon, const PebsVcpuInfoList *list)
{
    unsigned states = observed_states(list);

    for (unsigned i = 0; i < PEBS_COUNTER_STATE__MAX; i++) {
        if ((states & BIT(i)) && advice[i]) {
            monitor_printf(mon, "%s: %s\n", PebsCounterState_str(i),
                           advice[i]);
        }
    }
    if (is_anyone_unwatched(list)) {
        monitor_printf(mon, "unknown: nobody watches, or the vCPU has not run "
                       "since: use -accel kvm,pebs-path=on, and run "
                       "qemu-pebs-helper\n");
    }
}

void hmp_info_pebs(Monitor *mon, const QDict *qdict)
{
    g_autoptr(PebsVcpuInfoList) list = qmp_query_pebs(NULL);

    monitor_printf(mon, INFO_FORMAT, "vCPU", "path", "suspended", "entries",
                   "active counters");
    for (PebsVcpuInfoList *e = list; e; e = e->next) {
        print_vcpu(mon, e->value);
    }
    print_advice(mon, list);
}

/* ---- the event ---- */

/* What is news of a vCPU: whether it is watched, its path, what is wrong */
static unsigned news_of(const X86CPU *cpu)
{
    X86PebsObservation seen;

    if (!x86_pebs_observe(cpu, &seen)) {
        return 0;
    }
    return 1 | is_suspended(seen.report) << 1 | path_of(seen.report) << 2 |
           (states_in(seen.report) & ~BIT(PEBS_COUNTER_STATE_SAMPLING)) << 8;
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

static void send_event(const X86CPU *cpu)
{
    g_autofree char *qom_path = object_get_canonical_path(OBJECT(cpu));
    g_autoptr(PebsPathInfo) observed = describe_path(cpu);

    qapi_event_send_pebs_path_changed(CPU(cpu)->cpu_index, qom_path, observed);
}

static void announce(void *opaque)
{
    X86CPU *cpu = opaque;
    unsigned now = news_of(cpu);
    bool lasts = now == cpu->pebs_seen;

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
    send_event(cpu);
}

void x86_pebs_watch(X86CPU *cpu)
{
    if (x86_cpu_has_pebs(cpu)) {
        cpu->pebs_announced = news_of(cpu);
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
