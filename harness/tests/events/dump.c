/*
 * Print all codes that QEMU's table of events counts, for each CPU that a line
 * on standard input names by family and model.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <inttypes.h>
#include <stdio.h>
#include "qemu/osdep.h"
#include "target/i386/tcg/pmu-events.h"

static const char *const kinds[PMU_KINDS] = {
    [PMU_INSN]       = "insn",
    [PMU_TAKEN]      = "taken",
    [PMU_COND_TAKEN] = "cond-taken",
    [PMU_BRANCH]     = "branch",
    [PMU_COND]       = "cond",
    [PMU_CALL]       = "call",
    [PMU_RET]        = "ret",
    [PMU_FAR]        = "far",
    [PMU_INDIRECT]   = "indirect",
    [PMU_LOAD]       = "load",
    [PMU_STORE]      = "store",
    [PMU_MEM]        = "mem",
};

static const char *kind_name(const PMUEventCode *event)
{
    switch (event->part) {
    case PMU_ALL_OF_IT:
        return kinds[event->kind];
    case PMU_NOT_TAKEN:
        return event->kind == PMU_COND ? "cond-not-taken" : "?";
    case PMU_ABOVE_THRESHOLD:
        return event->kind == PMU_LOAD ? "slow-load" : "?";
    default:
        return "?";
    }
}

int main(void)
{
    unsigned family, model;

    while (scanf("%u %u", &family, &model) == 2) {
        for (unsigned code = 0; code <= UINT16_MAX; code++) {
            const PMUEventCode *event = pmu_find_event(family, model, code);

            if (event) {
                printf("%u %u 0x%04x %s 0x%" PRIx64 "\n", family, model, code,
                       kind_name(event), event->counters);
            }
        }
    }
    return 0;
}
