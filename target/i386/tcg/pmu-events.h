/*
 * Events of the emulated PMU, by CPU model
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_PMU_EVENTS_H
#define I386_TCG_PMU_EVENTS_H

#include "pmc-map.h"
#include "pmu-budget.h"

/* What of a kind an event counts */
typedef enum PMUEventPart {
    PMU_ALL_OF_IT,
    PMU_NOT_TAKEN,          /* of PMU_COND */
    PMU_ABOVE_THRESHOLD,    /* of PMU_LOAD, by MSR_PEBS_LD_LAT_THRESHOLD */
} PMUEventPart;

typedef struct PMUEventCode {
    uint16_t code;          /* IA32_PERFEVTSELx, bits 15:0: umask, event */
    uint16_t cpus;          /* private to pmu-events.c */
    uint8_t kind;           /* PMUKind */
    uint8_t part;           /* PMUEventPart */
    uint64_t counters;      /* that can count it, as in IA32_PERF_GLOBAL_CTRL */
} PMUEventCode;

/**
 * pmu_find_event: what a code counts on the CPU that the guest sees
 * @family: of CPUID
 * @model: of CPUID
 * @code: bits 15:0 of IA32_PERFEVTSELx
 *
 * Returns: NULL if it counts nothing there
 */
const PMUEventCode *pmu_find_event(unsigned family, unsigned model,
                                   uint16_t code);

#endif
