/*
 * What becomes of a guest's PEBS counters at a VM entry, from perf's state
 *
 * Plain C without any dependency: the BPF program uses it at VM entry, tests
 * run it on made-up inputs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TOOLS_I386_PEBS_DECISION_H
#define TOOLS_I386_PEBS_DECISION_H

#include <linux/types.h>
#include "../../target/i386/pebs-report.h"

/* INTEL_PMC_IDX_FIXED: the first fixed counter, in IA32_PERF_GLOBAL_CTRL */
#define PEBS_DECISION_FIXED     32

/* What perf has behind one of the guest's counters */
struct pebs_event_state {
    /*
     * It is on a physical counter, wants one but has none (perf puts a pinned
     * event that doesn't fit into the state of an error), or is off or not
     * there at all: KVM makes none that its event filter forbids.
     */
    enum {
        PEBS_EVENT_OFF,
        PEBS_EVENT_WAITING,
        PEBS_EVENT_ACTIVE,
    } state;
    int idx;                /* its hw.idx, which outlives the scheduling */
};

/* A counter's bit in IA32_PERF_GLOBAL_CTRL, by its position in the report */
static inline __u64 pebs_counter_bit(int position)
{
    return 1ull << (position < PEBS_REPORT_GP ? position :
                    position - PEBS_REPORT_GP + PEBS_DECISION_FIXED);
}

/* The position of the physical counter with this index, -1 if it has none */
static inline int pebs_position_of(int idx)
{
    if (idx >= 0 && idx < PEBS_REPORT_GP) {
        return idx;
    }
    if (idx >= PEBS_DECISION_FIXED &&
        idx < PEBS_DECISION_FIXED + PEBS_REPORT_FIXED) {
        return idx - PEBS_DECISION_FIXED + PEBS_REPORT_GP;
    }
    return -1;
}

/* Where a scheduled event is */
static inline __u64 pebs_place_of(int idx)
{
    int physical = pebs_position_of(idx);

    return idx < 0 ? PEBS_REPORT_UNMAPPED :
           physical < 0 ? PEBS_REPORT_BEYOND : PEBS_REPORT_MAPPED + physical;
}

/*
 * What becomes of the active PEBS counter at @position, as a value of the
 * report.
 *
 * @guest_ctrl is what intel_guest_get_msrs() gives IA32_PERF_GLOBAL_CTRL for
 * the guest: it takes all PEBS counters out and puts back those that may
 * sample, which are none while the host itself uses PEBS.  The bit alone says
 * nothing: it may stand there for another counter's event.
 */
static inline __u64 pebs_decide(int position, struct pebs_event_state event,
                                __u64 guest_ctrl)
{
    if (event.state == PEBS_EVENT_OFF) {
        return PEBS_REPORT_OTHER;
    }
    if (event.state == PEBS_EVENT_WAITING) {
        return PEBS_REPORT_UNMAPPED;
    }
    if (pebs_position_of(event.idx) == position &&
        !(guest_ctrl & pebs_counter_bit(position))) {
        return PEBS_REPORT_HOST_PEBS;
    }
    return pebs_place_of(event.idx);
}

/* The part of the report of the active PEBS counter at @position */
static inline __u64 pebs_report_part(int position, __u64 value)
{
    return value << (position * PEBS_REPORT_LENGTH) |
           (value == PEBS_REPORT_MAPPED + position ? 0 : PEBS_REPORT_SUSPENDED);
}

#endif
