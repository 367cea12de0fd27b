/*
 * The emulated architectural PMU on the bare machine: CPUID, MSRs, counting
 * and interrupts
 *
 * Run with -cpu Icelake-Server,pebs=on.  With other properties say so with
 * -append: pebs=off (of pmu=on,pebs=off), baseline=off, format=N, gp=N.  With
 * -append brief only a few sequences are run, with -append codes nothing but
 * what depends on the CPU model.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "pmu-test.h"
#include "pmu-sequences.h"

#define GP_FAULT    13

/* ---- CPUID ---- */

static void check_cpuid(void)
{
    uint32_t r[4];

    check_begin();
    cpuid(1, 0, r);
    check_equal("DS", r[3] >> 21 & 1, config.pebs);
    check_equal("DTES64", r[2] >> 2 & 1, config.pebs);
    check_equal("PDCM", r[2] >> 15 & 1, 1);
    check_end("CPUID 1: DS, DTES64, PDCM");

    check_begin();
    cpuid(1, 0, r);
    check_equal("family", r[0] >> 8 & 0xf, 6);
    if (config.pebs) {
        check_equal("model", (r[0] >> 4 & 0xf) | (r[0] >> 12 & 0xf0), 106);
    }
    check_end("CPUID 1: the model is that of the hardware");

    check_begin();
    cpuid(0, 0, r);
    check_equal("highest leaf is at least 0xA", r[0] >= 0xa, 1);
    cpuid(0xa, 0, r);
    check_equal("version", r[0] & 0xff, config.version);
    check_equal("GP counters", r[0] >> 8 & 0xff, config.gp);
    check_equal("width of GP counters", r[0] >> 16 & 0xff, 48);
    check_equal("architectural events", r[0] >> 24, 7);
    check_end("CPUID 0xA: EAX");

    check_begin();
    check_equal("EBX", r[1], 0x58);
    check_end("CPUID 0xA: events that are missing");

    check_begin();
    check_equal("ECX", r[2], config.version >= 5 ? 7 : 0);
    check_equal("fixed counters", r[3] & 0x1f, 3);
    check_equal("width of fixed counters", r[3] >> 5 & 0xff, 48);
    check_equal("AnyThread is gone", r[3] >> 15 & 1, 1);
    check_equal("reserved", r[3] & 0xffff6000, 0);
    check_end("CPUID 0xA: fixed counters");
}

/* ---- MSRs ---- */

static uint64_t capabilities(void)
{
    return 3ull << 12 |
           (config.pebs ? 1ull << 6 | 1ull << 7 : 0) |
           (uint64_t)config.format << 8 |
           (config.baseline ? 1ull << 14 : 0);
}

/* An MSR that keeps what is written */
typedef struct Stored {
    const char *name;
    uint32_t msr, count;
    uint64_t valid, reset;
} Stored;

static Stored stored[12];
static unsigned stored_count;

static void add_stored(const char *name, uint32_t msr, uint32_t count,
                       uint64_t valid, uint64_t reset)
{
    stored[stored_count++] = (Stored) { name, msr, count, valid, reset };
}

static void list_stored(void)
{
    bool b = config.baseline;

    add_stored("PERFEVTSEL", MSR_EVTSEL0, config.gp,
               0xffdfffffull | (b ? SEL_ADAPT : 0), 0);
    add_stored("PMC, full width", MSR_FULL0, config.gp, COUNTER_MASK, 0);
    add_stored("FIXED_CTR_CTRL", MSR_FIXED_CTRL, 1,
               0xbbb | (b ? 0x11100000000ull : 0), 0);
    add_stored("GLOBAL_CTRL", MSR_GLOBAL_CTRL, 1, config.counters,
               low_bits(config.gp));
    if (config.pebs) {
        add_stored("PEBS_ENABLE", MSR_PEBS_ENABLE, 1,
                   b ? config.counters
                     : low_bits(config.gp) | low_bits(config.gp) << 32, 0);
        add_stored("LD_LAT_THRESHOLD", MSR_LD_LAT, 1, 0xffff, 0);
    }
    if (b) {
        add_stored("PEBS_DATA_CFG", MSR_PEBS_DATA_CFG, 1, 0xff00000f, 0);
    }
}

static void check_zero(const char *name, uint32_t msr)
{
    uint64_t value;

    check_equal(name, try_rdmsr(msr, &value), -1);
    check_equal(name, value, 0);
}

static void check_reset_values(const char *when)
{
    check_begin();
    for (unsigned i = 0; i < stored_count; i++) {
        for (unsigned k = 0; k < stored[i].count; k++) {
            uint64_t value;

            check_equal(stored[i].name, try_rdmsr(stored[i].msr + k, &value),
                        -1);
            check_equal(stored[i].name, value, stored[i].reset);
        }
    }
    for (unsigned i = 0; i < config.gp; i++) {
        check_zero("PMC", MSR_PMC0 + i);
    }
    for (unsigned i = 0; i < 3; i++) {
        check_zero("FIXED_CTR", MSR_FIXED0 + i);
    }
    check_zero("GLOBAL_STATUS", MSR_STATUS);
    check_zero("GLOBAL_OVF_CTRL", MSR_OVF_CTRL);
    check_zero("DEBUGCTL", MSR_DEBUGCTL);
    if (config.version >= 4) {
        check_zero("GLOBAL_STATUS_SET", MSR_STATUS_SET);
        check_zero("GLOBAL_INUSE", MSR_INUSE);
    }
    if (config.pebs) {
        check_zero("DS_AREA", MSR_DS_AREA);
    }
    check_end("MSRs are as they should be %s", when);

    check_begin();
    check_equal("PERF_CAPABILITIES", rdmsr(MSR_PERF_CAPABILITIES),
                capabilities());
    check_equal("MISC_ENABLE: performance monitoring, no BTS, PEBS",
                rdmsr(MSR_MISC_ENABLE) & 0x1880,
                config.pebs ? 0x880 : 0x1880);
    check_end("PERF_CAPABILITIES and MISC_ENABLE %s", when);
}

static void check_reserved_bits(const Stored *s)
{
    check_begin();
    for (unsigned k = 0; k < s->count; k++) {
        uint32_t msr = s->msr + k;

        for (unsigned bit = 0; bit < 64; bit++) {
            uint64_t value = 1ull << bit;
            bool valid = s->valid & value;

            wrmsr(msr, 0);
            if (try_wrmsr(msr, value) != (valid ? -1 : GP_FAULT)) {
                check_fail("bit %d of MSR 0x%x should be %s", bit, msr,
                           valid ? "writable" : "reserved");
            } else if (rdmsr(msr) != (valid ? value : 0)) {
                check_fail("bit %d of MSR 0x%x: reads 0x%llx", bit, msr,
                           (unsigned long long)rdmsr(msr));
            }
        }
        check_equal("all valid bits", try_wrmsr(msr, s->valid), -1);
        check_equal("all valid bits", rdmsr(msr), s->valid);
        check_equal("all bits", try_wrmsr(msr, -1ull), GP_FAULT);
        check_equal("after a fault", rdmsr(msr), s->valid);
        wrmsr(msr, 0);
    }
    check_end("%s: every bit is writable or reserved", s->name);
}

static void check_read_only(const char *name, uint32_t msr)
{
    uint64_t old = rdmsr(msr);

    check_begin();
    check_equal("writing 0", try_wrmsr(msr, 0), GP_FAULT);
    check_equal("writing what it holds", try_wrmsr(msr, old), GP_FAULT);
    for (unsigned bit = 0; bit < 64; bit++) {
        check_equal("writing a bit", try_wrmsr(msr, 1ull << bit), GP_FAULT);
    }
    check_equal("its value", rdmsr(msr), old);
    check_end("%s is read-only", name);
}

static void check_counter_msrs(void)
{
    check_begin();
    for (unsigned i = 0; i < config.gp; i++) {
        for (unsigned bit = 0; bit < 64; bit++) {
            uint64_t value = 1ull << bit;

            wrmsr(MSR_FULL0 + i, 0x5555);
            check_equal("fault", try_wrmsr(MSR_PMC0 + i, value), -1);
            check_equal("32 bits, their sign extended", rdmsr(MSR_PMC0 + i),
                        (int64_t)(int32_t)value & COUNTER_MASK);
            check_equal("alias", rdmsr(MSR_FULL0 + i), rdmsr(MSR_PMC0 + i));
        }
        wrmsr(MSR_PMC0 + i, 0xffffffff80000001ull);
        check_equal("negative", rdmsr(MSR_FULL0 + i), 0xffff80000001ull);
        wrmsr(MSR_PMC0 + i, 0x123456787fffffffull);
        check_equal("positive", rdmsr(MSR_FULL0 + i), 0x7fffffff);
        wrmsr(MSR_FULL0 + i, 0x123456789abcull);
        check_equal("full width", rdmsr(MSR_PMC0 + i), 0x123456789abcull);
        wrmsr(MSR_FULL0 + i, 0);
    }
    check_end("PMC: a legacy write extends the sign of 32 bits");

    check_begin();
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned bit = 0; bit < 64; bit++) {
            uint64_t value = 1ull << bit;

            wrmsr(MSR_FIXED0 + i, 0);
            try_wrmsr(MSR_FIXED0 + i, value);
            check_equal("value", rdmsr(MSR_FIXED0 + i), value & COUNTER_MASK);
        }
        wrmsr(MSR_FIXED0 + i, 0);
    }
    check_end("FIXED_CTR has 48 bits");

    check_begin();
    for (unsigned i = config.gp; i < 8; i++) {
        static const uint32_t at[] = { MSR_PMC0, MSR_EVTSEL0, MSR_FULL0 };

        for (unsigned k = 0; k < 3; k++) {
            uint64_t value = 0;

            try_wrmsr(at[k] + i, 0x1234);
            try_rdmsr(at[k] + i, &value);
            check_equal("holds nothing", value, 0);
        }
    }
    check_end("counters that don't exist hold nothing");
}

/* The widest linear address that the CPU has: LA57 is a matter of paging. */
static unsigned linear_width(void)
{
    uint32_t r[4];

    cpuid(7, 0, r);
    return r[2] >> 16 & 1 ? 57 : 48;
}

static void check_ds_area(void)
{
    unsigned top = linear_width() - 1;
    uint64_t lowest = -1ull << top;

    check_begin();
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t value = 1ull << bit;

        wrmsr(MSR_DS_AREA, 0);
        check_equal("one bit", try_wrmsr(MSR_DS_AREA, value),
                    bit < top ? -1 : GP_FAULT);
        check_equal("its value", rdmsr(MSR_DS_AREA), bit < top ? value : 0);
    }
    check_equal("top half", try_wrmsr(MSR_DS_AREA, lowest), -1);
    check_equal("top half", rdmsr(MSR_DS_AREA), lowest);
    check_equal("the last address", try_wrmsr(MSR_DS_AREA, -1ull), -1);
    check_equal("hole", try_wrmsr(MSR_DS_AREA, lowest - 1), GP_FAULT);
    check_equal("after a fault", rdmsr(MSR_DS_AREA), -1ull);
    wrmsr(MSR_DS_AREA, 0);
    check_end("DS_AREA takes canonical addresses of %d bits only", (int)top + 1);
}

static void check_absent_pebs(void)
{
    static const uint32_t msrs[] = { MSR_PEBS_ENABLE, MSR_PEBS_DATA_CFG,
                                     MSR_LD_LAT, MSR_DS_AREA };

    check_begin();
    for (unsigned i = 0; i < 4; i++) {
        uint64_t value = 0;

        if (!(msrs[i] == MSR_PEBS_DATA_CFG ? config.baseline : config.pebs)) {
            try_wrmsr(msrs[i], 1);
            try_rdmsr(msrs[i], &value);
            check_equal("holds nothing", value, 0);
        }
    }
    if (config.version < 4) {
        uint64_t value = 0;

        try_wrmsr(MSR_STATUS_SET, 1);
        try_rdmsr(MSR_STATUS_SET, &value);
        check_equal("holds nothing", value, 0);
        check_equal("GLOBAL_STATUS_SET does nothing", rdmsr(MSR_STATUS), 0);
        value = 0;
        try_rdmsr(MSR_INUSE, &value);
        check_equal("GLOBAL_INUSE", value, 0);
    }
    check_end("MSRs of features that are absent hold nothing");
}

static void check_misc_enable(void)
{
    uint64_t old = rdmsr(MSR_MISC_ENABLE);

    check_begin();
    check_equal("bit 7 is ignored", try_wrmsr(MSR_MISC_ENABLE, old ^ 0x80),
                -1);
    check_equal("value", rdmsr(MSR_MISC_ENABLE), old);
    check_equal("bit 11 is fixed", try_wrmsr(MSR_MISC_ENABLE, old ^ 0x800),
                GP_FAULT);
    check_equal("bit 12 is fixed", try_wrmsr(MSR_MISC_ENABLE, old ^ 0x1000),
                GP_FAULT);
    check_equal("value", rdmsr(MSR_MISC_ENABLE), old);
    check_equal("fast strings", try_wrmsr(MSR_MISC_ENABLE, old ^ 1), -1);
    check_equal("value", rdmsr(MSR_MISC_ENABLE), old ^ 1);
    check_equal("back", try_wrmsr(MSR_MISC_ENABLE, old), -1);
    check_end("MISC_ENABLE: bits 7, 11 and 12");
}

/* LBR, BTF and FREEZE_LBRS_ON_PMI have nothing behind them. */
#define DEBUGCTL_DROPPED    0x803ull
#define DEBUGCTL_KEPT       (DEBUGCTL_FREEZE_PERFMON | DEBUGCTL_FREEZE_IN_SMM)

static void check_debugctl(void)
{
    check_begin();
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t value = 1ull << bit;
        bool taken = value & (DEBUGCTL_DROPPED | DEBUGCTL_KEPT);

        wrmsr(MSR_DEBUGCTL, 0);
        check_equal("fault", try_wrmsr(MSR_DEBUGCTL, value),
                    taken ? -1 : GP_FAULT);
        check_equal("value", rdmsr(MSR_DEBUGCTL), value & DEBUGCTL_KEPT);
    }
    check_equal("what Linux writes with branch records",
                try_wrmsr(MSR_DEBUGCTL, 0x1801), -1);
    check_equal("value", rdmsr(MSR_DEBUGCTL), DEBUGCTL_FREEZE_PERFMON);
    check_equal("all bits", try_wrmsr(MSR_DEBUGCTL, -1ull), GP_FAULT);
    check_equal("after a fault", rdmsr(MSR_DEBUGCTL), DEBUGCTL_FREEZE_PERFMON);
    wrmsr(MSR_DEBUGCTL, 0);
    check_end("DEBUGCTL: bits are kept, dropped or reserved");
}

/* Overflow all counters at once, without interrupts. */
static void overflow_all(void)
{
    for (unsigned i = 0; i < config.gp; i++) {
        set_counter(i, &events[EV_INSN], SEL_BOTH, -1ull);
    }
    wrmsr(MSR_FIXED_CTRL, 0x333);
    for (unsigned i = 0; i < 3; i++) {
        wrmsr(MSR_FIXED0 + i, COUNTER_MASK);
    }
    wrmsr(MSR_GLOBAL_CTRL, config.counters);
    wrmsr(MSR_GLOBAL_CTRL, 0);
}

static void check_status(void)
{
    uint64_t valid = config.counters | 3ull << 62 |
                     (config.version >= 4 ? 0xfull << 58 : 0);

    check_begin();
    overflow_all();
    check_equal("after overflows", rdmsr(MSR_STATUS), config.counters);
    wrmsr(MSR_OVF_CTRL, 0);
    check_equal("clearing nothing", rdmsr(MSR_STATUS), config.counters);
    wrmsr(MSR_OVF_CTRL, 2);
    check_equal("clearing PMC1", rdmsr(MSR_STATUS), config.counters & ~2ull);
    wrmsr(MSR_OVF_CTRL, 5ull << 32);
    check_equal("clearing fixed counters 0 and 2", rdmsr(MSR_STATUS),
                config.counters & ~(2ull | 5ull << 32));
    check_equal("reads 0", rdmsr(MSR_OVF_CTRL), 0);
    wrmsr(MSR_OVF_CTRL, config.counters);
    check_equal("clearing all", rdmsr(MSR_STATUS), 0);
    pmu_clear();
    check_end("GLOBAL_OVF_CTRL clears what it is told");

    check_begin();
    for (unsigned bit = 0; bit < 64; bit++) {
        check_equal("fault", try_wrmsr(MSR_OVF_CTRL, 1ull << bit),
                    valid >> bit & 1 ? -1 : GP_FAULT);
    }
    overflow_all();
    check_equal("fault", try_wrmsr(MSR_OVF_CTRL, -1ull), GP_FAULT);
    check_equal("nothing is cleared by a write that faults",
                rdmsr(MSR_STATUS), config.counters);
    pmu_clear();
    check_end("GLOBAL_OVF_CTRL: reserved bits");

    if (config.version < 4) {
        return;
    }
    check_begin();
    for (unsigned bit = 0; bit < 64; bit++) {
        bool ok = valid >> bit & 1;

        /* SDM tables differ about CondChgd; ASCI is about SGX */
        if (bit == 63 || bit == 60) {
            continue;
        }
        check_equal("fault", try_wrmsr(MSR_STATUS_SET, 1ull << bit),
                    ok ? -1 : GP_FAULT);
        check_equal("status", rdmsr(MSR_STATUS), ok ? 1ull << bit : 0);
        check_equal("reads 0", rdmsr(MSR_STATUS_SET), 0);
        wrmsr(MSR_OVF_CTRL, ok ? 1ull << bit : 0);
        check_equal("status", rdmsr(MSR_STATUS), 0);
    }
    check_end("GLOBAL_STATUS_SET");

    check_begin();
    check_equal("nothing in use", rdmsr(MSR_INUSE), 0);
    wrmsr(MSR_EVTSEL0 + 1, 0xc0);
    check_equal("an event selected", rdmsr(MSR_INUSE), 2);
    wrmsr(MSR_EVTSEL0 + 1, 0xc0 | SEL_INT);
    check_equal("and its PMI", rdmsr(MSR_INUSE), 1ull << 63 | 2);
    wrmsr(MSR_EVTSEL0 + 1, 0);
    wrmsr(MSR_FIXED_CTRL, 0x120);
    check_equal("fixed counters", rdmsr(MSR_INUSE), 6ull << 32);
    wrmsr(MSR_FIXED_CTRL, 0x008);
    check_equal("PMI of a fixed counter", rdmsr(MSR_INUSE), 1ull << 63);
    wrmsr(MSR_FIXED_CTRL, 0);
    check_end("GLOBAL_INUSE");
    check_read_only("GLOBAL_INUSE", MSR_INUSE);
}

/* ---- RDPMC ---- */

SEQUENCE(user_rdpmc,
    N("xor %ecx, %ecx")
    N("mov $-1, %rax")
    N("mov $-1, %rdx")
    "   rdpmc\n"
    "user_rdpmc_behind:\n"
    N("mov %rax, %rbx")
    S("mov %rax, (%rdi)")
    S("mov %rdx, 8(%rdi)"));
ASM_LABEL(user_rdpmc_behind);
static const Sequence user_rdpmc_seq = SEQ(user_rdpmc);

static unsigned rdpmc_faults;

static void rdpmc_fault(Frame *f)
{
    rdpmc_faults++;
    f->rip = (uintptr_t)user_rdpmc_behind;
}

static void check_rdpmc(void)
{
    uint64_t value;

    check_begin();
    for (unsigned i = 0; i < config.gp; i++) {
        wrmsr(MSR_FULL0 + i, 0x8765432100ffull + i);
        check_equal("fault", try_rdpmc(i, &value), -1);
        check_equal("GP counter", value, 0x8765432100ffull + i);
    }
    for (unsigned i = 0; i < 3; i++) {
        wrmsr(MSR_FIXED0 + i, 0xfedcba980000ull + i);
        check_equal("fault", try_rdpmc(1u << 30 | i, &value), -1);
        check_equal("fixed counter", value, 0xfedcba980000ull + i);
    }
    check_equal("fault", try_rdpmc(0xabcd00000001ull, &value), -1);
    check_equal("upper half of RCX is ignored", value, 0x876543210100ull);
    check_end("RDPMC reads every counter");

    check_begin();
    check_equal("GP counter", try_rdpmc(config.gp, &value), GP_FAULT);
    check_equal("RAX, RDX unchanged", value, -1ull + (-1ull << 32));
    check_equal("fixed counter", try_rdpmc(1u << 30 | 3, &value), GP_FAULT);
    for (unsigned bit = 4; bit < 32; bit++) {
        if (bit != 30) {
            check_equal("bit", try_rdpmc(1u << bit, &value), GP_FAULT);
            check_equal("bit", try_rdpmc(1u << 30 | 1u << bit, &value),
                        GP_FAULT);
        }
    }
    check_equal("all", try_rdpmc(0xffffffff, &value), GP_FAULT);
    check_end("RDPMC: a wrong index faults");

    check_begin();
    handlers[GP_FAULT] = rdpmc_fault;
    wrmsr(MSR_FULL0, 0x123456789abcull);
    write_cr(4, read_cr(4) & ~0x100ull);
    check_equal("CPL 0", try_rdpmc(0, &value), -1);
    rdpmc_faults = 0;
    seq_run(&user_rdpmc_seq, true, 0);
    check_equal("CPL 3, CR4.PCE clear: faults", rdpmc_faults, 1);
    write_cr(4, read_cr(4) | 0x100);
    seq_run(&user_rdpmc_seq, true, 0);
    check_equal("CPL 3, CR4.PCE set: faults", rdpmc_faults, 1);
    check_equal("EAX", *(uint64_t *)(test_data + 2048), 0x56789abc);
    check_equal("EDX", *(uint64_t *)(test_data + 2056), 0x1234);
    handlers[GP_FAULT] = NULL;
    pmu_clear();
    check_end("RDPMC: CR4.PCE allows it at CPL 3");
}

/* ---- interrupts ---- */

#define PMI_VECTOR  0x91

static unsigned pmi_count;
static uint64_t pmi_rip, pmi_cs, pmi_status, pmi_ctrl;
static uint32_t pmi_lvtpc;

static void pmi_handler(Frame *f)
{
    if (pmi_count++ == 0) {
        pmi_rip = f->rip;
        pmi_cs = f->cs;
        pmi_status = rdmsr(MSR_STATUS);
        pmi_ctrl = rdmsr(MSR_GLOBAL_CTRL);
        pmi_lvtpc = apic_read(APIC_LVTPC);
    }
    if (f->vector == PMI_VECTOR) {
        apic_write(APIC_EOI, 0);
    }
}

static void expect_pmi(uint64_t rip, bool user, uint64_t status)
{
    check_equal("interrupts", pmi_count, 1);
    check_equal("return address", pmi_rip, rip);
    check_equal("CPL", pmi_cs & 3, user ? 3 : 0);
    check_equal("GLOBAL_STATUS", pmi_status, status);
    check_equal("LVTPC is masked", pmi_lvtpc, APIC_MASKED | APIC_NMI);
}

/* ---- counting ---- */

/* Where a PMI for the overflow at @s comes */
static const Step *pmi_step(const Step *s)
{
    return s->kinds & K_SHADOW ? s + 1 : s;
}

static void check_overflow(const Scenario *sc, bool user, const Event *e,
                           uint64_t privs, unsigned n, bool company)
{
    const Step *s = nth_step(e, privs, n);
    uint64_t mask = 1;
    bool good = tap_good;

    set_counter(0, e, privs | SEL_INT, -(uint64_t)n);
    if (company) {
        /* Other privilege levels than this one's: budgets of their own */
        set_counter(1, &events[EV_INSN], SEL_OS, 0);
        set_counter(2, &events[EV_LOADS], SEL_USR, 0);
        set_counter(3, &events[EV_TAKEN], SEL_BOTH, 0);
        mask |= 0xe;
    }
    pmi_count = 0;
    apic_write(APIC_LVTPC, APIC_NMI);
    seq_run(&sc->seq, user, mask);
    s = pmi_step(s);
    expect_pmi(s->next, s + 1 < steps + step_count && s[1].user, 1);
    if (user && privs == SEL_USR) {
        /* or the handler is counted, too */
        check_equal("counter", rdmsr(MSR_PMC0),
                    expected_count(e, privs) - n);
    }
    if (good && !tap_good) {
        ml_printf("# (overflow %d, at 0x%llx, %s%s)\n", n,
                  (unsigned long long)s->ip, priv_name(privs),
                  company ? ", in company" : "");
    }
    wrmsr(MSR_OVF_CTRL, 1);
}

static void check_event(const Scenario *sc, bool user, const Event *e)
{
    static const uint64_t filters[] = { SEL_OS, SEL_USR, SEL_BOTH };
    /* the first four are all the same */
    bool brief = sc->slow || (e > events && e->any == 0);

    check_begin();
    for (unsigned f = 0; f < 3; f++) {
        unsigned counter = (e - events + f) % config.gp;
        unsigned n = expected_count(e, filters[f]);
        bool good = tap_good;

        set_counter(counter, e, filters[f], 0x100000000000);
        seq_run(&sc->seq, user, 1ull << counter);
        check_equal("count", rdmsr(MSR_PMC0 + counter) - 0x100000000000, n);
        wrmsr(MSR_EVTSEL0 + counter, 0);
        /* Single-stepping: CPL 0 has the handler, too */
        if (filters[f] == SEL_USR && user && !sc->list) {
            set_counter(counter, e, SEL_USR, 0);
            seq_run_stepping(&sc->seq, 1ull << counter);
            check_equal("count while single-stepping",
                        rdmsr(MSR_PMC0 + counter), n);
            wrmsr(MSR_EVTSEL0 + counter, 0);
        }
        if (good && !tap_good) {
            ml_printf("# (%s)\n", priv_name(filters[f]));
        }
        if (sc->no_pmi) {
            continue;
        }
        for (unsigned k = 1; k <= n; k += brief && k < n ? n - 1 : 1) {
            check_overflow(sc, user, e, filters[f], k, false);
            check_overflow(sc, user, e, filters[f], k, true);
        }
        pmu_clear();
    }
    check_end("%s at CPL %d: %s, counts and overflows", sc->name,
              user ? 3 : 0, e->name);
}

static void check_all_events(const Scenario *sc, bool user)
{
    uint64_t own = user ? SEL_USR : SEL_OS;

    check_begin();
    for (unsigned first = 0; first < EVENTS; first += config.gp) {
        for (unsigned i = 0; i < config.gp && first + i < EVENTS; i++) {
            set_counter(i, &events[first + i], i & 1 ? own : SEL_BOTH, 0);
        }
        wrmsr(MSR_FIXED_CTRL, 0x321);
        for (unsigned i = 0; i < 3; i++) {
            wrmsr(MSR_FIXED0 + i, 0);
        }
        seq_run(&sc->seq, user, config.counters);
        for (unsigned i = 0; i < config.gp && first + i < EVENTS; i++) {
            const Event *e = &events[first + i];

            check_equal(e->name, rdmsr(MSR_PMC0 + i),
                        expected_count(e, i & 1 ? own : SEL_BOTH));
        }
        check_equal("fixed counter 0, OS", rdmsr(MSR_FIXED0),
                    expected_count(&events[EV_INSN], SEL_OS));
        check_equal("fixed counter 1, USR", rdmsr(MSR_FIXED0 + 1),
                    expected_count(&events[EV_INSN], SEL_USR));
        check_equal("fixed counter 2", rdmsr(MSR_FIXED0 + 2),
                    expected_count(&events[EV_INSN], SEL_BOTH));
    }
    pmu_clear();
    check_end("%s at CPL %d: all counters at once", sc->name, user ? 3 : 0);
}

static void check_scenario(const Scenario *sc, bool user)
{
    scenario_begin(sc, user);
    for (unsigned i = 0; i < EVENTS; i++) {
        check_event(sc, user, &events[i]);
    }
    check_all_events(sc, user);
    scenario_end();
}

/* What of an event to count, and how often that is */
static void expect_selected(const Scenario *sc, const char *what,
                            uint64_t evtsel, uint64_t expected)
{
    wrmsr(MSR_EVTSEL0, evtsel);
    wrmsr(MSR_FULL0, 0);
    seq_run(&sc->seq, false, 1);
    check_equal(what, rdmsr(MSR_PMC0), expected);
    wrmsr(MSR_EVTSEL0, 0);
}

static void check_selection(void)
{
    const uint64_t on = SEL_OS | SEL_ENABLE, loads_on = 0x81d0 | on;
    const Scenario *sc = find_scenario("memory");
    unsigned all, loads, not_taken;

    scenario_begin(sc, false);
    all = expected_count(&events[EV_INSN], SEL_OS);
    loads = expected_count(&events[EV_LOADS], SEL_OS);

    check_begin();
    expect_selected(sc, "at no level", 0xc0 | SEL_ENABLE, 0);
    expect_selected(sc, "not enabled", 0xc0 | SEL_OS, 0);
    expect_selected(sc, "at CPL 3 only", 0xc0 | SEL_USR | SEL_ENABLE, 0);
    wrmsr(MSR_EVTSEL0, 0xc0 | on);
    wrmsr(MSR_FIXED_CTRL, 0x111);
    seq_run(&sc->seq, false, 1ull << 1 | FIXED_BIT(1));
    check_equal("not in GLOBAL_CTRL", rdmsr(MSR_PMC0), 0);
    check_equal("not in GLOBAL_CTRL", rdmsr(MSR_FIXED0), 0);
    check_equal("in GLOBAL_CTRL", rdmsr(MSR_FIXED0 + 1), all);
    pmu_clear();
    check_end("counters that are switched off don't count");

    check_begin();
    expect_selected(sc, "cmask=1", 0xc0 | on | SEL_CMASK(1), all);
    expect_selected(sc, "cmask=2", 0xc0 | on | SEL_CMASK(2), 0);
    expect_selected(sc, "cmask=1, inv", 0xc0 | on | SEL_CMASK(1) | SEL_INV, 0);
    expect_selected(sc, "cmask=16, inv", 0xc0 | on | SEL_CMASK(16) | SEL_INV,
                    all);
    expect_selected(sc, "inv alone", 0xc0 | on | SEL_INV, all);
    expect_selected(sc, "edge", 0xc0 | on | SEL_EDGE, all);
    expect_selected(sc, "pc", 0xc0 | on | SEL_PC, all);
    check_end("CMASK, INV and EDGE of instructions");

    check_begin();
    expect_selected(sc, "cmask=1", loads_on | SEL_CMASK(1), loads);
    expect_selected(sc, "cmask=2", loads_on | SEL_CMASK(2), 0);
    expect_selected(sc, "cmask=1, inv", loads_on | SEL_CMASK(1) | SEL_INV,
                    all - loads);
    expect_selected(sc, "cmask=2, inv", loads_on | SEL_CMASK(2) | SEL_INV,
                    all);
    expect_selected(sc, "cmask=255, inv", loads_on | SEL_CMASK(255) | SEL_INV,
                    all);
    check_end("CMASK and INV of loads");

    check_begin();
    expect_selected(sc, "cache misses", 0x412e | on, 0);
    expect_selected(sc, "branch misses", 0x00c5 | on, 0);
    expect_selected(sc, "unknown umask", 0x05c4 | on, 0);
    expect_selected(sc, "event 0", on, 0);
    expect_selected(sc, "cmask=1, inv", 0x412e | on | SEL_CMASK(1) | SEL_INV,
                    all);
    check_end("events without a meaning count nothing");

    if (config.pebs) {
        check_begin();
        for (unsigned i = 0; i < 6; i++) {
            static const uint16_t thresholds[] = { 0, 3, 63, 64, 65, 0xffff };

            wrmsr(MSR_LD_LAT, thresholds[i]);
            expect_selected(sc, "loads of a greater latency",
                            0x01cd | on, thresholds[i] < 64 ? loads : 0);
        }
        wrmsr(MSR_LD_LAT, 0);
        check_end("load latency and its threshold");
    }
    scenario_end();

    sc = find_scenario("branches");
    scenario_begin(sc, false);
    all = expected_count(&events[EV_INSN], SEL_OS);
    not_taken = expected_count(&events[7], SEL_OS);
    check_begin();
    expect_selected(sc, "cmask=1", 0x10c4 | on | SEL_CMASK(1), not_taken);
    expect_selected(sc, "cmask=1, inv", 0x10c4 | on | SEL_CMASK(1) | SEL_INV,
                    all - not_taken);
    check_end("CMASK and INV of conditional branches not taken");
    scenario_end();
}

/* ---- codes by CPU model ---- */

/* What branches each code counts; nothing if no kind is named. */
typedef struct ModelCode {
    unsigned model;
    Event event;
} ModelCode;

#define SKYLAKE     0x55
#define ICE_LAKE    0x6a
#define TREMONT     0x86

static const ModelCode model_codes[] = {
    { SKYLAKE,  { "conditional",        0x01c4, K_COND } },
    { SKYLAKE,  { "all",                0x04c4, K_BRANCH } },
    { SKYLAKE,  { "taken",              0x20c4, K_COND | K_NEAR, true } },
    { SKYLAKE,  { "nothing",            0x11c4, K_NOTHING } },
    { SKYLAKE,  { "nothing",            0x80c4, K_NOTHING } },
    { SKYLAKE,  { "nothing",            0x7ec4, K_NOTHING } },
    { ICE_LAKE, { "conditional taken",  0x01c4, K_COND, true } },
    { ICE_LAKE, { "conditional",        0x11c4, K_COND } },
    { ICE_LAKE, { "indirect",           0x80c4, K_INDIRECT } },
    { ICE_LAKE, { "nothing",            0x04c4, K_NOTHING } },
    { ICE_LAKE, { "nothing",            0x7ec4, K_NOTHING } },
    { TREMONT,  { "all",                0x00c4, K_BRANCH } },
    { TREMONT,  { "conditional",        0x7ec4, K_COND } },
    { TREMONT,  { "conditional taken",  0xfec4, K_COND, true } },
    { TREMONT,  { "call",               0xf9c4, K_CALL } },
    { TREMONT,  { "return",             0xf7c4, K_RET } },
    { TREMONT,  { "far",                0xbfc4, K_FAR } },
    { TREMONT,  { "indirect",           0xebc4, K_INDIRECT } },
    { TREMONT,  { "nothing",            0x01c4, K_NOTHING } },
    { TREMONT,  { "nothing",            0x11c4, K_NOTHING } },
    { TREMONT,  { "micro-operations",   0x81d0, K_NOTHING } },
};

/* Linux's perf chooses codes by the CPUID model; so does the PMU. */
static void check_model_codes(void)
{
    const Scenario *sc = find_scenario("branches");

    scenario_begin(sc, false);
    for (unsigned i = 0;
         i < sizeof(model_codes) / sizeof(model_codes[0]); i++) {
        const Event *e = &model_codes[i].event;

        if (model_codes[i].model == cpu_model()) {
            check_begin();
            expect_selected(sc, e->name, e->code | SEL_OS | SEL_ENABLE,
                            expected_count(e, SEL_OS));
            check_end("model 0x%x: event 0x%x counts branches: %s",
                      cpu_model(), e->code, e->name);
        }
    }
    scenario_end();
}

/* ---- counters read and written by what they count ---- */

SEQUENCE(reading,
    N("nop")
    L("mov (%rdi), %rbx")
    N("xor %ecx, %ecx")
    "read_1:\n"
    K(K_NOREG, "rdpmc")
    S("mov %eax, (%rdi)")
    N("cmp %ebx, %ebx")
    LS("lock add %rbx, 64(%rdi)")
    N("mov $1, %ecx")
    "read_2:\n"
    K(K_NOREG, "rdpmc")
    S("mov %eax, 8(%rdi)")
    N("cmp %ebx, %ebx")
    COND("jz 1f")
    "   ud2\n"
    "1:\n"
    N("mov $2, %ecx")
    "read_3:\n"
    K(K_NOREG, "rdpmc")
    S("mov %eax, 16(%rdi)")
    N("mov $0x40000000, %ecx")
    "read_4:\n"
    K(K_NOREG, "rdpmc")
    S("mov %eax, 24(%rdi)")
    N("nop"));

SEQUENCE(reading_msrs,
    N("nop")
    L("mov (%rdi), %rbx")
    N("mov $0xc1, %ecx")
    "read_5:\n"
    K(K_NOREG, "rdmsr")
    S("mov %eax, (%rdi)")
    L("mov (%rdi), %rbx")
    N("mov $0x4c2, %ecx")
    "read_6:\n"
    K(K_NOREG, "rdmsr")
    S("mov %eax, 8(%rdi)")
    N("cmp %ebx, %ebx")
    COND("jz 1f")
    "   ud2\n"
    "1:\n"
    N("mov $0xc3, %ecx")
    "read_7:\n"
    K(K_NOREG, "rdmsr")
    S("mov %eax, 16(%rdi)")
    N("mov $0x309, %ecx")
    "read_8:\n"
    K(K_NOREG, "rdmsr")
    S("mov %eax, 24(%rdi)")
    N("nop"));

ASM_LABEL(read_1);
ASM_LABEL(read_2);
ASM_LABEL(read_3);
ASM_LABEL(read_4);
ASM_LABEL(read_5);
ASM_LABEL(read_6);
ASM_LABEL(read_7);
ASM_LABEL(read_8);

static unsigned count_before(const uint8_t *ip, const Event *e, uint64_t privs)
{
    unsigned n = 0;

    for (unsigned i = 0; i < step_count && steps[i].ip != (uintptr_t)ip; i++) {
        n += step_counts(&steps[i], e, privs);
    }
    return n;
}

static void expect_reads(const Sequence *s, bool user, uint8_t *const at[4])
{
    static const unsigned event[] = { EV_INSN, EV_LOADS, EV_TAKEN, EV_INSN };
    uint64_t privs = user ? SEL_USR : SEL_OS;

    find_steps(s, user, NULL);
    for (unsigned i = 0; i < 3; i++) {
        set_counter(i, &events[event[i]], privs, 0);
    }
    wrmsr(MSR_FIXED_CTRL, 3);
    wrmsr(MSR_FIXED0, 0);
    write_cr(4, read_cr(4) | 0x100);
    seq_run(s, user, 7 | FIXED_BIT(0));
    for (unsigned i = 0; i < 4; i++) {
        check_equal("read", *(uint32_t *)(test_data + 2048 + i * 8),
                    count_before(at[i], &events[event[i]],
                                 i == 3 ? SEL_BOTH : privs));
    }
    pmu_clear();
}

static const Sequence reading_seq = SEQ(reading);
static const Sequence reading_msrs_seq = SEQ(reading_msrs);

static void check_reading(void)
{
    static uint8_t *const at[] = { read_1, read_2, read_3, read_4 };
    static uint8_t *const msrs[] = { read_5, read_6, read_7, read_8 };

    check_begin();
    expect_reads(&reading_seq, false, at);
    check_end("RDPMC in the middle of a block, CPL 0");
    check_begin();
    expect_reads(&reading_seq, true, at);
    check_end("RDPMC in the middle of a block, CPL 3");
    check_begin();
    expect_reads(&reading_msrs_seq, false, msrs);
    check_end("RDMSR in the middle of a block");
}

/* WRMSR counts under the configuration that it leaves. */
SEQUENCE(writing,
    N("nop")
    N("mov $0x4c1, %ecx")
    N("mov $-3, %eax")
    N("mov $0xffff, %edx")
    N("wrmsr")
    N("nop")
    N("nop")
    "written_3:\n"
    N("nop"));
ASM_LABEL(written_3);

SEQUENCE(reselecting,
    L("mov (%rdi), %rbx")
    N("mov $0x186, %ecx")
    N("mov $0x4281d0, %eax")    /* loads, OS */
    N("xor %edx, %edx")
    N("wrmsr")
    L("mov (%rdi), %rbx")
    LS("add %rbx, (%rdi)")
    N("nop"));

static const Sequence writing_seq = SEQ(writing);
static const Sequence reselecting_seq = SEQ(reselecting);

static void check_writing(void)
{
    check_begin();
    set_counter(0, &events[EV_INSN], SEL_OS | SEL_INT, 0);
    pmi_count = 0;
    apic_write(APIC_LVTPC, APIC_NMI);
    seq_run(&writing_seq, false, 1);
    expect_pmi((uintptr_t)written_3, false, 1);
    pmu_clear();
    check_end("a counter written in the middle of a block");

    check_begin();
    set_counter(0, &events[EV_INSN], SEL_OS, 0);
    seq_run(&reselecting_seq, false, 1);
    /* WRMSR, 3 and 4 instructions; 2 loads */
    check_equal("count", rdmsr(MSR_PMC0), 1 + 3 + 4 + 2);
    pmu_clear();
    check_end("an event changed in the middle of a block");
}

/* ---- more events than a budget holds ---- */

#define ROUNDS 100000

SEQUENCE(rounds,
    N("mov $" STRING(ROUNDS) ", %ecx")
    "rounds_load:\n"
    L("mov (%rdi), %rax")
    "rounds_dec:\n"
    N("dec %ecx")
    COND("jnz rounds_load"));
ASM_LABEL(rounds_load);
ASM_LABEL(rounds_dec);
static const Sequence rounds_seq = SEQ(rounds);

static void expect_rounds_overflow(bool user, unsigned event, uint64_t privs,
                                   uint64_t n, const uint8_t *rip)
{
    set_counter(0, &events[event], privs | SEL_INT, -n);
    pmi_count = 0;
    apic_write(APIC_LVTPC, APIC_NMI);
    seq_run(&rounds_seq, user, 1);
    expect_pmi((uintptr_t)rip, user, 1);
    wrmsr(MSR_OVF_CTRL, 1);
}

static void check_rounds(bool user)
{
    uint64_t privs = user ? SEL_USR : SEL_OS;
    /* WRMSR before; INT and three more behind */
    unsigned before = user ? 0 : 1, behind = user ? 1 : 4;
    static const struct {
        unsigned event;
        uint64_t count;
    } expected[] = {
        { EV_LOADS, ROUNDS }, { EV_STORES, 0 }, { EV_MEM, ROUNDS },
        { EV_BRANCHES, ROUNDS + 1 }, { 5, ROUNDS }, { 6, ROUNDS - 1 },
        { 7, 1 }, { EV_TAKEN, ROUNDS - 1 },
    };

    check_begin();
    for (unsigned i = 0; i < 8 && i < config.gp; i++) {
        set_counter(i, &events[expected[i].event], privs, 0);
    }
    wrmsr(MSR_FIXED_CTRL, user ? 2 : 1);
    wrmsr(MSR_FIXED0, 0);
    seq_run(&rounds_seq, user, config.counters);
    for (unsigned i = 0; i < 8 && i < config.gp; i++) {
        const Event *e = &events[expected[i].event];

        check_equal(e->name, rdmsr(MSR_PMC0 + i),
                    is_counted(e) ? expected[i].count : 0);
    }
    check_equal("instructions", rdmsr(MSR_FIXED0),
                before + 4 + 3 * ROUNDS + behind);
    pmu_clear();

    for (uint64_t n = 32766; n < 99000; n += 32768 / 2) {
        expect_rounds_overflow(user, EV_LOADS, privs, n, rounds_dec);
        expect_rounds_overflow(user, EV_LOADS, SEL_BOTH,
                               n + (user ? 1 : 0), rounds_dec);
        expect_rounds_overflow(user, EV_TAKEN, privs, n, rounds_load);
        expect_rounds_overflow(user, 7, privs, 1, rounds_end);
        expect_rounds_overflow(user, EV_INSN, privs, before + 4 + 3 * n + 1,
                               rounds_dec);
    }
    pmu_clear();
    check_end("a loop of %d rounds at CPL %d", ROUNDS, user ? 3 : 0);
}

/* ---- interrupts at any moment ---- */

#define TICKS           20
#define TICK_EVERY      50000       /* of 1 ns */

/* It goes on until there were enough, and tells how many rounds that took. */
#define TICKED_BODY(name, before, behind)               \
    N("xor %ecx, %ecx")                                 \
    before                                              \
    name "_loop:\n"                                     \
    LS("addl $3, (%rdi)")                               \
    N("inc %rcx")                                       \
    L("cmpl $" STRING(TICKS) ", ticks(%rip)")           \
    COND("jb " name "_loop")                            \
    behind                                              \
    S("mov %rcx, 8(%rdi)")

SEQUENCE(user_ticked, TICKED_BODY("user_ticked", "", ""));
SEQUENCE(kernel_ticked, TICKED_BODY("kernel_ticked", N("sti"), N("cli")));

/* How often each happens: in a round, beside the rounds, and in a handler */
static const struct {
    unsigned event, round;
    int rest;                   /* with the INT at the end */
    unsigned tick;
} ticked[] = {
    { EV_INSN, 4, 6, 7 },
    { EV_LOADS, 2, 0, 3 },
    { EV_STORES, 1, 1, 3 },
    { EV_MEM, 2, 1, 5 },
    { EV_BRANCHES, 1, 1, 2 },
    { EV_TAKEN, 1, -1, 1 },
    { EV_FAR, 0, 1, 1 },
    { 5, 1, 0, 0 },             /* conditional */
    { 6, 1, -1, 0 },            /* conditional taken */
    { 7, 0, 1, 0 },             /* conditional not taken */
};
#define TICKED (sizeof(ticked) / sizeof(ticked[0]))

static void run_ticked(const Sequence *s, bool user, uint64_t mask)
{
    seq_trace = 0;
    seq_mask = mask;
    seq_entry = (uintptr_t)(user ? s->start : s->enter);
    ticks = 0;
    timer_start(tick, TICK_EVERY);
    seq_go(s, user, user ? FLAG_IF : 0);
}

/* What the sequence retires at its own level */
static uint64_t ticked_own(unsigned i, bool user)
{
    uint64_t rounds = *(uint64_t *)(test_data + 2048 + 8);
    /* WRMSR, STI, CLI; three at its end */
    unsigned kernel = ticked[i].event == EV_INSN && !user ? 6 : 0;

    if (!is_counted(&events[ticked[i].event])) {
        return 0;
    }
    return rounds * ticked[i].round + ticked[i].rest + kernel;
}

/* What is retired at CPL 0 beside it, if that is CPL 3 */
static uint64_t ticked_entry(unsigned i)
{
    switch (ticked[i].event) {
    case EV_INSN:
        return 5;                       /* WRMSR, IRET; three at the end */
    case EV_LOADS:
    case EV_MEM:
    case EV_BRANCHES:
    case EV_FAR:
        return 1;                       /* IRET */
    default:
        return 0;
    }
}

/* Each event at both levels, at the run's own, and at the other's */
static void check_ticked_event(const Sequence *s, bool user, unsigned i)
{
    const Event *e = &events[ticked[i].event];
    uint64_t own, entry = user ? ticked_entry(i) : 0, in_ticks;

    set_counter(0, e, SEL_USR, 0);
    set_counter(1, e, SEL_OS, 0);
    set_counter(2, e, SEL_BOTH, 0);
    run_ticked(s, user, 7);
    in_ticks = ticked[i].tick * (uint64_t)ticks;
    own = ticked_own(i, user);
    timer_stop();
    check_equal(e->name, rdmsr(MSR_PMC0), user ? own : 0);
    check_equal(e->name, rdmsr(MSR_PMC0 + 1),
                in_ticks + (user ? entry : own));
    check_equal(e->name, rdmsr(MSR_PMC0 + 2), in_ticks + entry + own);
    pmu_clear();
}

static void check_ticked(const Sequence *s, bool user)
{
    check_begin();
    for (unsigned i = 0; i < TICKED; i++) {
        check_ticked_event(s, user, i);
    }
    check_end("%d interrupts at any moment at CPL %d", TICKS, user ? 3 : 0);
}

static const Sequence user_ticked_seq = SEQ(user_ticked);
static const Sequence kernel_ticked_seq = SEQ(kernel_ticked);

/*
 * Between privilege levels whose budgets differ and that share a counter:
 * CPL 3 takes almost all of what there is, or an equal part
 */
#define CALLS       1000
#define CALLS_NOPS  20

#define CALLS_BODY(name, nops)                          \
    N("mov $" STRING(CALLS) ", %ebx")                   \
    name "_loop:\n"                                     \
    FAR("syscall")                                      \
    name "_nops:\n"                                     \
    "   .rept " STRING(nops) "\n nop\n .endr\n"         \
    N("dec %ebx")                                       \
    name "_jnz:\n"                                      \
    COND("jnz " name "_loop")

SEQUENCE(calls, CALLS_BODY("calls", 0));
SEQUENCE(rare_calls, CALLS_BODY("rare_calls", CALLS_NOPS));
ASM_LABEL(calls_loop);
ASM_LABEL(calls_nops);
ASM_LABEL(calls_jnz);
ASM_LABEL(rare_calls_loop);
ASM_LABEL(rare_calls_nops);
ASM_LABEL(rare_calls_jnz);

typedef struct Calls {
    Sequence seq;
    const uint8_t *loop, *nops, *jnz;
    unsigned nop_count;
} Calls;

/* Where the @n-th instruction leads to, from 0: that after SYSCALL is 0 */
static const uint8_t *calls_rip(const Calls *c, unsigned n)
{
    n %= 4 + c->nop_count;
    return n == 0 ? just_sysret :
           n <= 1 + c->nop_count ? c->nops + n - 1 :
           n == 2 + c->nop_count ? c->jnz : c->loop;
}

static void check_calls(const Calls *c)
{
    unsigned round = 4 + c->nop_count;

    syscalls_setup();
    check_begin();
    set_counter(0, &events[EV_INSN], SEL_BOTH, 0);
    set_counter(1, &events[EV_INSN], SEL_OS, 0);
    set_counter(2, &events[EV_FAR], SEL_USR, 0);
    set_counter(3, &events[EV_FAR], SEL_BOTH, 0);
    seq_run(&c->seq, true, 0xf);
    /* WRMSR, IRET, 4 instructions; INT and three more */
    check_equal("instructions", rdmsr(MSR_PMC0), 6 + round * CALLS + 4);
    check_equal("at CPL 0", rdmsr(MSR_PMC0 + 1), 2 + CALLS + 3);
    check_equal("far branches at CPL 3", rdmsr(MSR_PMC0 + 2), CALLS + 1);
    check_equal("far branches", rdmsr(MSR_PMC0 + 3), 2 + 2 * CALLS);

    for (unsigned n = 7; n < round * CALLS; n += 11 * round + 3) {
        const uint8_t *rip = calls_rip(c, n - 7);

        set_counter(0, &events[EV_INSN], SEL_BOTH | SEL_INT, -(uint64_t)n);
        pmi_count = 0;
        apic_write(APIC_LVTPC, APIC_NMI);
        seq_run(&c->seq, true, 0xf);
        expect_pmi((uintptr_t)rip, rip != just_sysret, 1);
        wrmsr(MSR_OVF_CTRL, 1);
    }
    pmu_clear();
    check_end("a counter of both levels, %d instructions between calls",
              c->nop_count + 3);
}

static const Calls calls_loops[] = {
    { SEQ(calls), calls_loop, calls_nops, calls_jnz, 0 },
    { SEQ(rare_calls), rare_calls_loop, rare_calls_nops, rare_calls_jnz,
      CALLS_NOPS },
};

/* ---- delivery ---- */

static uint64_t status_bits(unsigned n)
{
    return low_bits(n);
}

static void check_same_instruction(void)
{
    const Scenario *sc = find_scenario("memory");

    scenario_begin(sc, false);
    check_begin();
    for (unsigned n = 1; n <= expected_count(&events[EV_LOADS], SEL_OS); n++) {
        const Step *s = nth_step(&events[EV_LOADS], SEL_OS, n);
        uint64_t insns = s - steps + 1;

        set_counter(0, &events[EV_INSN], SEL_OS | SEL_INT, -insns);
        set_counter(1, &events[EV_LOADS], SEL_OS | SEL_INT, -(uint64_t)n);
        set_counter(2, &events[EV_LOADS], SEL_OS, -(uint64_t)n);
        wrmsr(MSR_FIXED_CTRL, 9);
        wrmsr(MSR_FIXED0, -insns & COUNTER_MASK);
        pmi_count = 0;
        apic_write(APIC_LVTPC, APIC_NMI);
        seq_run(&sc->seq, false, 7 | FIXED_BIT(0));
        expect_pmi(s->next, false, status_bits(3) | FIXED_BIT(0));
        wrmsr(MSR_OVF_CTRL, config.counters);
    }
    pmu_clear();
    check_end("several counters overflow at one instruction");
    scenario_end();

    scenario_begin(sc, true);
    check_begin();
    set_counter(0, &events[EV_INSN], SEL_USR | SEL_INT, -10ull);
    set_counter(1, &events[EV_INSN], SEL_USR | SEL_INT, -12ull);
    pmi_count = 0;
    apic_write(APIC_LVTPC, APIC_NMI);
    seq_run(&sc->seq, true, 3);
    expect_pmi(nth_step(&events[EV_INSN], SEL_USR, 10)->next, true, 1);
    check_equal("GLOBAL_STATUS in the end", rdmsr(MSR_STATUS), 3);
    pmu_clear();
    check_end("a second overflow finds LVTPC masked");
    scenario_end();
}

static void overflow_once(const Scenario *sc, uint32_t lvtpc, uint64_t flags)
{
    set_counter(0, &events[EV_INSN], SEL_OS | flags, -10ull);
    pmi_count = 0;
    apic_write(APIC_LVTPC, lvtpc);
    seq_run(&sc->seq, false, 1);
}

static void check_undelivered(void)
{
    const Scenario *sc = find_scenario("arithmetic");

    scenario_begin(sc, false);
    check_begin();
    overflow_once(sc, APIC_NMI, 0);
    check_equal("interrupts", pmi_count, 0);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), 1);
    check_equal("LVTPC", apic_read(APIC_LVTPC), APIC_NMI);
    pmu_clear();
    check_end("no interrupt without INT");

    check_begin();
    overflow_once(sc, APIC_NMI | APIC_MASKED, SEL_INT);
    check_equal("interrupts", pmi_count, 0);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), 1);
    apic_write(APIC_LVTPC, APIC_NMI);
    asm volatile("nop; nop");
    check_equal("interrupts after unmasking", pmi_count, 0);
    pmu_clear();
    check_end("no interrupt through a masked LVTPC");

    check_begin();
    apic_write(APIC_SVR, 0xff);
    overflow_once(sc, APIC_NMI, SEL_INT);
    apic_write(APIC_SVR, 0x1ff);
    check_equal("interrupts", pmi_count, 0);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), 1);
    pmu_clear();
    overflow_once(sc, APIC_NMI, SEL_INT);
    expect_pmi(steps[9].next, false, 1);
    pmu_clear();
    check_end("no interrupt from a local APIC that is disabled by software");
    scenario_end();
}

/* The interrupt waits for IF, and for the instruction behind STI. */
SEQUENCE(delayed,
    N("nop")
    N("nop")
    N("sti")
    "delayed_1:\n"
    N("nop")
    "delayed_2:\n"
    N("nop")
    "delayed_3:\n"
    N("nop")
    "delayed_4:\n"
    N("cli")
    N("nop"));
ASM_LABEL(delayed_2);
ASM_LABEL(delayed_3);
ASM_LABEL(delayed_4);
static const Sequence delayed_seq = SEQ(delayed);

static void check_vector(void)
{
    const Scenario *sc = find_scenario("branches");

    check_begin();
    scenario_begin(sc, true);
    for (unsigned n = 1; n <= expected_count(&events[EV_BRANCHES], SEL_USR) - 1;
         n++) {
        const Step *s = nth_step(&events[EV_BRANCHES], SEL_USR, n);

        set_counter(1, &events[EV_BRANCHES], SEL_USR | SEL_INT, -(uint64_t)n);
        pmi_count = 0;
        apic_write(APIC_LVTPC, PMI_VECTOR);
        seq_trace = 0;
        seq_mask = 2;
        seq_entry = (uintptr_t)sc->seq.start;
        seq_go(&sc->seq, true, FLAG_IF);
        check_equal("interrupts", pmi_count, 1);
        check_equal("return address", pmi_rip, s->next);
        check_equal("LVTPC", pmi_lvtpc, PMI_VECTOR | APIC_MASKED);
        check_equal("GLOBAL_STATUS", pmi_status, 2);
        wrmsr(MSR_OVF_CTRL, 2);
    }
    scenario_end();
    pmu_clear();
    check_end("PMI by a vector, exactly behind the instruction");

    check_begin();
    for (unsigned n = 1; n <= 9; n++) {
        const uint8_t *rip = n <= 8 ? delayed_2 : delayed_3;

        /* WRMSR, 3 instructions of any sequence, 2 NOPs, STI, NOP, NOP */
        set_counter(0, &events[EV_INSN], SEL_OS | SEL_INT, -(uint64_t)n);
        pmi_count = 0;
        apic_write(APIC_LVTPC, PMI_VECTOR);
        seq_run(&delayed_seq, false, 1);
        check_equal("interrupts", pmi_count, 1);
        check_equal("return address", pmi_rip, (uintptr_t)rip);
        wrmsr(MSR_OVF_CTRL, 1);
    }
    pmu_clear();
    check_end("PMI by a vector waits for IF and the shadow of STI");
}

/* ---- freezing ---- */

/*
 * WRMSRs that stop and start counting in the midst of it: @stop to MSR @msr,
 * then @start to @start_msr.  Counted are the first of four WRMSRs and what
 * loads the second, the third, and what loads the last.
 */
#define COUNTED_AROUND_STOP     8

static void stop_and_start(uint32_t msr, uint64_t stop, uint32_t start_msr,
                           uint64_t start, uint64_t mask)
{
    static uint32_t values[2][3] __attribute__((used));

    for (unsigned i = 0; i < 2; i++) {
        uint64_t value = i ? start : stop;

        values[i][0] = i ? start_msr : msr;
        values[i][1] = value;
        values[i][2] = value >> 32;
    }
    asm volatile("wrmsr\n"
                 "mov (%%rsi), %%ecx\n"
                 "mov 4(%%rsi), %%eax\n"
                 "mov 8(%%rsi), %%edx\n"
                 "wrmsr\n"
                 ".rept 20\n"
                 "nop\n"
                 ".endr\n"
                 "mov 12(%%rsi), %%ecx\n"
                 "mov 16(%%rsi), %%eax\n"
                 "mov 20(%%rsi), %%edx\n"
                 "wrmsr\n"
                 "mov $0x38f, %%ecx\n"
                 "mov $0, %%eax\n"
                 "mov $0, %%edx\n"
                 "wrmsr"
                 : "+c"((uint32_t){ MSR_GLOBAL_CTRL }),
                   "+a"((uint32_t){ mask }), "+d"((uint32_t){ mask >> 32 })
                 : "S"(values) : "memory");
}

static void set_all_counters(uint64_t value)
{
    for (unsigned i = 0; i < config.gp; i++) {
        set_counter(i, &events[EV_INSN], SEL_OS, value);
    }
    wrmsr(MSR_FIXED_CTRL, 0x111);
    for (unsigned i = 0; i < 3; i++) {
        wrmsr(MSR_FIXED0 + i, value);
    }
}

static void expect_all_counters(uint64_t value)
{
    for (unsigned i = 0; i < config.gp; i++) {
        check_equal("GP counter", rdmsr(MSR_PMC0 + i), value);
    }
    for (unsigned i = 0; i < 3; i++) {
        check_equal("fixed counter", rdmsr(MSR_FIXED0 + i), value);
    }
}

static void check_ctr_frz(void)
{
    const Scenario *sc = find_scenario("arithmetic");

    scenario_begin(sc, false);
    check_begin();
    set_all_counters(0x1000);
    wrmsr(MSR_STATUS_SET, STATUS_CTR_FRZ);
    seq_run(&sc->seq, false, config.counters);
    expect_all_counters(0x1000);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), STATUS_CTR_FRZ);
    wrmsr(MSR_OVF_CTRL, STATUS_CTR_FRZ);
    seq_run(&sc->seq, false, config.counters);
    expect_all_counters(0x1000 + expected_count(&events[EV_INSN], SEL_OS));
    pmu_clear();
    check_end("CTR_Frz: nothing counts until it is cleared");
    scenario_end();

    check_begin();
    set_all_counters(0x1000);
    stop_and_start(MSR_STATUS_SET, STATUS_CTR_FRZ, MSR_OVF_CTRL,
                   STATUS_CTR_FRZ, config.counters);
    expect_all_counters(0x1000 + COUNTED_AROUND_STOP);
    pmu_clear();
    check_end("CTR_Frz, set and cleared while counting");

    check_begin();
    for (unsigned bit = 58; bit < 62; bit++) {
        uint64_t other = 1ull << bit;

        if (other == STATUS_CTR_FRZ) {
            continue;
        }
        set_all_counters(0x1000);
        /* The WRMSRs count, too, and so do the NOPs between them. */
        stop_and_start(MSR_STATUS_SET, other, MSR_OVF_CTRL, other,
                       config.counters);
        expect_all_counters(0x1000 + COUNTED_AROUND_STOP + 1 + 20 + 3);
    }
    pmu_clear();
    check_end("no other bit of GLOBAL_STATUS stops anything");
}

static void expect_frozen(uint64_t overflowed)
{
    check_equal("interrupts", pmi_count, 1);
    check_equal("GLOBAL_STATUS at the PMI", pmi_status,
                overflowed | (config.version >= 4 ? STATUS_CTR_FRZ : 0));
    check_equal("GLOBAL_CTRL at the PMI", pmi_ctrl,
                config.version >= 4 ? 7 | FIXED_BIT(0) : 0);
}

static void check_freeze_on_pmi(void)
{
    const Scenario *sc = find_scenario("arithmetic");

    scenario_begin(sc, false);
    check_begin();
    for (unsigned n = 1; n < step_count - 4; n++) {
        set_counter(0, &events[EV_INSN], SEL_OS | SEL_INT, -(uint64_t)n);
        set_counter(1, &events[EV_INSN], SEL_OS, 0);
        set_counter(2, &events[EV_INSN], SEL_BOTH, 0);
        wrmsr(MSR_FIXED_CTRL, 1);
        wrmsr(MSR_FIXED0, 0);
        wrmsr(MSR_DEBUGCTL, DEBUGCTL_FREEZE_PERFMON);
        pmi_count = 0;
        apic_write(APIC_LVTPC, APIC_NMI);
        seq_run(&sc->seq, false, 7 | FIXED_BIT(0));
        expect_frozen(1);
        check_equal("what overflowed", rdmsr(MSR_PMC0), 0);
        check_equal("beside it", rdmsr(MSR_PMC0 + 1), n);
        check_equal("at both levels", rdmsr(MSR_PMC0 + 2), n);
        check_equal("fixed", rdmsr(MSR_FIXED0), n);
        pmu_clear();
    }
    check_end("FREEZE_PERFMON_ON_PMI: all stop at the instruction");

    check_begin();
    set_counter(0, &events[EV_INSN], SEL_OS, -10ull);
    wrmsr(MSR_DEBUGCTL, DEBUGCTL_FREEZE_PERFMON);
    seq_run(&sc->seq, false, 1);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), 1);
    check_equal("counter", rdmsr(MSR_PMC0),
                expected_count(&events[EV_INSN], SEL_OS) - 10);
    pmu_clear();
    check_end("an overflow without a PMI freezes nothing");
    scenario_end();
}

/* Only the PMI ends this halt; the timer would say that it was lost. */
SEQUENCE(halt_for_pmi,
    N("sti")
    N("hlt")
    "halt_for_pmi_behind:\n"
    N("cli")
    N("nop"));
ASM_LABEL(halt_for_pmi_behind);
static const Sequence halt_for_pmi_seq = SEQ(halt_for_pmi);

static unsigned timer_count;

static void timer_handler(Frame *f)
{
    timer_count++;
    apic_write(APIC_EOI, 0);
}

static void expect_halt_pmi(unsigned event, uint64_t n, uint32_t lvtpc)
{
    set_counter(0, &events[event], SEL_OS | SEL_INT, -n);
    pmi_count = timer_count = 0;
    apic_write(APIC_LVTPC, lvtpc);
    apic_write(APIC_INITIAL, 50000000);
    seq_run(&halt_for_pmi_seq, false, 1);
    apic_write(APIC_INITIAL, 0);
    check_equal("interrupts", pmi_count, 1);
    check_equal("the timer's", timer_count, 0);
    check_equal("return address", pmi_rip, (uintptr_t)halt_for_pmi_behind);
    wrmsr(MSR_OVF_CTRL, 1);
}

static void check_halt(void)
{
    const Scenario *sc = find_scenario("HLT");
    uint64_t start, busy;

    check_begin();
    handlers[TIMER_VECTOR] = timer_handler;
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_TIMER, TIMER_VECTOR);
    /* WRMSR, 3, STI, HLT */
    expect_halt_pmi(EV_INSN, 6, APIC_NMI);
    expect_halt_pmi(EV_INSN, 6, PMI_VECTOR);
    expect_halt_pmi(2, 6, APIC_NMI);
    expect_halt_pmi(EV_INSN, 5, PMI_VECTOR);
    pmu_clear();
    handlers[TIMER_VECTOR] = NULL;
    check_end("a PMI at HLT ends the halt");

    check_begin();
    scenario_begin(sc, false);
    before_run = NULL;
    apic_write(APIC_INITIAL, 100000000);
    wrmsr(MSR_FIXED_CTRL, 0x333);
    start = rdtsc();
    seq_run(&sc->seq, false, config.counters);
    busy = rdtsc() - start;
    check_equal("it did halt", busy > 1000000, 1);
    for (unsigned i = 0; i < 3; i++) {
        check_equal("fixed counter", rdmsr(MSR_FIXED0 + i),
                    expected_count(&events[EV_INSN], SEL_BOTH));
    }
    pmu_clear();
    scenario_end();
    check_end("a halt counts once, however long it lasts");
}

/* ---- icount ---- */

static uint64_t time_of_rounds(void)
{
    uint64_t start = rdtsc();

    seq_run(&rounds_seq, false, low_bits(config.gp));
    return rdtsc() - start;
}

/* A block that a budget cuts costs no more time than one that runs whole. */
static void check_time(void)
{
    uint64_t alone;

    check_begin();
    alone = time_of_rounds();
    check_equal("time, the second time", time_of_rounds(), alone);
    for (unsigned i = 0; i < config.gp; i++) {
        set_counter(i, &events[EV_INSN], SEL_OS, -(10000ull * i + 1001));
    }
    check_equal("time with counters that overflow", time_of_rounds(), alone);
    check_equal("overflows", rdmsr(MSR_STATUS) & low_bits(config.gp),
                low_bits(config.gp));
    pmu_clear();
    check_end("counting takes no virtual time");
}

/* ---- reset ---- */

/* RAM survives a reset, but for what the firmware and the loader write. */
static uint64_t *const kept = (uint64_t *)0x4000000;
enum { KEPT_MARK, KEPT_COUNT, KEPT_FAILED };
#define RESET_MAGIC 0x5045425354455354ull

static void dirty_and_reset(void)
{
    for (unsigned i = 0; i < stored_count; i++) {
        for (unsigned k = 0; k < stored[i].count; k++) {
            if (stored[i].msr != MSR_GLOBAL_CTRL) {
                try_wrmsr(stored[i].msr + k, stored[i].valid);
            }
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        wrmsr(MSR_FIXED0 + i, COUNTER_MASK);
    }
    if (config.pebs) {
        wrmsr(MSR_DS_AREA, 0x1000);
    }
    wrmsr(MSR_DEBUGCTL, DEBUGCTL_KEPT);
    kept[KEPT_COUNT] = tap_count;
    kept[KEPT_FAILED] = tap_failed;
    kept[KEPT_MARK] = RESET_MAGIC;
    wrmsr(MSR_GLOBAL_CTRL, config.counters);
    for (;;) {
        outb(0xcf9, 0x06);
        outb(0x64, 0xfe);
    }
}

static void check_disabled_apic(void)
{
    const Scenario *sc = find_scenario("arithmetic");

    scenario_begin(sc, false);
    check_begin();
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) & ~0x800ull);
    set_counter(0, &events[EV_INSN], SEL_OS | SEL_INT, -10ull);
    pmi_count = 0;
    seq_run(&sc->seq, false, 1);
    check_equal("interrupts", pmi_count, 0);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), 1);
    scenario_end();
    check_end("no interrupt from a local APIC that is disabled");
}

static void check_msrs(void)
{
    for (unsigned i = 0; i < stored_count; i++) {
        check_reserved_bits(&stored[i]);
    }
    check_read_only("PERF_CAPABILITIES", MSR_PERF_CAPABILITIES);
    check_read_only("GLOBAL_STATUS", MSR_STATUS);
    check_counter_msrs();
    if (config.pebs) {
        check_ds_area();
    }
    check_absent_pebs();
    check_misc_enable();
    check_debugctl();
    check_status();
    check_rdpmc();
}

int main(void)
{
    pmu_test_init();
    if (!has_pmu()) {
        ml_printf("1..0 # SKIP no PMU: run with -cpu Icelake-Server,pebs=on\n");
        return 0;
    }
    if (config.codes) {
        check_model_codes();
        return tap_end();
    }
    list_stored();
    if (kept[KEPT_MARK] == RESET_MAGIC) {
        kept[KEPT_MARK] = 0;
        tap_count = kept[KEPT_COUNT];
        tap_failed = kept[KEPT_FAILED];
        check_reset_values("after a reset");
        return tap_end();
    }

    check_cpuid();
    check_reset_values("at the start");
    pmu_clear();
    check_msrs();

    handlers[2] = handlers[PMI_VECTOR] = pmi_handler;
    for_scenarios(check_scenario);
    check_selection();
    check_model_codes();
    check_reading();
    check_writing();
    check_rounds(false);
    check_rounds(true);
    check_ticked(&user_ticked_seq, true);
    check_ticked(&kernel_ticked_seq, false);
    check_calls(&calls_loops[0]);
    check_calls(&calls_loops[1]);
    check_same_instruction();
    check_undelivered();
    check_vector();
    if (config.version >= 4) {
        check_ctr_frz();
    }
    check_freeze_on_pmi();
    check_halt();
    if (config.icount) {
        check_time();
    }
    check_disabled_apic();
    dirty_and_reset();
    return 1;
}
