/*
 * Virtual and physical counters of the emulated PMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/host-utils.h"
#include "target/i386/tcg/pmc-map.h"

static uint64_t index_mask(unsigned index)
{
    return BIT_ULL(pmc_bit(index));
}

/* Take @physical out of @free for the virtual counter @index. */
static void place(PMCMap *map, unsigned index, unsigned physical,
                  uint64_t *free)
{
    map->physical[index] = physical;
    *free &= ~index_mask(physical);
}

void pmc_map_place(PMCMap *map, uint64_t active,
                   const uint64_t able[PMC_COUNTERS], uint64_t claimed,
                   uint64_t displaced)
{
    uint64_t free = PMC_ALL & ~claimed;
    unsigned i;

    memset(map->physical, PMC_NONE, sizeof(map->physical));
    for (i = 0; i < PMC_COUNTERS; i++) {
        if (active & free & ~displaced & index_mask(i)) {
            place(map, i, i, &free);
        }
    }
    for (i = 0; i < PMC_COUNTERS; i++) {
        uint64_t fit = free & able[i] & ~(displaced & index_mask(i));

        if ((active & index_mask(i)) && map->physical[i] == PMC_NONE && fit) {
            place(map, i, pmc_index(ctz64(fit)), &free);
        }
    }
}

uint64_t pmc_map_physical(const PMCMap *map, uint64_t counters)
{
    uint64_t physical = 0;

    for (counters &= PMC_ALL; counters; counters &= counters - 1) {
        unsigned at = map->physical[pmc_index(ctz64(counters))];

        if (at != PMC_NONE) {
            physical |= index_mask(at);
        }
    }
    return physical;
}

uint64_t pmc_map_virtual(const PMCMap *map, uint64_t counters)
{
    uint64_t virtual = 0;

    for (unsigned i = 0; i < PMC_COUNTERS; i++) {
        if (map->physical[i] != PMC_NONE &&
            (counters & index_mask(map->physical[i]))) {
            virtual |= index_mask(i);
        }
    }
    return virtual;
}

uint64_t pmc_map_crossed(const PMCMap *map, uint64_t counters)
{
    uint64_t crossed = 0;

    for (counters &= PMC_ALL; counters; counters &= counters - 1) {
        unsigned i = pmc_index(ctz64(counters));

        if (map->physical[i] != PMC_NONE && map->physical[i] != i) {
            crossed |= index_mask(i);
        }
    }
    return crossed;
}
