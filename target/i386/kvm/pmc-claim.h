/*
 * Physical counters taken from a KVM vCPU, with perf events of the host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_KVM_PMC_CLAIM_H
#define I386_KVM_PMC_CLAIM_H

#include "cpu.h"

/**
 * kvm_pmc_take: pin perf events on the thread of @cpu
 * @counters: those to hold beside @cpu->pmc_claimed, as bits of
 *            IA32_PERF_GLOBAL_CTRL
 * @errp: set if perf doesn't give them, with those that it gave instead
 *
 * Call with the BQL held.
 */
bool kvm_pmc_take(X86CPU *cpu, uint64_t counters, Error **errp);

/* The opposite.  Call with the BQL held. */
void kvm_pmc_give_back(X86CPU *cpu, uint64_t counters);

/**
 * kvm_pmc_held: the counters that the events on @cpu's thread are on now
 *
 * Asks that thread.  Call with the BQL held, while @cpu has claims.
 */
uint64_t kvm_pmc_held(X86CPU *cpu);

#endif
