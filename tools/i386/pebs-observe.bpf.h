/*
 * Reads perf's and KVM's state of a guest's PEBS counters in the kernel
 *
 * Only what is used of the kernel's types is declared, and each access is
 * relocated to the running kernel when the program is loaded (CO-RE).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TOOLS_I386_PEBS_OBSERVE_BPF_H
#define TOOLS_I386_PEBS_OBSERVE_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "pebs-decision.h"

#define OBSERVE_GLOBAL_CTRL     0x38f   /* IA32_PERF_GLOBAL_CTRL */
/* perf switches six MSRs of the PMU at most, see intel_guest_get_msrs(). */
#define OBSERVE_SWITCH_MSRS     8

#pragma clang attribute push(__attribute__((preserve_access_index)), \
                             apply_to = record)

enum perf_event_state {
    PERF_EVENT_STATE_ERROR = -2,
    PERF_EVENT_STATE_INACTIVE = 0,
    PERF_EVENT_STATE_ACTIVE = 1,
};

struct hw_perf_event {
    int idx;
};

struct perf_event {
    enum perf_event_state state;
    struct hw_perf_event hw;
};

struct perf_guest_switch_msr {
    unsigned int msr;
    __u64 guest;
};

struct kvm_pmc {
    struct perf_event *perf_event;
};

struct kvm_pmu {
    __u64 global_ctrl;
    __u64 pebs_enable;
    struct kvm_pmc gp_counters[PEBS_REPORT_GP];
    struct kvm_pmc fixed_counters[PEBS_REPORT_FIXED];
};

#pragma clang attribute pop

/* Where the counter at @position is within struct kvm_pmu */
static __always_inline __u64 observe_pmc_offset(int position)
{
    __u64 size = bpf_core_type_size(struct kvm_pmc);

    if (position < PEBS_REPORT_GP) {
        return bpf_core_field_offset(struct kvm_pmu, gp_counters) +
               position * size;
    }
    return bpf_core_field_offset(struct kvm_pmu, fixed_counters) +
           (position - PEBS_REPORT_GP) * size;
}

/* Negative ones are numbers of 64 bits unless they are cut. */
#define OBSERVE_EVENT_STATE(state) \
    ((int)bpf_core_enum_value(enum perf_event_state, PERF_EVENT_STATE_##state))

static __always_inline int observe_state(const struct perf_event *event)
{
    int state = BPF_CORE_READ(event, state);

    if (state == OBSERVE_EVENT_STATE(ACTIVE)) {
        return PEBS_EVENT_ACTIVE;
    }
    if (state == OBSERVE_EVENT_STATE(INACTIVE) ||
        state == OBSERVE_EVENT_STATE(ERROR)) {
        return PEBS_EVENT_WAITING;
    }
    return PEBS_EVENT_OFF;
}

static __always_inline struct pebs_event_state
observe_event(const struct kvm_pmu *pmu, int position)
{
    const struct kvm_pmc *pmc = (void *)pmu + observe_pmc_offset(position);
    const struct perf_event *event = BPF_CORE_READ(pmc, perf_event);
    struct pebs_event_state seen = {};

    if (event) {
        seen.state = observe_state(event);
        seen.idx = BPF_CORE_READ(event, hw.idx);
    }
    return seen;
}

/* What IA32_PERF_GLOBAL_CTRL is given for the guest; 0 if perf leaves it */
static __always_inline __u64
observe_guest_ctrl(const struct perf_guest_switch_msr *msrs, int count)
{
    for (int i = 0; i < OBSERVE_SWITCH_MSRS && i < count; i++) {
        const struct perf_guest_switch_msr *msr =
            (void *)msrs + i * bpf_core_type_size(struct perf_guest_switch_msr);

        if (BPF_CORE_READ(msr, msr) == OBSERVE_GLOBAL_CTRL) {
            return BPF_CORE_READ(msr, guest);
        }
    }
    return 0;
}

/* The report on a vCPU that enters its guest with @msrs */
static __always_inline __u64
observe(const struct kvm_pmu *pmu, const struct perf_guest_switch_msr *msrs,
        int count)
{
    __u64 active = BPF_CORE_READ(pmu, pebs_enable) &
                   BPF_CORE_READ(pmu, global_ctrl);
    __u64 report = 0, guest_ctrl;

    if (!active) {
        return 0;
    }
    guest_ctrl = observe_guest_ctrl(msrs, count);
    for (int i = 0; i < PEBS_REPORT_COUNTERS; i++) {
        if (active & pebs_counter_bit(i)) {
            report |= pebs_report_part(i, pebs_decide(i, observe_event(pmu, i),
                                                      guest_ctrl));
        }
    }
    return report;
}

#endif
