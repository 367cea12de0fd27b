/*
 * Tests of the map between virtual and physical counters
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/host-utils.h"
#include "target/i386/tcg/pmc-map.h"

#define SETS (1u << PMC_COUNTERS)

/* A set by index, as bits of IA32_PERF_GLOBAL_CTRL */
static uint64_t set_bits(unsigned set)
{
    return extract32(set, 0, PMC_GP) |
           (uint64_t)extract32(set, PMC_GP, PMC_FIXED) << PMC_FIXED_BIT;
}

/*
 * Unlike each other in ways that matter: all, half of them, fixed ones as
 * well, itself alone, none.
 */
static const uint64_t able[PMC_COUNTERS] = {
    0xff, 0x0f, 0x1000000ff, 0xff, 0x0f, 0x2000000ff, 0xf0, 0,
    0x1000000ff, 0x2000000ff, 0x400000000,
};

static unsigned physical_index(const PMCMap *map, unsigned i)
{
    g_assert_cmpuint(map->physical[i], <, PMC_COUNTERS);
    return map->physical[i];
}

/* Whatever is claimed, in whatever company */
static void check_map(const PMCMap *map, unsigned active, unsigned claimed)
{
    unsigned taken = claimed;

    /* Those that keep their own come first. */
    for (unsigned i = 0; i < PMC_COUNTERS; i++) {
        if (active & ~claimed & (1u << i)) {
            g_assert_cmpuint(physical_index(map, i), ==, i);
            taken |= 1u << i;
        }
    }
    for (unsigned i = 0; i < PMC_COUNTERS; i++) {
        unsigned lowest = 0;

        if (!(active & (1u << i))) {
            g_assert_cmphex(map->physical[i], ==, PMC_NONE);
            continue;
        }
        if (!(claimed & (1u << i))) {
            continue;
        }
        while (lowest < PMC_COUNTERS &&
               ((taken & (1u << lowest)) ||
                !(able[i] & set_bits(1u << lowest)))) {
            lowest++;
        }
        if (lowest == PMC_COUNTERS) {
            g_assert_cmphex(map->physical[i], ==, PMC_NONE);
        } else {
            g_assert_cmpuint(physical_index(map, i), ==, lowest);
            taken |= 1u << lowest;
        }
    }
}

static void test_place(void)
{
    for (unsigned active = 0; active < SETS; active++) {
        /* All claims would be 4 million maps; these are all of one kind */
        for (unsigned claimed = active & 7; claimed < SETS; claimed += 7) {
            PMCMap map;

            pmc_map_place(&map, set_bits(active), able, set_bits(claimed), 0);
            check_map(&map, active, claimed);
        }
    }
}

static void test_identity(void)
{
    for (unsigned active = 0; active < SETS; active++) {
        uint64_t counters = set_bits(active);
        PMCMap map;

        pmc_map_place(&map, counters, able, 0, 0);
        g_assert_cmphex(pmc_map_physical(&map, PMC_ALL), ==, counters);
        g_assert_cmphex(pmc_map_virtual(&map, PMC_ALL), ==, counters);
        g_assert_cmphex(pmc_map_crossed(&map, PMC_ALL), ==, 0);
    }
}

/* Two of the same kind swap places; three move on. */
static void test_displace(void)
{
    const uint64_t fixed0 = BIT_ULL(PMC_FIXED_BIT);
    PMCMap map;

    pmc_map_place(&map, 0x3, able, 0, 0x3);
    g_assert_cmpuint(map.physical[0], ==, 1);
    g_assert_cmpuint(map.physical[1], ==, 0);

    pmc_map_place(&map, 0x7, able, 0, 0x3);
    g_assert_cmpuint(map.physical[0], ==, 1);
    g_assert_cmpuint(map.physical[1], ==, 0);
    g_assert_cmpuint(map.physical[2], ==, 2);

    /* Alone there is nobody to swap with. */
    pmc_map_place(&map, 0x1, able, 0, 0x3);
    g_assert_cmpuint(map.physical[0], ==, 1);

    /* What is claimed is nobody's. */
    pmc_map_place(&map, 0x3, able, 0x4, 0x1);
    g_assert_cmpuint(map.physical[0], ==, 3);
    g_assert_cmpuint(map.physical[1], ==, 1);

    /* One that only its own can do for has none. */
    pmc_map_place(&map, 0x80 | fixed0, able, 0, 0x80 | fixed0);
    g_assert_cmphex(map.physical[7], ==, PMC_NONE);
    g_assert_cmpuint(map.physical[PMC_GP], ==, 0);
}

/* A swap with a fixed counter, too, as a host's scheduler makes it */
static void test_swap(void)
{
    static const PMCMap swap = {
        .physical = { 1, 0, 2, PMC_NONE, 8, PMC_NONE, PMC_NONE, PMC_NONE,
                      4, PMC_NONE, PMC_NONE },
    };
    const uint64_t fixed0 = BIT_ULL(PMC_FIXED_BIT);

    g_assert_cmphex(pmc_map_physical(&swap, 0x1), ==, 0x2);
    g_assert_cmphex(pmc_map_physical(&swap, 0x2), ==, 0x1);
    g_assert_cmphex(pmc_map_physical(&swap, 0x3), ==, 0x3);
    g_assert_cmphex(pmc_map_virtual(&swap, 0x1), ==, 0x2);
    g_assert_cmphex(pmc_map_virtual(&swap, 0x2), ==, 0x1);
    g_assert_cmphex(pmc_map_crossed(&swap, PMC_ALL), ==, 0x13 | fixed0);

    /* Between GP and fixed counters, and without a physical one */
    g_assert_cmphex(pmc_map_physical(&swap, 0x1c), ==, 0x4 | fixed0);
    g_assert_cmphex(pmc_map_virtual(&swap, fixed0), ==, 0x10);
    g_assert_cmphex(pmc_map_virtual(&swap, 0x10), ==, fixed0);
    g_assert_cmphex(pmc_map_virtual(&swap, 0x20), ==, 0);
}

/* What a record names comes back as it was, whatever the map. */
static void test_round_trip(void)
{
    for (unsigned claimed = 0; claimed < SETS; claimed++) {
        PMCMap map;
        uint64_t mapped;

        pmc_map_place(&map, PMC_ALL, able, set_bits(claimed), 0);
        mapped = pmc_map_virtual(&map, PMC_ALL);
        for (unsigned set = 0; set < SETS; set += 13) {
            uint64_t counters = set_bits(set) & mapped;
            uint64_t physical = pmc_map_physical(&map, counters);

            g_assert_cmpuint(ctpop64(physical), ==, ctpop64(counters));
            g_assert_cmphex(pmc_map_virtual(&map, physical), ==, counters);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pebs/pmc-map/place", test_place);
    g_test_add_func("/pebs/pmc-map/identity", test_identity);
    g_test_add_func("/pebs/pmc-map/swap", test_swap);
    g_test_add_func("/pebs/pmc-map/displace", test_displace);
    g_test_add_func("/pebs/pmc-map/round-trip", test_round_trip);
    return g_test_run();
}
