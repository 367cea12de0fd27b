/*
 * Runs the observer's reading and decision on a made-up state of the kernel
 *
 * A program of this type can be run by BPF_PROG_TEST_RUN, which the observer's
 * own type can't.  The state is laid out as the running kernel has it, so
 * that the same relocations are at work.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "pebs-observe.bpf.h"
#include "decide.h"

char LICENSE[] SEC("license") = "GPL";

#define MEMORY_PMU      0
#define MEMORY_MSRS     8192
#define MEMORY_EVENTS   12288
#define EVENT_SIZE      4096

struct decide_case input;
__u64 output;
/* The made-up structures; room for those of any kernel */
char memory[MEMORY_EVENTS + PEBS_REPORT_COUNTERS * EVENT_SIZE]
    __attribute__((aligned(8)));

#define FIELD(where, type, field) \
    (*(__u64 *)(memory + (where) + bpf_core_field_offset(type, field)))
#define FIELD32(where, type, field) \
    (*(__u32 *)(memory + (where) + bpf_core_field_offset(type, field)))

static __always_inline void make_counter(int position)
{
    const struct decide_counter *c = &input.counters[position];
    int event = MEMORY_EVENTS + position * EVENT_SIZE;

    FIELD32(event, struct perf_event, state) = c->state;
    FIELD32(event, struct perf_event, hw.idx) = c->idx;
    *(void **)(memory + MEMORY_PMU + observe_pmc_offset(position) +
               bpf_core_field_offset(struct kvm_pmc, perf_event)) =
        c->exists ? memory + event : 0;
}

static __always_inline void make_msr(int i)
{
    int msr = MEMORY_MSRS +
              i * bpf_core_type_size(struct perf_guest_switch_msr);

    FIELD32(msr, struct perf_guest_switch_msr, msr) = input.msrs[i].index;
    FIELD(msr, struct perf_guest_switch_msr, guest) = input.msrs[i].guest;
}

SEC("syscall")
int decide(void *context)
{
    FIELD(MEMORY_PMU, struct kvm_pmu, pebs_enable) = input.pebs_enable;
    FIELD(MEMORY_PMU, struct kvm_pmu, global_ctrl) = input.global_ctrl;
#pragma clang loop unroll(full)
    for (int i = 0; i < PEBS_REPORT_COUNTERS; i++) {
        make_counter(i);
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < DECIDE_MSRS; i++) {
        make_msr(i);
    }
    output = observe((void *)(memory + MEMORY_PMU),
                     (void *)(memory + MEMORY_MSRS), input.count);
    return 0;
}
