/*
 * Events of the emulated PMU, by CPU model
 *
 * A guest's perf chooses codes by CPUID family and model.  They are those of
 * the event files of Linux's perf (tools/perf/pmu-events/arch/x86); which
 * counters can count them is from arch/x86/events/intel/core.c and ds.c.
 *
 * Only what is a PMUKind is here.  All else counts nothing: it concerns caches,
 * predictors, micro-operations and a pipeline, of which there is no model.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "target/i386/tcg/pmu-events.h"

/* CPUs that have the same codes for all that is counted here */
enum {
    BONNELL      = 1 << 0,
    SILVERMONT   = 1 << 1,  /* to Tremont, and Knights Landing and Mill */
    GRACEMONT    = 1 << 2,
    CRESTMONT    = 1 << 3,
    NEHALEM      = 1 << 4,  /* and Westmere */
    SANDY_BRIDGE = 1 << 5,  /* and Ivy Bridge */
    HASWELL      = 1 << 6,
    BROADWELL    = 1 << 7,
    SKYLAKE      = 1 << 8,  /* to Cooper Lake */
    ICE_LAKE     = 1 << 9,  /* to Tiger and Rocket Lake */
    GOLDEN_COVE  = 1 << 10, /* Sapphire, Emerald and Granite Rapids */
    OTHER        = 1 << 11, /* anything else that has an architectural PMU */
};

#define ANY_CPU     0xffff
#define SMALL_CORES (SILVERMONT | GRACEMONT | CRESTMONT)
#define SNB_TO_HSW  (SANDY_BRIDGE | HASWELL)
#define BDW_TO_SKL  (BROADWELL | SKYLAKE)
#define SNB_TO_SKL  (SNB_TO_HSW | BDW_TO_SKL)
#define NHM_TO_SKL  (NEHALEM | SNB_TO_SKL)
#define ICL_ON      (ICE_LAKE | GOLDEN_COVE)
#define SNB_ON      (SNB_TO_SKL | ICL_ON)
#define NHM_ON      (NHM_TO_SKL | ICL_ON)
/* Reference cycles are those of fixed counter 2, at the TSC's rate. */
#define REF_FIXED   (GRACEMONT | CRESTMONT | GOLDEN_COVE)

/* Linux's FIXED_EVENT_CONSTRAINT(): that fixed counter, or any GP counter */
#define GP          0xffull
#define GP_FIXED(n) (GP | 1ull << (PMC_FIXED_BIT + (n)))

static const PMUEventCode events[] = {
    /* Architectural: SDM, "Pre-defined Architectural Performance Events" */
    { 0x00c0, ANY_CPU,      PMU_INSN,       .counters = GP_FIXED(0) },
    { 0x003c, ANY_CPU,      PMU_INSN,       .counters = GP_FIXED(1) },
    { 0x013c, REF_FIXED,    PMU_INSN,       .counters = GP_FIXED(2) },
    { 0x013c, ANY_CPU & ~REF_FIXED, PMU_INSN, .counters = GP },
    { 0x00c4, ANY_CPU,      PMU_BRANCH,     .counters = GP },

    /* INST_RETIRED.ANY_P, then PREC_DIST, which is a fixed counter's now */
    { 0x01c0, NEHALEM,      PMU_INSN,       .counters = GP },
    { 0x01c0, SNB_TO_SKL,   PMU_INSN,       .counters = 0x02 },
    { 0x01c0, ICE_LAKE,     PMU_INSN,       .counters = GP_FIXED(0) },

    /* BR_INST_RETIRED */
    { 0x01c4, NHM_TO_SKL,   PMU_COND,       .counters = GP },
    { 0x01c4, ICL_ON,       PMU_COND_TAKEN, .counters = GP },
    { 0x02c4, NHM_ON,       PMU_CALL,       .counters = GP },
    { 0x04c4, NHM_TO_SKL,   PMU_BRANCH,     .counters = GP },
    { 0x08c4, SNB_ON,       PMU_RET,        .counters = GP },
    { 0x10c4, SNB_ON,       PMU_COND,       PMU_NOT_TAKEN, GP },
    { 0x11c4, ICL_ON,       PMU_COND,       .counters = GP },
    { 0x20c4, SNB_ON,       PMU_TAKEN,      .counters = GP },
    { 0x40c4, SNB_ON,       PMU_FAR,        .counters = GP },
    { 0x80c4, ICL_ON,       PMU_INDIRECT,   .counters = GP },

    /* The same on small cores, where umasks say what isn't counted */
    { 0x7ec4, SMALL_CORES,  PMU_COND,       .counters = GP },
    { 0xbfc4, SMALL_CORES,  PMU_FAR,        .counters = GP },
    { 0xc0c4, GRACEMONT,    PMU_TAKEN,      .counters = GP },
    { 0xebc4, SMALL_CORES,  PMU_INDIRECT,   .counters = GP },
    { 0xf7c4, SMALL_CORES,  PMU_RET,        .counters = GP },
    { 0xf9c4, SMALL_CORES,  PMU_CALL,       .counters = GP },
    { 0xfec4, SMALL_CORES,  PMU_COND_TAKEN, .counters = GP },

    /* BR_INST_RETIRED.ANY1, BR_INST_TYPE_RETIRED */
    { 0x0fc4, BONNELL,      PMU_BRANCH,     .counters = GP },
    { 0x0188, BONNELL,      PMU_COND,       .counters = GP },
    { 0x0888, BONNELL,      PMU_RET,        .counters = GP },
    { 0x4188, BONNELL,      PMU_COND_TAKEN, .counters = GP },

    /* MEM_INST_RETIRED; MEM_UOPS_RETIRED counts no instructions */
    { 0x010b, NEHALEM,      PMU_LOAD,       .counters = GP },
    { 0x020b, NEHALEM,      PMU_STORE,      .counters = GP },
    { 0x81d0, SKYLAKE | ICL_ON, PMU_LOAD,   .counters = 0x0f },
    { 0x82d0, SKYLAKE | ICL_ON, PMU_STORE,  .counters = 0x0f },
    { 0x83d0, SKYLAKE | ICL_ON, PMU_MEM,    .counters = 0x0f },

    /* MEM_TRANS_RETIRED.LOAD_LATENCY, PRECISE_STORE, STORE_SAMPLE */
    { 0x100b, NEHALEM,      PMU_LOAD,       PMU_ABOVE_THRESHOLD, 0x0f },
    { 0x01cd, SNB_TO_HSW,   PMU_LOAD,       PMU_ABOVE_THRESHOLD, 0x08 },
    { 0x01cd, BDW_TO_SKL,   PMU_LOAD,       PMU_ABOVE_THRESHOLD, 0x0f },
    { 0x01cd, ICE_LAKE,     PMU_LOAD,       PMU_ABOVE_THRESHOLD, GP },
    { 0x01cd, GOLDEN_COVE,  PMU_LOAD,       PMU_ABOVE_THRESHOLD, 0xfe },
    { 0x02cd, SANDY_BRIDGE, PMU_STORE,      .counters = 0x08 },
    { 0x02cd, GOLDEN_COVE,  PMU_STORE,      .counters = 0x01 },
};

/*
 * As in perf's mapfile.csv.  Stepping makes no difference to what is counted
 * here.  Hybrid CPUs are left out: theirs depend on the core.
 */
static unsigned find_cpu(unsigned family, unsigned model)
{
    if (family != 6) {
        return OTHER;
    }
    switch (model) {
    case 0x1c: case 0x26: case 0x27: case 0x35: case 0x36:
        return BONNELL;
    case 0x37: case 0x4a: case 0x4c: case 0x4d: case 0x5a:  /* Silvermont */
    case 0x57: case 0x85:                           /* Knights Landing, Mill */
    case 0x5c: case 0x5f: case 0x7a:                        /* Goldmont */
    case 0x86: case 0x96: case 0x9c:                        /* Tremont */
        return SILVERMONT;
    case 0xbe:
        return GRACEMONT;
    case 0xaf: case 0xb6:
        return CRESTMONT;
    case 0x1a: case 0x1e: case 0x1f: case 0x2e:
    case 0x25: case 0x2c: case 0x2f:                        /* Westmere */
        return NEHALEM;
    case 0x2a: case 0x2d: case 0x3a: case 0x3e:
        return SANDY_BRIDGE;
    case 0x3c: case 0x3f: case 0x45: case 0x46:
        return HASWELL;
    case 0x3d: case 0x47: case 0x4f: case 0x56:
        return BROADWELL;
    case 0x4e: case 0x55: case 0x5e: case 0x8e: case 0x9e:
    case 0xa5: case 0xa6:
        return SKYLAKE;
    case 0x6a: case 0x6c: case 0x7d: case 0x7e: case 0x8c: case 0x8d:
    case 0xa7:
        return ICE_LAKE;
    case 0x8f: case 0xad: case 0xae: case 0xcf:
        return GOLDEN_COVE;
    default:
        return OTHER;
    }
}

const PMUEventCode *pmu_find_event(unsigned family, unsigned model,
                                   uint16_t code)
{
    unsigned cpu = find_cpu(family, model);

    for (unsigned i = 0; i < ARRAY_SIZE(events); i++) {
        if (events[i].code == code && (events[i].cpus & cpu)) {
            return &events[i];
        }
    }
    return NULL;
}
