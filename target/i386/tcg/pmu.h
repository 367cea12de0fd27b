/*
 * The emulated architectural PMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_PMU_H
#define I386_TCG_PMU_H

#include "cpu.h"
#include "exec/translation-block.h"

/* Width of every counter, in bits */
#define PMU_COUNTER_BITS        48

/*
 * A counter's samples have the groups of PEBS_DATA_CFG: in IA32_PERFEVTSELx,
 * and in IA32_FIXED_CTR_CTRL shifted by 4 for each counter
 */
#define PMU_EVTSEL_ADAPTIVE     (1ull << 34)
#define PMU_FIXED_ADAPTIVE      (1ull << 32)

/*
 * What a load costs, in cycles: there is no model of a memory hierarchy, so
 * it is a constant.  It lies above the threshold of 30 cycles that «perf mem
 * record» asks for, or that would find no loads at all.
 */
#define PMU_LOAD_LATENCY        64

/*
 * Whether a block of @insns instructions is a final one.  Such a block doesn't
 * chain to another and has as many instructions as it is asked for, so that an
 * overflow by the last of them is handled right there.
 */
static inline bool pmu_is_final(uint32_t cflags, unsigned insns)
{
    return (cflags & CF_NO_GOTO_TB) && (cflags & CF_NO_GOTO_PTR) &&
           (cflags & CF_COUNT_MASK) == insns;
}

/* Outcome of an access to an MSR */
typedef enum X86PMUAccess {
    X86_PMU_NOT_MINE,   /* no MSR of a PMU, or this vCPU has none */
    X86_PMU_DONE,
    X86_PMU_FAULT,      /* raise #GP(0) */
} X86PMUAccess;

/**
 * x86_pmu_rdmsr: read an MSR of the PMU
 * @index: MSR number
 * @value: set with X86_PMU_DONE
 * @ra: GETPC() of the helper that runs RDMSR
 */
X86PMUAccess x86_pmu_rdmsr(CPUX86State *env, uint32_t index, uint64_t *value,
                           uintptr_t ra);

/**
 * x86_pmu_wrmsr: write an MSR of the PMU
 * @index: MSR number
 * @value: what to write; nothing changes if that isn't X86_PMU_DONE
 * @ra: GETPC() of the helper that runs WRMSR, the last in its block
 *
 * A WRMSR counts under the configuration that it leaves.
 */
X86PMUAccess x86_pmu_wrmsr(CPUX86State *env, uint32_t index, uint64_t value,
                           uintptr_t ra);

/**
 * x86_pmu_rdpmc: read a counter as RDPMC does
 * @selector: ECX
 * @value: set with X86_PMU_DONE
 * @ra: GETPC() of the helper that runs RDPMC
 */
X86PMUAccess x86_pmu_rdpmc(CPUX86State *env, uint32_t selector,
                           uint64_t *value, uintptr_t ra);

/**
 * x86_pmu_give_back: what a block didn't retire
 * @tb_flags: flags of the block
 * @packed: as its unwind data has it
 */
void x86_pmu_give_back(CPUX86State *env, uint32_t tb_flags, uint64_t packed);

/**
 * x86_pmu_retire_interrupt: count an INT n, INT3 or INTO that was delivered
 * @cpl: privilege level that it started at
 * @ip: its EIP
 *
 * It is known to retire only when its delivery hasn't faulted, so no block
 * counts it.
 */
void x86_pmu_retire_interrupt(CPUX86State *env, unsigned cpl, uint64_t ip);

/*
 * TCGCPUOps::retire_budget_exit: grant what @tb counts down, or have it cut to
 * what is left.
 */
bool x86_pmu_budget_exit(CPUState *cs, const TranslationBlock *tb);

/* TCGCPUOps::retire_event: settle, and handle what has overflowed. */
void x86_pmu_retire_event(CPUState *cs);

/**
 * x86_pmu_settle: bring the counters' MSRs up to date
 *
 * Call with the vCPU stopped, before its state is read.
 */
void x86_pmu_settle(CPUX86State *env);

/**
 * x86_pmu_loaded: check the PMU's state, and count on from there
 * @errp: what no guest can have set; the PMU is switched off then
 *
 * Call with the vCPU stopped, after all of its state was loaded.
 */
bool x86_pmu_loaded(CPUX86State *env, Error **errp);

/**
 * x86_pmu_smm_changed: count and record on as SMM, or what it returned to, does
 *
 * Call on the vCPU's thread when SMM has been entered, between blocks, or
 * left, in the last instruction of a block.
 */
void x86_pmu_smm_changed(CPUX86State *env);

/**
 * x86_pmu_remap: work out anew what counts, and on which physical counters
 *
 * Call when that has changed for another reason than a WRMSR, on the vCPU's
 * thread between blocks, or with the vCPU stopped.
 */
void x86_pmu_remap(CPUX86State *env);

/**
 * x86_pebs_record: write the records of PEBS counters that overflowed
 * @counters: which, as bits of IA32_PEBS_ENABLE; all on the same instruction
 * @address: of the memory access to report; 0 if there is none
 *
 * Reloads the counters.  Call on the vCPU's thread, from the main loop only,
 * with no budget outstanding.
 *
 * Returns: whether a PMI is due; if so GLOBAL_STATUS says why.
 */
bool x86_pebs_record(CPUX86State *env, uint64_t counters, uint64_t address);

/* The MSR of counter @bit of IA32_PERF_GLOBAL_CTRL. */
uint64_t *x86_pmu_counter(CPUX86State *env, unsigned bit);

#endif
