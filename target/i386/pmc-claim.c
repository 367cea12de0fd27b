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

static void remap(CPUState *cs, run_on_cpu_data data)
{
    X86CPU *cpu = X86_CPU(cs);

    cpu->pmc_claimed = data.target_ptr;
    x86_pmu_remap(&cpu->env);
}

static void set_claimed(X86CPU *cpu, uint64_t claimed)
{
    run_on_cpu(CPU(cpu), remap, RUN_ON_CPU_TARGET_PTR(claimed));
}

bool x86_pmc_claim(X86PMCClaim *claim, Error **errp)
{
    X86CPU *cpu = claim->cpu;
    int index = CPU(cpu)->cpu_index;

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
    if (claim->counters & cpu->pmc_claimed) {
        error_setg(errp, "vCPU %d: counters=0x%" PRIx64 ",fixed=0x%" PRIx64
                   " are claimed already", index,
                   extract64(claim->counters & cpu->pmc_claimed, 0,
                             PMC_FIXED_BIT),
                   (claim->counters & cpu->pmc_claimed) >> PMC_FIXED_BIT);
        return false;
    }
    QLIST_INSERT_HEAD(&cpu->pmc_claims, claim, next);
    set_claimed(cpu, cpu->pmc_claimed | claim->counters);
    return true;
}

void x86_pmc_release(X86PMCClaim *claim)
{
    QLIST_REMOVE(claim, next);
    set_claimed(claim->cpu, claim->cpu->pmc_claimed & ~claim->counters);
}

void x86_pmc_revoke_all(X86CPU *cpu)
{
    X86PMCClaim *claim, *more;

    QLIST_FOREACH_SAFE(claim, &cpu->pmc_claims, next, more) {
        claim->revoke(claim);
    }
}
