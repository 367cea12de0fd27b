/*
 * Claims on the physical counters behind a vCPU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/accel.h"
#include "hw/core/cpu.h"
#include "pebs.h"
#include "pmc-claim.h"
#include "tcg/pmc-map.h"
#include "tcg/pmu.h"

/* Whoever changes the list waits for this. */
static void remap(CPUState *cs, run_on_cpu_data data)
{
    X86CPU *cpu = X86_CPU(cs);
    X86PMCClaim *claim;

    cpu->pmc_claimed = 0;
    cpu->pmc_displaced = 0;
    QLIST_FOREACH(claim, &cpu->pmc_claims, next) {
        *(claim->displaces ? &cpu->pmc_displaced : &cpu->pmc_claimed) |=
            claim->counters;
    }
    x86_pmu_remap(&cpu->env);
}

static uint64_t held_counters(const X86CPU *cpu)
{
    return cpu->pmc_claimed | cpu->pmc_displaced;
}

bool x86_pmc_claim(X86PMCClaim *claim, Error **errp)
{
    X86CPU *cpu = claim->cpu;
    int index = CPU(cpu)->cpu_index;
    uint64_t held;

    if (!x86_cpu_has_tcg_pmu(cpu)) {
        error_setg(errp, "vCPU %d has no counters to claim with accelerator "
                   "'%s': use -accel tcg and pebs=on", index,
                   current_accel_name());
        return false;
    }
    if (!claim->counters) {
        error_setg(errp, "no counter is named: set counters= or fixed=");
        return false;
    }
    if (claim->counters & ~PMC_ALL) {
        error_setg(errp, "there are %d general-purpose and %d fixed counters: "
                   "use counters= up to 0x%x and fixed= up to 0x%x",
                   PMC_GP, PMC_FIXED, (1 << PMC_GP) - 1, (1 << PMC_FIXED) - 1);
        return false;
    }
    held = claim->counters & held_counters(cpu);
    if (held) {
        error_setg(errp, "vCPU %d: counters=0x%" PRIx64 ",fixed=0x%" PRIx64
                   " are claimed already", index,
                   extract64(held, 0, PMC_FIXED_BIT), held >> PMC_FIXED_BIT);
        return false;
    }
    QLIST_INSERT_HEAD(&cpu->pmc_claims, claim, next);
    run_on_cpu(CPU(cpu), remap, RUN_ON_CPU_NULL);
    return true;
}

void x86_pmc_release(X86PMCClaim *claim)
{
    QLIST_REMOVE(claim, next);
    run_on_cpu(CPU(claim->cpu), remap, RUN_ON_CPU_NULL);
}

void x86_pmc_revoke_all(X86CPU *cpu)
{
    X86PMCClaim *claim, *more;

    QLIST_FOREACH_SAFE(claim, &cpu->pmc_claims, next, more) {
        claim->revoke(claim);
    }
}
