/*
 * The host's perf, for the model of /dev/kvm
 *
 * It answers perf_event_open(2), deals out the counters of an Intel CPU from
 * Ice Lake on, and tells them in each event's page.  It is as strict as the
 * kernel (6.12) about what it takes from a process without privileges, and
 * deals counters out as x86_schedule_events() does: each rule names the
 * function of kernel/events/core.c or arch/x86/events that it is taken from.
 * They are those of Linux 6.12.117.
 *
 * In the file of a host, see hosts/:
 *
 *   perf_paranoid N     kernel.perf_event_paranoid, 2 unless set
 *   perf_no_rdpmc 1     0 stands in /sys/bus/event_source/devices/cpu/rdpmc
 *   perf_watchdog 1     the NMI watchdog counts cycles on each CPU
 *   perf_busy N         somebody has N general purpose counters on each CPU
 *   perf_busy_event N   with this event, else with branches
 *   perf_busy_opens N   and ends when N events have been opened, 0: never
 *
 * Left out: counting, sampling and read(); groups; other types than
 * PERF_TYPE_RAW; CPU-wide events of the process; CPUs, of which all look the
 * same, so that no thread's events move because it does; what mmap() checks;
 * constraints of other CPUs than Skylake, Ice Lake, Sapphire and Granite Rapids,
 * and of topdown metrics; the ends of threads; PEBS but for where KVM's events
 * go; SELinux;
 * file descriptor flags.  A thread's events hold their counters all the time,
 * as if it never slept.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "kvm-model.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_EVENTS          64
#define FIXED_BIT           32          /* INTEL_PMC_IDX_FIXED */
#define RDPMC_FIXED         BIT(30)     /* INTEL_PMC_FIXED_RDPMC_BASE */
#define EVENT_AND_UMASK     0xffffull
#define ANY_UMASK           -1
#define PARANOID_DEFAULT    2
#define PAGE                4096
#define FLAGS_ALL           0xful       /* PERF_FLAG_ALL */

#define INSTRUCTIONS        0x00c0
#define CYCLES              0x003c
#define BRANCHES            0x00c4

typedef struct Event {
    int fd;                         /* -1: not of the process */
    pid_t tid;                      /* 0: on each CPU */
    uint64_t config;
    unsigned precise;               /* attr.precise_ip */
    int idx;                        /* hw.idx: the last counter, or -1 */
    bool error;                     /* PERF_EVENT_STATE_ERROR */
    struct perf_event_mmap_page *page;
} Event;

/* By age, those on each CPU first: as ctx_sched_in() goes through them */
static Event events[MAX_EVENTS];
static unsigned nevents, opened;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- which counter ---- */

/* A row of a table: the first that matches holds. */
typedef struct Constraint {
    uint8_t first, last;            /* event codes */
    int umask;
    uint64_t counters;
} Constraint;

#define FIXED(code, umask, i)   { code, code, umask, BIT(FIXED_BIT + (i)) }
#define END                     { 0 }

/* intel_skl_event_constraints[] */
static const Constraint skl[] = {
    FIXED(0xc0, 0, 0), FIXED(0x3c, 0, 1), FIXED(0x00, 3, 2),
    { 0xc0, 0xc0, 1, 0x2 }, { 0xd0, 0xd2, ANY_UMASK, 0xf },
    { 0xcd, 0xcd, ANY_UMASK, 0xf }, { 0xc6, 0xc6, ANY_UMASK, 0xf }, END
};

/* intel_icl_event_constraints[] */
static const Constraint icl[] = {
    FIXED(0xc0, 0, 0), FIXED(0xc0, 1, 0), FIXED(0x00, 1, 0), FIXED(0x3c, 0, 1),
    FIXED(0x00, 3, 2), FIXED(0x00, 4, 3),
    { 0x03, 0x0a, ANY_UMASK, 0xf }, { 0x1f, 0x28, ANY_UMASK, 0xf },
    { 0x32, 0x32, ANY_UMASK, 0xf }, { 0x48, 0x56, ANY_UMASK, 0xf },
    { 0x60, 0x8b, ANY_UMASK, 0xf }, { 0xa3, 0xa3, 0x04, 0xff },
    { 0xa3, 0xa3, 0x10, 0xff }, { 0xa3, 0xa3, 0x14, 0xff },
    { 0xa3, 0xa3, ANY_UMASK, 0xf }, { 0xa8, 0xb0, ANY_UMASK, 0xf },
    { 0xb7, 0xbd, ANY_UMASK, 0xf }, { 0xd0, 0xe6, ANY_UMASK, 0xf },
    { 0xef, 0xf4, ANY_UMASK, 0xf }, END
};

/* intel_glc_event_constraints[] */
static const Constraint glc[] = {
    FIXED(0xc0, 0, 0), FIXED(0x00, 1, 0), FIXED(0x3c, 0, 1), FIXED(0x00, 3, 2),
    FIXED(0x3c, 1, 2), FIXED(0x00, 4, 3),
    { 0x2e, 0x2e, ANY_UMASK, 0xff }, { 0x3c, 0x3c, ANY_UMASK, 0xff },
    { 0x01, 0x8f, ANY_UMASK, 0xf }, { 0xa3, 0xa3, 0x01, 0xf },
    { 0xa3, 0xa3, 0x02, 0xf }, { 0xa3, 0xa3, 0x08, 0xf },
    { 0xa4, 0xa4, 0x04, 0x1 }, { 0xa4, 0xa4, 0x08, 0x1 },
    { 0xcd, 0xcd, 0x02, 0x1 }, { 0xce, 0xce, ANY_UMASK, 0x1 },
    { 0xd0, 0xdf, ANY_UMASK, 0xf }, END
};

/* intel_icl_pebs_event_constraints[], what KVM's guests can have of it */
static const Constraint icl_pebs[] = {
    FIXED(0x00, 1, 0), { 0xd0, 0xd4, ANY_UMASK, 0xf }, END
};

/* intel_glc_pebs_event_constraints[], likewise */
static const Constraint glc_pebs[] = {
    FIXED(0x00, 1, 0), { 0xc0, 0xc0, ANY_UMASK, 0xfe },
    { 0xcd, 0xcd, 0x02, 0x1 }, { 0xd0, 0xd4, ANY_UMASK, 0xf }, END
};

/* intel_pmu_init() */
static const struct Cpu {
    unsigned model;
    const Constraint *table, *pebs;
} cpus[] = {
    { 85, skl, NULL }, { 106, icl, icl_pebs }, { 108, icl, icl_pebs },
    { 143, glc, glc_pebs }, { 207, glc, glc_pebs }, { 173, glc, glc_pebs },
    { 174, glc, glc_pebs },
};

static const struct Cpu *this_cpu(void)
{
    for (size_t i = 0; !host.amd && i < ARRAY_SIZE(cpus); i++) {
        if (cpus[i].model == host.model) {
            return &cpus[i];
        }
    }
    return NULL;
}

/* for_each_event_constraint(), constraint_match(); 0: in no row */
static uint64_t look_up(const Constraint *row, uint64_t config)
{
    uint8_t code = config, umask = config >> 8;

    for (; row && row->counters; row++) {
        if (code >= row->first && code <= row->last &&
            (row->umask == ANY_UMASK || umask == row->umask)) {
            return row->counters;
        }
    }
    return 0;
}

/*
 * What intel_pmu_check_event_constraints() makes of a row: events of a fixed
 * counter that isn't there, or is one of perf's own codes alone, and others
 */
static uint64_t within_host(uint64_t counters, uint64_t config)
{
    uint64_t gp = MASK(host.gp), fixed = MASK(host.fixed) << FIXED_BIT;

    if (counters < BIT(FIXED_BIT)) {
        return counters & gp;
    }
    return (counters & fixed) | (config & 0xff ? gp : 0);
}

/*
 * icl_get_event_constraints() and glc_get_event_constraints(), with
 * intel_pebs_constraints() and x86_get_event_constraints()
 */
static uint64_t constraint(const Event *event)
{
    const struct Cpu *cpu = this_cpu();
    uint64_t config = event->config & EVENT_AND_UMASK, counters = 0;

    if (event->precise == 3 && config == INSTRUCTIONS) {
        return BIT(FIXED_BIT);              /* fixed0_constraint */
    }
    if (event->precise && cpu) {
        counters = look_up(cpu->pebs, config);
    }
    if (!counters && cpu) {
        counters = look_up(cpu->table, config);
    }
    counters = counters ? within_host(counters, config) : MASK(host.gp);
    return event->precise == 3 && cpu && cpu->table == glc ? counters & 1
                                                           : counters;
}

/* x86_schedule_events(): «fastpath, try to reuse previous register» */
static bool reuse_counters(Event *const list[], unsigned n, int assign[])
{
    uint64_t used = 0;

    for (unsigned i = 0; i < n; i++) {
        int idx = list[i]->idx;

        if (idx < 0 || (used & BIT(idx)) ||
            !(constraint(list[i]) & BIT(idx))) {
            return false;
        }
        used |= BIT(idx);
        assign[i] = idx;
    }
    return true;
}

/* __perf_sched_find_counter(): a fixed one if there is, else the lowest */
static int find_counter(uint64_t free)
{
    uint64_t fixed = free & ~MASK(FIXED_BIT);

    return free ? __builtin_ctzll(fixed ? fixed : free) : -1;
}

/* perf_assign_events(): those with the fewest counters to choose from first */
static bool assign_counters(Event *const list[], unsigned n, int assign[])
{
    uint64_t used = 0;

    for (int weight = 0; weight <= 64; weight++) {
        for (unsigned i = 0; i < n; i++) {
            if (__builtin_popcountll(constraint(list[i])) != weight) {
                continue;
            }
            assign[i] = find_counter(constraint(list[i]) & ~used);
            if (assign[i] < 0) {
                return false;
            }
            used |= BIT(assign[i]);
        }
    }
    return true;
}

static bool schedule_events(Event *const list[], unsigned n, int assign[])
{
    return reuse_counters(list, n, assign) || assign_counters(list, n, assign);
}

/* x86_pmu_event_idx() */
static uint32_t rdpmc_index(const Event *event)
{
    if (event->error || host.perf_no_rdpmc) {
        return 0;
    }
    return 1 + (event->idx < FIXED_BIT ? (uint32_t)event->idx
                                       : RDPMC_FIXED | (event->idx - FIXED_BIT));
}

/* perf_event_update_userpage() */
static void update_page(Event *event)
{
    if (!event->page) {
        return;
    }
    event->page->lock++;
    event->page->cap_user_rdpmc = !host.perf_no_rdpmc;
    event->page->index = rdpmc_index(event);
    event->page->lock++;
}

static void move_event(Event *event, int idx)
{
    if (event->idx != idx && event->idx >= 0) {
        note("perf tid %d moves %d from %d to %d", event->tid, event->fd,
             event->idx, idx);
    }
    event->idx = idx;
}

/*
 * ctx_resched(): x86_pmu_add() for each event of a thread and its CPU.  One
 * that is pinned and finds no counter is in error from then on:
 * merge_sched_in().
 */
static void reschedule(pid_t tid)
{
    Event *list[MAX_EVENTS];
    int assign[MAX_EVENTS], wanted[MAX_EVENTS];
    unsigned n = 0;

    for (unsigned i = 0; i < nevents; i++) {
        Event *event = &events[i];

        if (event->error || (event->tid && event->tid != tid)) {
            continue;
        }
        list[n] = event;
        if (schedule_events(list, n + 1, wanted)) {
            n++;
            memcpy(assign, wanted, n * sizeof(assign[0]));
        } else {
            event->error = true;
            update_page(event);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        move_event(list[i], assign[i]);
        update_page(list[i]);
    }
}

/* ---- events ---- */

static Event *add_event(Event event)
{
    if (nevents == MAX_EVENTS) {
        die("too many events");
    }
    events[nevents++] = event;
    reschedule(event.tid);
    return &events[nevents - 1];
}

static void remove_event(unsigned i)
{
    note("perf tid %d close %d", events[i].tid, events[i].fd);
    if (events[i].page) {
        munmap(events[i].page, PAGE);
    }
    memmove(&events[i], &events[i + 1],
            (--nevents - i) * sizeof(events[0]));
}

static uint64_t busy_event(void)
{
    return host.perf_busy_event ?: BRANCHES;
}

/* Who counts on each CPU, from the start */
static void start_others(void)
{
    static bool started;

    if (started) {
        return;
    }
    started = true;
    if (host.perf_watchdog) {
        add_event((Event) { .fd = -1, .config = CYCLES, .idx = -1 });
    }
    for (unsigned i = 0; i < host.perf_busy; i++) {
        add_event((Event) { .fd = -1, .config = busy_event(), .idx = -1 });
    }
}

static void end_others(void)
{
    for (unsigned i = nevents; i-- > 0;) {
        if (!events[i].tid && events[i].config == busy_event()) {
            remove_event(i);
        }
    }
}

/* ---- perf_event_open(2) ---- */

/* perf_copy_attr() */
static int check_attr(const struct perf_event_attr *attr)
{
    if (attr->size &&
        (attr->size < PERF_ATTR_SIZE_VER0 || attr->size > PAGE)) {
        return -E2BIG;
    }
    return attr->__reserved_1 ? -EINVAL : 0;
}

/* perf_paranoid_any(), which is Debian's, and perf_allow_kernel() */
static int check_rights(const struct perf_event_attr *attr)
{
    uint64_t paranoid = host.perf_paranoid ? host.perf_paranoid :
                        PARANOID_DEFAULT;

    return paranoid > 2 || (paranoid > 1 && !attr->exclude_kernel) ?
           -EACCES : 0;
}

/* find_lively_task_by_vpid(), perf_check_permission() */
static int check_thread(pid_t pid)
{
    char path[64];

    if (pid == 0) {
        return 0;
    }
    snprintf(path, sizeof(path), "/proc/self/task/%d", pid);
    if (access(path, F_OK) == 0) {
        return 0;
    }
    snprintf(path, sizeof(path), "/proc/%d", pid);
    return access(path, F_OK) == 0 ? -EACCES : -ESRCH;
}

/* perf_init_event(), x86_pmu_event_init() with validate_event() */
static int check_event(const Event *event, const struct perf_event_attr *attr)
{
    if (attr->type != PERF_TYPE_RAW || !host.gp) {
        return -ENOENT;
    }
    return constraint(event) ? 0 : -EINVAL;
}

static int check_open(const Event *event, const struct perf_event_attr *attr,
                      pid_t pid, int cpu, int group_fd, unsigned long flags)
{
    int result;

    if (flags & ~FLAGS_ALL) {
        return -EINVAL;
    }
    result = check_attr(attr);
    if (!result) {
        result = check_rights(attr);
    }
    if (!result && pid != -1) {
        result = check_thread(pid);
    }
    if (!result && cpu == -1 && pid == -1) {
        result = -EINVAL;           /* perf_event_alloc() */
    }
    if (!result) {
        result = check_event(event, attr);
    }
    if (!result && (pid == -1 || cpu != -1 || group_fd != -1 ||
                    !attr->pinned || attr->disabled || attr->inherit)) {
        die("perf_event_open(): this is left out");
    }
    return result;
}

static void open_page(Event *event)
{
    event->fd = memfd_create("perf", MFD_CLOEXEC);
    if (event->fd < 0 || ftruncate(event->fd, PAGE) < 0) {
        die("no memory for an event");
    }
    event->page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
                       event->fd, 0);
}

int perf_model_open(const struct perf_event_attr *attr, pid_t pid, int cpu,
                    int group_fd, unsigned long flags)
{
    Event event = {
        .tid = pid ? pid : syscall(SYS_gettid), .config = attr->config,
        .idx = -1,
    };
    int result = check_open(&event, attr, pid, cpu, group_fd, flags);
    Event *added;

    if (result) {
        note("perf tid %d open refused %d", event.tid, -result);
        return result;
    }
    open_page(&event);
    pthread_mutex_lock(&lock);
    start_others();
    added = add_event(event);
    note("perf tid %d open %d config 0x%llx pinned %u exclude_guest %u "
         "exclude_host %u counter %d", added->tid, added->fd, attr->config,
         attr->pinned, attr->exclude_guest, attr->exclude_host,
         added->error ? -1 : added->idx);
    if (++opened == host.perf_busy_opens) {
        end_others();
    }
    pthread_mutex_unlock(&lock);
    return event.fd;
}

bool perf_model_close(int fd)
{
    bool found = false;

    if (fd < 0) {
        return false;
    }
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < nevents && !found; i++) {
        if (events[i].fd == fd) {
            remove_event(i);
            found = true;
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

/* pmc_reprogram_counter(): perf_event_create_kernel_counter(), pinned */
void perf_model_pin_for_guest(uint64_t config, unsigned precise)
{
    Event event = {
        .fd = -1, .tid = syscall(SYS_gettid), .idx = -1,
        .config = config & EVENT_AND_UMASK, .precise = precise,
    };
    Event *added;

    pthread_mutex_lock(&lock);
    start_others();
    added = add_event(event);
    note("perf tid %d guest config 0x%llx counter %d", added->tid,
         (unsigned long long)added->config, added->error ? -1 : added->idx);
    pthread_mutex_unlock(&lock);
}
