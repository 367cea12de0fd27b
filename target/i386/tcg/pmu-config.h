/*
 * What the emulated PMU's MSRs, and the claims on its counters, come down to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_TCG_PMU_CONFIG_H
#define I386_TCG_PMU_CONFIG_H

#include "pmc-map.h"

/* Privilege levels that a counter counts at, a bit each */
enum {
    PMU_PRIV_OS  = 1 << 0,  /* CPL 0 */
    PMU_PRIV_USR = 1 << 1,  /* CPL 1 to 3 */
};

/*
 * What a counter counts: a PMUKind, less another that is part of it, and more
 * of what is part of that one.
 */
typedef struct PMUEvent {
    uint8_t privs;
    uint8_t kind;
    uint8_t less;
    uint8_t more;
} PMUEvent;

/*
 * All of it can be derived, and is by pmu.c's configure(); it is kept because
 * it is needed at each overflow, and changes only when MSRs are written.
 */
typedef struct X86PMUConfig {
    uint64_t counting;                  /* bits of IA32_PERF_GLOBAL_CTRL */
    PMUEvent event[PMC_COUNTERS];       /* of the counters that count */
    PMCMap map;
} X86PMUConfig;

#endif
