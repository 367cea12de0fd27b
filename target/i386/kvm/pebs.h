/*
 * Intel PEBS for KVM guests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_KVM_PEBS_H
#define I386_KVM_PEBS_H

#include "cpu.h"
#include "system/pebs-observer.h"

/* What pebs=on would get from this host's KVM */
typedef struct KvmPebsOffer {
    /* PERF_CAP_PEBS_MASK of IA32_PERF_CAPABILITIES: KVM takes this or none */
    uint64_t perf_capabilities;
    unsigned gp_counters;
    /* CPUID leaf 1, EAX: family and model that a guest has to show */
    uint32_t cpuid_version;
    /* EAX to EDX */
    uint32_t cpuid_0xa[4];
} KvmPebsOffer;

/**
 * kvm_pebs_probe: what KVM offers a guest here, or why nothing
 * @offer: filled in if it offers something, even if that is no good
 * @obstacles: if not, BIT(PEBS_OBSTACLE_...) of each possible cause
 * @errp: says why not
 *
 * It is what pebs=on gets alone: baseline, which no host should offer, is an
 * obstacle.
 *
 * Needs no guest, nor a machine that can have one; KVM must be the accelerator.
 */
bool kvm_pebs_probe(KvmPebsOffer *offer, uint32_t *obstacles, Error **errp);

/* Check that KVM will take what @cpu, whose properties are set, is to show. */
bool kvm_pebs_prepare(X86CPU *cpu, Error **errp);

/* The PEBS bits of IA32_PERF_CAPABILITIES that KVM offers; 0 if none */
uint64_t kvm_pebs_perf_capabilities(void);

/* How many GP counters KVM's virtual PMU has at most; 0 without one */
unsigned kvm_pmu_gp_counters(void);

/**
 * kvm_pebs_put_msrs: add @cpu's PEBS MSRs to those that will be put
 *
 * Call while the counters are stopped.
 */
void kvm_pebs_put_msrs(X86CPU *cpu);

/* Add the PEBS MSRs to those that will be got for @cpu. */
void kvm_pebs_get_msrs(X86CPU *cpu);

/* Take the value of an MSR that kvm_pebs_get_msrs() has asked for. */
void kvm_pebs_got_msr(X86CPU *cpu, uint32_t index, uint64_t value);

/**
 * kvm_pebs_check_loaded: check that KVM takes the PEBS MSRs that were loaded
 *
 * Which values those are is KVM's to say, and differs between kernels: they are
 * put here, when a load can still fail.  Call when CR4 has been loaded.
 */
bool kvm_pebs_check_loaded(X86CPU *cpu, Error **errp);

/**
 * kvm_pebs_replay_pmi: raise the PMI that was lost with the source's vCPU
 *
 * Call when all state has been loaded, the local APIC's included, and before
 * pending events are put.
 */
int kvm_pebs_replay_pmi(X86CPU *cpu);

/**
 * kvm_pebs_observe: have vCPUs watched for the path that PEBS takes
 * @helper: socket of qemu-pebs-helper, or NULL for the default
 * @max_cpus: how many vCPUs there may be
 *
 * What is in the way is told as a warning: the path is unknown then.
 */
void kvm_pebs_observe(const char *helper, unsigned max_cpus);

/* Whether kvm_pebs_observe() was called. */
bool kvm_pebs_is_observed(void);

/* Call on @cpu's thread before it first enters the guest, with the BQL held. */
void kvm_pebs_thread_started(X86CPU *cpu);

/* Call when @cpu's thread doesn't enter the guest any more. */
void kvm_pebs_thread_ended(X86CPU *cpu);

/**
 * kvm_pebs_observe_vcpu: what was seen of @cpu at its VM entries
 *
 * Returns false if there were none that somebody watched.
 */
bool kvm_pebs_observe_vcpu(const X86CPU *cpu, PebsObservation *seen);

#endif
