/*
 * Claims on the physical counters behind a vCPU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/accel.h"
#include "hw/core/cpu.h"
#include "system/kvm.h"
#include "system/tcg.h"
#include "kvm/pmc-claim.h"
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

static bool check_counters(const X86PMCClaim *claim, Error **errp)
{
    const X86CPU *cpu = claim->cpu;
    uint64_t taken = claim->counters &
                     (cpu->pmc_claimed | cpu->pmc_displaced);

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
    if (taken) {
        error_setg(errp, "vCPU %d: counters=0x%" PRIx64 ",fixed=0x%" PRIx64
                   " are claimed already", CPU(cpu)->cpu_index,
                   extract64(taken, 0, PMC_FIXED_BIT),
                   taken >> PMC_FIXED_BIT);
        return false;
    }
    return true;
}

static bool check_pmu(const X86PMCClaim *claim, Error **errp)
{
    if (!kvm_enabled() && !x86_cpu_has_tcg_pmu(claim->cpu)) {
        error_setg(errp, "vCPU %d has no counters to claim with accelerator "
                   "'%s': use -accel tcg and pebs=on",
                   CPU(claim->cpu)->cpu_index, current_accel_name());
        return false;
    }
    if (kvm_enabled() && claim->displaces) {
        error_setg(errp, "x-displace=on needs -accel tcg: under KVM perf places "
                   "events as it likes");
        return false;
    }
    return true;
}

bool x86_pmc_claim(X86PMCClaim *claim, Error **errp)
{
    X86CPU *cpu = claim->cpu;

    if (!check_pmu(claim, errp) || !check_counters(claim, errp) ||
        (kvm_enabled() && !kvm_pmc_take(cpu, claim->counters, errp))) {
        return false;
    }
    QLIST_INSERT_HEAD(&cpu->pmc_claims, claim, next);
    if (tcg_enabled()) {
        run_on_cpu(CPU(cpu), remap, RUN_ON_CPU_NULL);
    }
    return true;
}

void x86_pmc_release(X86PMCClaim *claim)
{
    X86CPU *cpu = claim->cpu;

    QLIST_REMOVE(claim, next);
    if (kvm_enabled()) {
        kvm_pmc_give_back(cpu, claim->counters);
    } else if (tcg_enabled()) {
        run_on_cpu(CPU(cpu), remap, RUN_ON_CPU_NULL);
    }
}

uint64_t x86_pmc_held(const X86PMCClaim *claim)
{
    return claim->counters & (kvm_enabled() ? kvm_pmc_held(claim->cpu)
                                            : claim->cpu->pmc_claimed);
}

void x86_pmc_revoke_all(X86CPU *cpu)
{
    X86PMCClaim *claim, *more;

    QLIST_FOREACH_SAFE(claim, &cpu->pmc_claims, next, more) {
        claim->revoke(claim);
    }
}
