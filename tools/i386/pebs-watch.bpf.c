/*
 * Reports at each VM entry how the vCPU's PEBS counters will sample
 *
 * KVM on Intel calls perf_guest_get_msrs() at each VM entry, and what that
 * returns is the last word: a counter that it leaves out of the guest's
 * IA32_PERF_GLOBAL_CTRL doesn't count, and nothing in the kernel tells anybody.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "pebs-observe.bpf.h"
#include <bpf/bpf_tracing.h>
#include "pebs-watch.h"
#include "../../include/system/pebs-helper.h"

/* What is called needs a licence that Linux knows. */
char LICENSE[] SEC("license") = "GPL";

struct client_map {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
    __uint(max_entries, 1);
    __uint(key_size, sizeof(__u32));
    __uint(value_size, sizeof(struct PebsHelperSlot));
};

/* The memory of each client */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, PEBS_MAX_CLIENTS);
    __type(key, __u32);
    __array(values, struct client_map);
} clients SEC(".maps");

/*
 * The threads that are watched.  With the process in the key, a thread that
 * gets the number of one that is gone is not taken for it.
 */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, PEBS_MAX_THREADS);
    __type(key, __u64);
    __type(value, struct pebs_place);
} watched SEC(".maps");

static __always_inline struct PebsHelperSlot *slot_of(__u64 thread)
{
    struct pebs_place *place = bpf_map_lookup_elem(&watched, &thread);
    void *memory;

    if (!place) {
        return 0;
    }
    memory = bpf_map_lookup_elem(&clients, &place->client);
    return memory ? bpf_map_lookup_elem(memory, &place->slot) : 0;
}

/* volatile: whoever reads it may do so at any time, and in this order. */
/*
 * The report is looked at where it was stored.  In a register the verifier
 * knows it, and has to follow every value that eleven counters together can
 * have: newer kernels refuse that as too long a program.
 */
static __always_inline void tell(volatile struct PebsHelperSlot *slot,
                                 __u64 report)
{
    /* x86 keeps the order of stores. */
    slot->report = report;
    slot->entries += 1;
    if (slot->report) {
        slot->active_entries += 1;
    }
    if (slot->report & PEBS_REPORT_SUSPENDED) {
        slot->suspended_entries += 1;
    }
}

SEC("fexit/perf_guest_get_msrs")
int BPF_PROG(pebs_vm_entry, int *nr, void *pmu,
             struct perf_guest_switch_msr *msrs)
{
    struct PebsHelperSlot *slot = slot_of(bpf_get_current_pid_tgid());
    int count = 0;

    if (!slot || !pmu || !msrs) {
        return 0;
    }
    bpf_probe_read_kernel(&count, sizeof(count), nr);
    tell(slot, observe(pmu, msrs, count));
    return 0;
}
