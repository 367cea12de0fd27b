/*
 * Claims on the physical counters behind a vCPU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_PMC_CLAIM_H
#define I386_PMC_CLAIM_H

#include "cpu.h"

/*
 * Somebody who holds physical counters, as a pinned event of the host would.
 * The vCPU can't have them meanwhile.
 *
 * Or, with @displaces, somebody who has them handed out anew, as a host does
 * whose scheduler places events in another order: they stay the vCPU's, but
 * none is behind the counter of its own index.
 */
typedef struct X86PMCClaim {
    X86CPU *cpu;
    uint64_t counters;              /* bits of IA32_PERF_GLOBAL_CTRL */
    bool displaces;
    /* The vCPU goes away: to end with x86_pmc_release() */
    void (*revoke)(struct X86PMCClaim *claim);
    QLIST_ENTRY(X86PMCClaim) next;
} X86PMCClaim;

/**
 * x86_pmc_claim: take physical counters from a vCPU
 * @claim: all fields set, but for the list's
 * @errp: set if they can't be had: they don't exist, or are claimed already,
 *        or the accelerator can't tell
 *
 * Under TCG the vCPU finds other counters, or none, at its next instruction
 * boundary, which is waited for.  Under KVM perf gives them, or other ones, and
 * the claim fails.  Call with the BQL held.
 */
bool x86_pmc_claim(X86PMCClaim *claim, Error **errp);

/* Give them back.  Call with the BQL held, while the vCPU is there. */
void x86_pmc_release(X86PMCClaim *claim);

/* Which of them @claim holds now.  Call with the BQL held. */
uint64_t x86_pmc_held(const X86PMCClaim *claim);

/* Revoke all claims on @cpu, before it goes away. */
void x86_pmc_revoke_all(X86CPU *cpu);

#endif
