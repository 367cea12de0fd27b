/*
 * Physical counters taken from a KVM vCPU, with perf events of the host
 *
 * perf can't be asked for a counter, only for an event.  So this is best
 * effort.  Events are pinned until the counters wanted are among those that
 * perf gave, and the rest is closed.
 *
 * KVM's own events for a guest's counters are pinned on the vCPU's thread like
 * any others.  Each new event has x86_schedule_events() deal out all counters
 * of the thread anew: first come the events with the fewest counters to choose
 * from, among those the oldest, and each gets the lowest counter that is free.
 * An event only keeps a counter from the guest's if it can be on no more
 * counters than theirs.
 *
 * An event tells its counter in perf_event_mmap_page.index, which is that of
 * the moment and 0 while its thread doesn't run, so it is read on that thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/host-utils.h"
#include "hw/core/cpu.h"
#include "system/kvm.h"
#include "kvm_i386.h"
#include "../tcg/pmc-map.h"
#include "pmc-claim.h"
#include <linux/perf_event.h>
#include <sys/syscall.h>

/* The guest stops its counters now and then, and may lose one to a claim. */
#define CLAIM_TRIES         10
#define CLAIM_PAUSE_US      1000

/* CPUID models with intel_glc_event_constraints[], 0 at the end */
static const uint8_t glc_models[] = { 143, 207, 173, 174, 0 };

/*
 * What is pinned for general-purpose counters, the most limited events first;
 * no fixed counter counts these.  They happen rarely or are cheap to count, and
 * have no other effect.
 */
static const struct {
    uint64_t config;
    uint64_t counters;              /* for which it is pinned */
    const uint8_t *models;          /* of the host's CPU; NULL: any */
} gp_events[] = {
    /* TOPDOWN.BR_MISPREDICT_SLOTS: counter 0 alone */
    { 0x08a4, 0x1, glc_models },
    /* MEM_INST_RETIRED.SPLIT_LOADS: limited as all that a guest samples */
    { 0x41d0, 0xf },
    /* BR_INST_RETIRED.ALL_BRANCHES: any counter */
    { 0x00c4, MAKE_64BIT_MASK(4, PMC_GP - 4) },
};

/* intel_icl_event_constraints[]: what perf puts on a fixed counter if free */
static const uint64_t fixed_events[PMC_FIXED] = {
    0x00c0,                         /* instructions retired */
    0x003c,                         /* cycles */
    0x0300,                         /* reference cycles, by perf's own code */
};

/* INTEL_PMC_FIXED_RDPMC_BASE */
#define RDPMC_FIXED         (1u << 30)

typedef struct PinnedEvent {
    int fd;
    struct perf_event_mmap_page *page;
} PinnedEvent;

static void close_event(void *opaque)
{
    PinnedEvent *event = opaque;

    munmap(event->page, qemu_real_host_page_size());
    close(event->fd);
    g_free(event);
}

/* x86_pmu_event_idx(), as a bit of IA32_PERF_GLOBAL_CTRL; 0: on no counter */
static uint64_t counter_of(const PinnedEvent *event)
{
    uint32_t index = qatomic_read(&event->page->index);
    uint32_t rdpmc = index - 1;
    uint32_t bit = rdpmc & RDPMC_FIXED ?
                   PMC_FIXED_BIT + (rdpmc & ~RDPMC_FIXED) : rdpmc;

    return index && bit < 64 ? BIT_ULL(bit) : 0;
}

static uint64_t counters_of(const GPtrArray *events)
{
    uint64_t counters = 0;

    for (unsigned i = 0; i < events->len; i++) {
        counters |= counter_of(g_ptr_array_index(events, i));
    }
    return counters;
}

/*
 * On the calling thread.  A pinned event keeps its counter while the guest
 * runs; exclude_guest only has intel_guest_get_msrs() stop it meanwhile.
 */
static int open_event(uint64_t config)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_RAW,
        .size = sizeof(attr),
        .config = config,
        .pinned = 1,
        .exclude_kernel = 1,
        .exclude_hv = 1,
        .exclude_guest = 1,
    };

    return syscall(SYS_perf_event_open, &attr, 0, -1, -1,
                   PERF_FLAG_FD_CLOEXEC);
}

static void set_open_error(int err, Error **errp)
{
    switch (err) {
    case ENOENT:                    /* perf_init_event() */
    case ENOSYS:
        error_setg(errp, "the host's perf has no hardware counters: use a host "
                   "with a PMU, or -accel tcg");
        break;
    case EACCES:
    case EPERM:
        error_setg(errp, "perf_event_open() is not permitted: set "
                   "kernel.perf_event_paranoid to at most 2 on the host, or "
                   "give QEMU CAP_PERFMON");
        break;
    default:
        error_setg_errno(errp, err, "perf can't pin an event");
    }
}

static bool add_event(GPtrArray *events, uint64_t config, Error **errp)
{
    PinnedEvent *event;
    void *page;
    int fd = open_event(config);

    if (fd < 0) {
        set_open_error(errno, errp);
        return false;
    }
    page = mmap(NULL, qemu_real_host_page_size(), PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        error_setg_errno(errp, errno, "perf's page can't be mapped");
        close(fd);
        return false;
    }
    event = g_new(PinnedEvent, 1);
    *event = (PinnedEvent) { .fd = fd, .page = page };
    g_ptr_array_add(events, event);
    if (!event->page->cap_user_rdpmc) {
        error_setg(errp, "perf doesn't tell which counters it gives: set "
                   "/sys/bus/event_source/devices/cpu/rdpmc to 1 on the host");
        return false;
    }
    return true;
}

static bool add_fixed(GPtrArray *events, uint64_t counters, Error **errp)
{
    for (unsigned i = 0; i < PMC_FIXED; i++) {
        uint64_t counter = BIT_ULL(PMC_FIXED_BIT + i);

        if ((counters & counter & ~counters_of(events)) &&
            !add_event(events, fixed_events[i], errp)) {
            return false;
        }
    }
    return true;
}

static bool is_for_this_host(const uint8_t *models)
{
    unsigned model = x86_cpu_model(kvm_arch_get_supported_cpuid(kvm_state, 1, 0,
                                                                R_EAX));

    return !models || strchr((const char *)models, model);
}

/* Index of the event to pin next, or -1 */
static int choose_event(uint64_t missing, unsigned exhausted)
{
    for (int i = 0; i < ARRAY_SIZE(gp_events); i++) {
        if ((missing & gp_events[i].counters) && !(exhausted & BIT(i)) &&
            is_for_this_host(gp_events[i].models)) {
            return i;
        }
    }
    return -1;
}

/*
 * An event that finds no counter exhausts its kind.  One that does may move
 * those before it, so each time what is missing has to be looked for anew.
 */
static bool add_gp(GPtrArray *events, uint64_t counters, Error **errp)
{
    uint64_t wanted = counters & MAKE_64BIT_MASK(0, PMC_GP);
    unsigned exhausted = 0;
    int i;

    while ((i = choose_event(wanted & ~counters_of(events), exhausted)) >= 0) {
        int before = ctpop64(counters_of(events));

        if (!add_event(events, gp_events[i].config, errp)) {
            return false;
        }
        if (ctpop64(counters_of(events)) <= before) {
            exhausted |= BIT(i);
        }
    }
    return true;
}

static void keep(GPtrArray *events, uint64_t counters)
{
    for (unsigned i = events->len; i-- > 0;) {
        if (!(counter_of(g_ptr_array_index(events, i)) & counters)) {
            g_ptr_array_remove_index_fast(events, i);
        }
    }
}

/* What a vCPU's thread is to do, and what came of it */
typedef struct Visit {
    uint64_t wanted;
    uint64_t given;
    uint64_t held;
    bool failed;
    Error **errp;
} Visit;

static void take_on_thread(CPUState *cs, run_on_cpu_data data)
{
    X86CPU *cpu = X86_CPU(cs);
    GPtrArray *events = cpu->pmc_events;
    Visit *visit = data.host_ptr;
    uint64_t all = cpu->pmc_claimed | visit->wanted;

    visit->failed = !add_fixed(events, all, visit->errp) ||
                    !add_gp(events, all, visit->errp);
    visit->given = counters_of(events) & ~cpu->pmc_claimed;
    keep(events, visit->wanted & ~visit->given ? cpu->pmc_claimed : all);
    visit->held = counters_of(events);
}

static void keep_on_thread(CPUState *cs, run_on_cpu_data data)
{
    keep(X86_CPU(cs)->pmc_events, X86_CPU(cs)->pmc_claimed);
}

static void read_on_thread(CPUState *cs, run_on_cpu_data data)
{
    *(uint64_t *)data.host_ptr = counters_of(X86_CPU(cs)->pmc_events);
}

static void set_other_counters_error(const Visit *visit, Error **errp)
{
    error_setg(errp, "perf gave counters=0x%" PRIx64 ",fixed=0x%" PRIx64
               " instead of counters=0x%" PRIx64 ",fixed=0x%" PRIx64
               ": stop what uses the others, in the guest or on the host",
               extract64(visit->given, 0, PMC_FIXED_BIT),
               visit->given >> PMC_FIXED_BIT,
               extract64(visit->wanted, 0, PMC_FIXED_BIT),
               visit->wanted >> PMC_FIXED_BIT);
}

static bool try_to_take(X86CPU *cpu, uint64_t counters, Error **errp)
{
    Visit visit;

    for (unsigned i = 0; i < CLAIM_TRIES; i++) {
        visit = (Visit) { .wanted = counters, .errp = errp };
        run_on_cpu(CPU(cpu), take_on_thread, RUN_ON_CPU_HOST_PTR(&visit));
        if (visit.failed) {
            return false;
        }
        if (!(counters & ~visit.held)) {
            return true;
        }
        g_usleep(CLAIM_PAUSE_US);
    }
    set_other_counters_error(&visit, errp);
    return false;
}

/* With the last claim goes the array, and closes the events in it. */
static void close_others(X86CPU *cpu)
{
    if (cpu->pmc_claimed) {
        run_on_cpu(CPU(cpu), keep_on_thread, RUN_ON_CPU_NULL);
    } else {
        g_clear_pointer(&cpu->pmc_events, g_ptr_array_unref);
    }
}

bool kvm_pmc_take(X86CPU *cpu, uint64_t counters, Error **errp)
{
    ERRP_GUARD();

    if (!cpu->pmc_events) {
        cpu->pmc_events = g_ptr_array_new_with_free_func(close_event);
    }
    if (!try_to_take(cpu, counters, errp)) {
        error_prepend(errp, "vCPU %d: ", CPU(cpu)->cpu_index);
        close_others(cpu);
        return false;
    }
    cpu->pmc_claimed |= counters;
    return true;
}

void kvm_pmc_give_back(X86CPU *cpu, uint64_t counters)
{
    cpu->pmc_claimed &= ~counters;
    close_others(cpu);
}

uint64_t kvm_pmc_held(X86CPU *cpu)
{
    uint64_t counters = 0;

    run_on_cpu(CPU(cpu), read_on_thread, RUN_ON_CPU_HOST_PTR(&counters));
    return counters;
}
