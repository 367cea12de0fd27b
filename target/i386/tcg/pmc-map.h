/*
 * Virtual and physical counters of the emulated PMU
 *
 * A host shares its counters with its guests: behind a guest's counter stands
 * a physical one, of the same index unless that is taken.  This file knows
 * indices.  It knows no CPU, no event and no memory.
 *
 * A physical counter is eight GP or three fixed ones; a set of counters is a
 * mask with the bits of IA32_PERF_GLOBAL_CTRL, for virtual and for physical
 * ones alike.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_PMC_MAP_H
#define I386_TCG_PMC_MAP_H

#define PMC_GP          8
#define PMC_FIXED       3
#define PMC_COUNTERS    (PMC_GP + PMC_FIXED)
#define PMC_FIXED_BIT   32

/* Counters that there are, as bits of IA32_PERF_GLOBAL_CTRL */
#define PMC_ALL         (0xffull | 7ull << PMC_FIXED_BIT)

/* By index: GP counters first.  No physical counter is PMC_NONE. */
typedef struct PMCMap {
    uint8_t physical[PMC_COUNTERS];
} PMCMap;

#define PMC_NONE        0xff

/* Index of the counter that has bit @bit of IA32_PERF_GLOBAL_CTRL, and back */
static inline unsigned pmc_index(unsigned bit)
{
    return bit < PMC_FIXED_BIT ? bit : bit - PMC_FIXED_BIT + PMC_GP;
}

static inline unsigned pmc_bit(unsigned index)
{
    return index < PMC_GP ? index : index - PMC_GP + PMC_FIXED_BIT;
}

/**
 * pmc_map_place: find a physical counter for each virtual one
 * @map: filled in; counters that aren't in @active have PMC_NONE
 * @active: virtual counters that want one
 * @able: by index, the physical counters that can count what the virtual one
 *        counts, besides its own
 * @claimed: physical counters that others hold
 * @displaced: virtual counters that can't have their own, free as it may be
 *
 * A counter whose own index is free has that.  The others, from index 0 on,
 * have the lowest one that is free and able; or none.  So no counter of the
 * guest displaces another from its own.  A host's scheduler does that to those
 * in @displaced; two of them may swap places.
 */
void pmc_map_place(PMCMap *map, uint64_t active,
                   const uint64_t able[PMC_COUNTERS], uint64_t claimed,
                   uint64_t displaced);

/* The physical counters behind @counters, of those that have one. */
uint64_t pmc_map_physical(const PMCMap *map, uint64_t counters);

/* The virtual counters that the physical @counters stand behind. */
uint64_t pmc_map_virtual(const PMCMap *map, uint64_t counters);

/* Which of @counters have a physical counter of another index. */
uint64_t pmc_map_crossed(const PMCMap *map, uint64_t counters);

#endif
