/*
 * Budgets of the emulated PMU: what generated code counts down
 *
 * Counters count up to an overflow.  Generated code does the reverse: it
 * subtracts what a block will retire from a budget that pmu.c has granted,
 * and leaves when a budget does not cover the block.  How much of the grant is
 * gone is what the counters have counted since.
 *
 * This file knows what can be counted and where its budget lies.  It knows
 * neither counters nor MSRs (pmu.c), nor how code is generated (pmu-gen.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_PMU_BUDGET_H
#define I386_TCG_PMU_BUDGET_H

#include "qemu/bitops.h"

/*
 * What an instruction can be, for an event to count it.  An instruction is at
 * most once of each kind.  Five kinds share a word, those that most blocks
 * have together the same one, so that few words are counted down; those that
 * the edge of a branch gives back come early, where the constant is short.
 */
typedef enum PMUKind {
    PMU_INSN,           /* any; a cycle, too: one per instruction */
    PMU_TAKEN,          /* near branch that is taken, calls and returns too */
    PMU_COND_TAKEN,     /* conditional branch that is taken */
    PMU_BRANCH,         /* any branch, near or far, taken or not */
    PMU_COND,           /* conditional branch, taken or not */

    PMU_CALL,           /* near call */
    PMU_RET,            /* near return */
    PMU_FAR,            /* far branch: changes CS, or enters the kernel */
    PMU_INDIRECT,       /* near indirect jump or call, not a return */

    PMU_LOAD = 10,      /* makes at least one data load */
    PMU_STORE,          /* makes at least one data store */
    PMU_MEM,            /* PMU_LOAD or PMU_STORE */

    PMU_KINDS,
    PMU_NO_KIND = PMU_KINDS
} PMUKind;

/*
 * Each word holds five budgets, in a lane of 16 bits and four of 12, of which
 * the uppermost is a guard: a subtraction that a lane doesn't cover sets it.
 */
#define PMU_WORDS               3
#define PMU_WORD_LANES          5
#define PMU_GUARDS              0x8008008008008000ull

/*
 * The mode of a block is translated into its code and is part of its TB
 * flags: how many of the words it counts down, as a level, and whether its
 * privilege level counts down budgets of its own.
 */
#define HF_PMU_LEVEL_SHIFT      29
#define HF_PMU_LEVEL_LENGTH     2
#define HF_PMU_PRIVATE_MASK     (1u << 31)

typedef enum PMULevel {
    PMU_LEVEL_NONE,     /* no counter is active: no code at all */
    PMU_LEVEL_INSN,     /* the first lane of word 0 */
    PMU_LEVEL_BRANCH,   /* words 0 and 1 */
    PMU_LEVEL_ALL,      /* all words */
} PMULevel;

/*
 * Two sets of budgets.  The first serves both privilege levels as long as
 * every active counter counts at the same ones; the second is that of CPL 0
 * where they differ.
 *
 * Word 0 of the first, which most blocks count down and nothing else, is
 * CPUNegativeOffsetState::retire_budget.  The others are here.
 */
#define PMU_SETS                2

typedef struct X86PMUBudget {
    int64_t left[PMU_SETS][PMU_WORDS];
    /* What the words were when they were last filled */
    int64_t filled[PMU_SETS][PMU_WORDS];
    /* Granted since the last settlement, and how much was gone at that time */
    int64_t granted[PMU_SETS][PMU_KINDS];
    int64_t gone[PMU_SETS][PMU_KINDS];

    /* The last instruction of a final block, and what it accessed first */
    uint64_t ip;
    uint64_t load_address;
    uint64_t store_address;
    bool locked;
    /* It is that one which runs now, in a block that counts accesses. */
    bool noting;

    /* TB flags (HF_PMU_*) by CPL */
    uint32_t tb_flags[4];
} X86PMUBudget;

/*
 * Call in helpers that find out themselves where they access the guest's data.
 */
static inline void pmu_note_load(X86PMUBudget *pmu, uint64_t address)
{
    if (pmu->noting && !pmu->load_address) {
        pmu->load_address = address;
    }
}

static inline void pmu_note_store(X86PMUBudget *pmu, uint64_t address)
{
    if (pmu->noting && !pmu->store_address) {
        pmu->store_address = address;
    }
}

static inline unsigned pmu_kind_word(PMUKind kind)
{
    return kind / PMU_WORD_LANES;
}

static inline unsigned pmu_kind_shift(PMUKind kind)
{
    unsigned lane = kind % PMU_WORD_LANES;

    return lane ? 4 + 12 * lane : 0;
}

static inline unsigned pmu_kind_length(PMUKind kind)
{
    return kind % PMU_WORD_LANES ? 12 : 16;
}

/* The most that the lane of @kind can hold. */
static inline unsigned pmu_kind_max(PMUKind kind)
{
    return MAKE_64BIT_MASK(0, pmu_kind_length(kind) - 1);
}

static inline PMULevel pmu_flags_level(uint32_t tb_flags)
{
    return extract32(tb_flags, HF_PMU_LEVEL_SHIFT, HF_PMU_LEVEL_LENGTH);
}

static inline unsigned pmu_flags_set(uint32_t tb_flags)
{
    return tb_flags & HF_PMU_PRIVATE_MASK ? 1 : 0;
}

/* The kinds that are counted down at @level are those below this one. */
static inline unsigned pmu_level_kinds(PMULevel level)
{
    static const uint8_t kinds[] = {
        [PMU_LEVEL_INSN] = PMU_INSN + 1,
        [PMU_LEVEL_BRANCH] = PMU_INDIRECT + 1,
        [PMU_LEVEL_ALL] = PMU_KINDS,
    };

    return kinds[level];
}

/* The lowest level that counts @kind down. */
static inline PMULevel pmu_kind_level(PMUKind kind)
{
    PMULevel level = PMU_LEVEL_INSN;

    while (pmu_level_kinds(level) <= kind) {
        level++;
    }
    return level;
}

/*
 * How often each kind occurs in a run of instructions, packed into the one
 * word that a block's unwind data has for it: ten bits for what each
 * instruction may be, one for what only the last of a block can be.
 */
QEMU_BUILD_BUG_ON(4 * 10 + PMU_KINDS - 4 > 64);

static inline unsigned pmu_packed_length(PMUKind kind)
{
    return kind == PMU_INSN || kind == PMU_LOAD || kind == PMU_STORE ||
           kind == PMU_MEM ? 10 : 1;
}

static inline unsigned pmu_packed_shift(PMUKind kind)
{
    unsigned shift = 0;

    for (unsigned k = 0; k < kind; k++) {
        shift += pmu_packed_length(k);
    }
    return shift;
}

static inline unsigned pmu_packed_count(uint64_t packed, PMUKind kind)
{
    return extract64(packed, pmu_packed_shift(kind), pmu_packed_length(kind));
}

static inline uint64_t pmu_packed_one(PMUKind kind)
{
    return 1ull << pmu_packed_shift(kind);
}

/* The part of a packed count that @level counts down in word @word. */
static inline int64_t pmu_packed_word(uint64_t packed, unsigned word,
                                      PMULevel level)
{
    int64_t value = 0;

    for (unsigned kind = 0; kind < pmu_level_kinds(level); kind++) {
        if (pmu_kind_word(kind) == word) {
            value += (int64_t)pmu_packed_count(packed, kind)
                     << pmu_kind_shift(kind);
        }
    }
    return value;
}

#endif
