/*
 * IA32_PERF_CAPABILITIES of the emulated PMU, where the user has a say in it
 *
 * Run with -cpu Icelake-Server,pebs=on.  With other properties say so with
 * -append: see pmu-test.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

/* Much of what the tests share is for sequences, which aren't needed here. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

#include "pmu-test.h"

#define GP_FAULT    13

static uint64_t expected_capabilities(void)
{
    return 1ull << 12 | (config.full_width ? 1ull << 13 : 0) |
           (config.pebs ? 1ull << 6 | 1ull << 7 : 0) |
           (uint64_t)config.format << 8 |
           (config.baseline ? 1ull << 14 : 0);
}

/* SDM: the MSR is there if CPUID.1:ECX.PDCM[15] is. */
static void check_capabilities(void)
{
    uint64_t value;
    uint32_t r[4];

    check_begin();
    cpuid(1, 0, r);
    check_equal("PDCM", r[2] >> 15 & 1, config.pdcm);
    check_end("CPUID 1: PDCM");

    check_begin();
    if (config.pdcm) {
        check_equal("RDMSR", try_rdmsr(MSR_PERF_CAPABILITIES, &value), -1);
        check_equal("value", value, expected_capabilities());
    } else {
        check_equal("RDMSR", try_rdmsr(MSR_PERF_CAPABILITIES, &value),
                    GP_FAULT);
    }
    check_end("PERF_CAPABILITIES: what is there and no more");
}

static void check_full_width(void)
{
    check_begin();
    for (unsigned i = 0; i < config.gp; i++) {
        uint64_t value = 0;

        wrmsr(MSR_PMC0 + i, 0x1234);
        try_rdmsr(MSR_FULL0 + i, &value);
        check_equal("alias", value, config.full_width ? 0x1234 : 0);
        try_wrmsr(MSR_FULL0 + i, 0x5678);
        check_equal("counter", rdmsr(MSR_PMC0 + i),
                    config.full_width ? 0x5678 : 0x1234);
        wrmsr(MSR_PMC0 + i, 0);
    }
    check_end("counters have their full-width alias, or don't");
}

int main(void)
{
    pmu_test_init();
    if (!has_pmu()) {
        ml_printf("1..0 # SKIP no PMU: run with -cpu Icelake-Server,pebs=on\n");
        return 0;
    }
    pmu_clear();
    check_capabilities();
    check_full_width();
    return tap_end();
}
