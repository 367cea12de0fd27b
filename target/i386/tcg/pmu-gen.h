/*
 * The emulated PMU at translation time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_PMU_GEN_H
#define I386_TCG_PMU_GEN_H

#include "exec/translator.h"
#include "tcg/tcg.h"
#include "pmu-budget.h"

/* What is known of the block that is being translated. */
typedef struct PMUGen {
    PMULevel level;
    unsigned set;
    /* Address of the instruction being translated */
    vaddr pc;
    /* It doesn't retire in this block. */
    bool faults;
    /* Its accesses are locked; set by the decoder. */
    bool locked;
    /* What it may be as a branch; set by the decoder. */
    uint16_t branch_kinds;
    /* What the next jump gives back */
    uint16_t edge_kinds;
    /* Budget code goes in behind this operation, or first of all. */
    TCGOp *entry;
} PMUGen;

/* Whether the block counts memory accesses. */
static inline bool pmu_gen_counts_memory(const PMUGen *pmu)
{
    return pmu->level == PMU_LEVEL_ALL;
}

#ifdef CONFIG_USER_ONLY
static inline void pmu_gen_tb_start(DisasContextBase *db, PMUGen *pmu)
{
    pmu->level = PMU_LEVEL_NONE;
}
static inline void pmu_gen_insn_start(DisasContextBase *db, PMUGen *pmu) { }
static inline void pmu_gen_insn_faults(PMUGen *pmu) { }
static inline void pmu_gen_insn_end(DisasContextBase *db, PMUGen *pmu) { }
static inline uint16_t pmu_gen_memory_kinds(DisasContextBase *db,
                                            PMUGen *pmu)
{
    return 0;
}
static inline void pmu_gen_give_back(PMUGen *pmu, uint16_t kinds) { }
static inline void pmu_gen_jump(PMUGen *pmu) { }
static inline void pmu_gen_tb_stop(DisasContextBase *db, PMUGen *pmu) { }
#else
/* Call at the start of a block, before anything of its own is generated. */
void pmu_gen_tb_start(DisasContextBase *db, PMUGen *pmu);

/* Call right after the insn_start operation of each instruction. */
void pmu_gen_insn_start(DisasContextBase *db, PMUGen *pmu);

/*
 * Call where code is generated that raises a fault or a software interrupt
 * without condition.
 */
static inline void pmu_gen_insn_faults(PMUGen *pmu)
{
    pmu->faults = true;
}

/*
 * Call when an instruction has been translated; its memory accesses are found
 * in the code.
 */
void pmu_gen_insn_end(DisasContextBase *db, PMUGen *pmu);

/*
 * The kinds that the instruction being translated is by the memory accesses
 * generated so far; none if the block doesn't count such kinds.
 */
uint16_t pmu_gen_memory_kinds(DisasContextBase *db, PMUGen *pmu);

/* Generate, on one way out of an instruction, that it is not of @kinds. */
void pmu_gen_give_back(PMUGen *pmu, uint16_t kinds);

/*
 * Call in a direct jump, with EIP updated: it gives back its @edge_kinds.  Last
 * of all, as the next block's first stores are to the same cache line.
 */
void pmu_gen_jump(PMUGen *pmu);

/* Call at the end of a block, after everything else has been generated. */
void pmu_gen_tb_stop(DisasContextBase *db, PMUGen *pmu);
#endif

#endif
