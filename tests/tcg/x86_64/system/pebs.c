/*
 * Emulated PEBS on the bare machine: records, the DS area, and what can be
 * wrong with either
 *
 * Run with -cpu Icelake-Server,pebs=on.  With other properties say so with
 * -append: baseline=off, format=N, gp=N.  With -append brief only a few
 * sequences are run; with -append dump nothing is checked, but a buffer of
 * records is printed, for two runs to be compared.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "pmu-test.h"
#include "pmu-sequences.h"
#include "pebs-test.h"

static uint64_t ds_area[DS_SIZE / 8] __attribute__((used, aligned(4096)));
static uint8_t buffer[0x20000] __attribute__((aligned(4096)));

/* The groups of an adaptive record, with all that there are */
static uint64_t full_cfg(void)
{
    return config.baseline ? CFG_ALL : 0;
}

static void pebs_init(uint64_t cfg, uint64_t enable)
{
    ds_init(ds_area, (uintptr_t)buffer, sizeof(buffer));
    wrmsr(MSR_DS_AREA, (uintptr_t)ds_area);
    if (config.baseline) {
        wrmsr(MSR_PEBS_DATA_CFG, cfg);
    }
    wrmsr(MSR_PEBS_ENABLE, enable);
    wrmsr(MSR_OVF_CTRL, OVF_BUF);
}

static uint64_t adaptive(void)
{
    return config.baseline ? SEL_ADAPT : 0;
}

/* ---- interrupts ---- */

static unsigned pmi_count, debug_count;
static uint64_t pmi_rip, pmi_status, pmi_clear_status;
static bool pmi_rearm;

static void pmi_handler(Frame *f)
{
    if (pmi_count++ == 0) {
        pmi_rip = f->rip;
        pmi_status = rdmsr(MSR_STATUS);
    }
    if (pmi_clear_status) {
        wrmsr(MSR_OVF_CTRL, pmi_clear_status);
    }
    if (pmi_rearm) {
        apic_write(APIC_LVTPC, APIC_NMI);
    }
}

static void pmi_expected(void)
{
    pmi_count = 0;
    pmi_rearm = false;
    pmi_clear_status = 0;
    apic_write(APIC_LVTPC, APIC_NMI);
}

static void count_debug(Frame *f)
{
    debug_count++;
}

/* ---- records ---- */

static void expect_record(const uint8_t *r, const Step *s, uint64_t cfg,
                          uint64_t counters)
{
    check_equal("format", q(r), cfg | (uint64_t)record_size(cfg) << 48);
    check_equal("IP", q(r + 8), s->ip);
    check_equal("applicable counters", q(r + 16), counters);
    r += BASIC_SIZE;
    if (cfg & CFG_MEM) {
        check_equal("latency", q(r + 16), q(r) ? 64 : 0);
        check_equal("TSX", q(r + 24), 0);
        r += MEM_SIZE;
    }
    if (cfg & CFG_GPR) {
        check_equal("IP behind the instruction", q(r + 8), s->record_next);
        if (s->has_regs) {
            unsigned first = s - steps;

            check_equal("flags", q(r) & ~(FLAG_TF | FLAG_RF), s->rflags);
            for (unsigned i = 0; i < 16; i++) {
                /* The first three set what differs while single-stepping. */
                if (i < 3 && first < 5) {
                    continue;
                }
                if (q(r + 16 + i * 8) != s->regs[i]) {
                    check_fail("register %d is 0x%llx, expected 0x%llx", i,
                               (unsigned long long)q(r + 16 + i * 8),
                               (unsigned long long)s->regs[i]);
                }
            }
        }
        r += GPR_SIZE;
    }
    if ((cfg & CFG_XMM) && s->has_regs) {
        check_equal("XMM registers", equal_bytes(r, s->xmm, XMM_SIZE), true);
    }
}

/* Counter 0 samples @e, once, at its @n-th event. */
static void check_sample(const Scenario *sc, bool user, const Event *e,
                         unsigned n, bool stepping, bool company)
{
    uint64_t privs = user ? SEL_USR : SEL_OS, mask = 1;
    const Step *s = nth_step(e, privs, n);
    unsigned size = record_size(full_cfg());
    bool good = tap_good;

    pebs_init(full_cfg(), 1);
    fill(buffer, size + 64);
    set_counter(0, e, privs | SEL_INT | adaptive(), -(uint64_t)n);
    if (company) {
        set_counter(1, &events[EV_INSN], SEL_OS, 0);
        set_counter(2, &events[EV_MEM], SEL_USR, 0);
        set_counter(config.gp - 1, &events[EV_TAKEN], SEL_BOTH, 0);
        mask = 0x7 | 1ull << (config.gp - 1);
    }
    pmi_expected();
    if (stepping) {
        seq_run_stepping(&sc->seq, mask);
    } else {
        seq_run(&sc->seq, user, mask);
    }
    check_equal("PEBS index", ds_area[DS_INDEX] - ds_area[DS_BASE], size);
    expect_record(buffer, s, full_cfg(), 1);
    check_equal("beyond the record", is_filled(buffer + size, 64), true);
    check_equal("interrupts", pmi_count, 0);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), 0);
    check_equal("counter", rdmsr(MSR_PMC0),
                FAR_AWAY + expected_count(e, privs) - n);
    if (good && !tap_good) {
        ml_printf("# (event %d of %s, at 0x%llx%s%s)\n", n, e->name,
                  (unsigned long long)s->ip, stepping ? ", stepping" : "",
                  company ? ", in company" : "");
    }
}

static void check_scenario(const Scenario *sc, bool user)
{
    uint64_t privs = user ? SEL_USR : SEL_OS;
    bool good;

    scenario_begin(sc, user);
    check_begin();
    for (unsigned i = 0; i < EVENTS; i++) {
        const Event *e = &events[i];
        unsigned n = expected_count(e, privs);
        bool brief = sc->slow || (i > 0 && e->any == 0);

        for (unsigned k = 1; k <= n; k += brief && k < n ? n - 1 : 1) {
            check_sample(sc, user, e, k, false, false);
            if (!brief) {
                check_sample(sc, user, e, k, false, true);
            }
            if (user && !sc->list && !brief) {
                check_sample(sc, user, e, k, true, false);
            }
        }
    }
    pmu_clear();
    check_end("%s at CPL %d: one record, for each event", sc->name,
              user ? 3 : 0);

    /* Every instruction, every second one, and so on */
    check_begin();
    for (unsigned period = 1; period <= 7 && !sc->slow; period++) {
        unsigned size = record_size(full_cfg()), found = 0, counted = 0;

        good = tap_good;
        pebs_init(full_cfg(), 1);
        *reset_slot(ds_area, 0) = -(uint64_t)period;
        set_counter(0, &events[EV_INSN], privs | adaptive(),
                    -(uint64_t)period);
        seq_run(&sc->seq, user, 1);
        for (unsigned i = 0; i < step_count; i++) {
            if (step_counts(&steps[i], &events[EV_INSN], privs) &&
                ++counted % period == 0) {
                expect_record(buffer + found++ * size, &steps[i], full_cfg(),
                              1);
            }
        }
        check_equal("records", (ds_area[DS_INDEX] - ds_area[DS_BASE]) / size,
                    found);
        check_equal("counter", rdmsr(MSR_PMC0) | ~COUNTER_MASK,
                    -(uint64_t)(period - counted % period));
        if (good && !tap_good) {
            ml_printf("# (period %d)\n", period);
        }
    }
    pmu_clear();
    check_end("%s at CPL %d: records at a period", sc->name, user ? 3 : 0);

    if (config.baseline) {
        check_begin();
        for (unsigned bit = 32; bit < 35; bit++) {
            unsigned n = expected_count(&events[EV_INSN], privs);

            for (unsigned k = 1; k <= n; k += bit > 32 || sc->slow ?
                                              (k < n ? n - 1 : 1) : 3) {
                pebs_init(CFG_ALL, 1ull << bit);
                wrmsr(MSR_FIXED_CTRL, ((user ? 2ull : 1ull) | 1ull << 32)
                                      << (bit - 32) * 4);
                wrmsr(MSR_FIXED0 + bit - 32, -(uint64_t)k & COUNTER_MASK);
                seq_run(&sc->seq, user, 1ull << bit);
                check_equal("PEBS index",
                            ds_area[DS_INDEX] - ds_area[DS_BASE],
                            record_size(CFG_ALL));
                expect_record(buffer, nth_step(&events[EV_INSN], privs, k),
                              CFG_ALL, 1ull << bit);
                check_equal("counter", rdmsr(MSR_FIXED0 + bit - 32),
                            FAR_AWAY + n - k);
            }
        }
        pmu_clear();
        check_end("%s at CPL %d: fixed counters", sc->name, user ? 3 : 0);
    }
    scenario_end();
}

/* ---- what a record holds ---- */

static void check_groups(void)
{
    const Scenario *sc = find_scenario("arithmetic");

    scenario_begin(sc, true);
    for (uint64_t cfg = 0; cfg <= CFG_ALL; cfg++) {
        unsigned size = record_size(cfg);

        check_begin();
        pebs_init(cfg, 1);
        fill(buffer, 1024);
        set_counter(0, &events[EV_INSN], SEL_USR | SEL_ADAPT, -20ull);
        seq_run(&sc->seq, true, 1);
        check_equal("PEBS index", ds_area[DS_INDEX], (uintptr_t)buffer + size);
        expect_record(buffer, nth_step(&events[EV_INSN], SEL_USR, 20), cfg, 1);
        check_equal("beyond", is_filled(buffer + size, 512), true);
        pmu_clear();
        check_end("groups: PEBS_DATA_CFG = %d", (int)cfg);
    }
    scenario_end();
}

/* The group is laid out, its entries are empty. */
static void check_lbr_group(void)
{
    const Scenario *sc = find_scenario("arithmetic");
    uint64_t cfg = 0x0300000f;
    unsigned size = record_size(CFG_ALL) + 4 * 24;

    scenario_begin(sc, true);
    check_begin();
    pebs_init(0, 1);
    fill(buffer, 1024);
    if (try_wrmsr(MSR_PEBS_DATA_CFG, cfg) >= 0) {
        check_fail("PEBS_DATA_CFG: four LBR entries are refused");
    } else {
        set_counter(0, &events[EV_INSN], SEL_USR | SEL_ADAPT, -20ull);
        seq_run(&sc->seq, true, 1);
        check_equal("PEBS index", ds_area[DS_INDEX], (uintptr_t)buffer + size);
        check_equal("format", q(buffer), cfg | (uint64_t)size << 48);
        for (unsigned i = record_size(CFG_ALL); i < size; i++) {
            check_equal("entries", buffer[i], 0);
        }
        check_equal("beyond", is_filled(buffer + size, 64), true);
    }
    pmu_clear();
    scenario_end();
    check_end("groups: LBR entries are laid out and left zero");
}

static void check_not_adaptive(void)
{
    const Scenario *sc = find_scenario("arithmetic");

    scenario_begin(sc, true);
    check_begin();
    pebs_init(full_cfg(), 1);
    fill(buffer, 1024);
    set_counter(0, &events[EV_INSN], SEL_USR, -20ull);
    seq_run(&sc->seq, true, 1);
    check_equal("PEBS index", ds_area[DS_INDEX], (uintptr_t)buffer + 32);
    expect_record(buffer, nth_step(&events[EV_INSN], SEL_USR, 20), 0, 1);
    check_equal("beyond", is_filled(buffer + 32, 512), true);
    pmu_clear();
    scenario_end();
    check_end("an event that isn't adaptive has records of 32 bytes");
}

static void check_tsc(void)
{
    const Scenario *sc = find_scenario("arithmetic");
    uint64_t before, after, last = 0;
    unsigned size = record_size(full_cfg());

    scenario_begin(sc, true);
    check_begin();
    pebs_init(full_cfg(), 1);
    *reset_slot(ds_area, 0) = -1ull;
    set_counter(0, &events[EV_INSN], SEL_USR | adaptive(), -1ull);
    before = rdtsc();
    seq_run(&sc->seq, true, 1);
    after = rdtsc();
    for (uint64_t at = ds_area[DS_BASE]; at < ds_area[DS_INDEX]; at += size) {
        uint64_t tsc = q((uint8_t *)at + 24);

        check_equal("not before the run", tsc >= before, true);
        check_equal("not behind it", tsc <= after, true);
        check_equal("in order", tsc >= last, true);
        last = tsc;
    }
    pmu_clear();
    scenario_end();
    check_end("TSC");
}

/* Where each instruction loads from and stores to */
SEQUENCE(accesses,
    L("mov (%rdi), %rax")
    S("mov %rax, 8(%rdi)")
    LS("add %rax, 16(%rdi)")
    S("push %rax")
    L("pop %rbx")
    LS("lock xadd %rax, 24(%rdi)")
    LS("lock cmpxchg16b 64(%rdi)")
    L("movdqu 3(%rdi), %xmm3")
    S("movdqu %xmm3, 101(%rdi)")
    S("fxsave64 512(%rdi)")
    L("fxrstor64 512(%rdi)")
    CALL("call 1f")
    N("nop")
    JMP("jmp 2f")
    "1:\n"
    RET("ret")
    "2:\n"
    LS("xchg %rax, 32(%rdi)")
    /* masks that leave out what comes first */
    N("pcmpeqd %xmm5, %xmm5")
    N("pslldq $3, %xmm5")
    S("maskmovdqu %xmm5, %xmm4")
    L("vmovdqu 128(%rdi), %ymm7")
    S("vmovdqu %ymm7, 160(%rdi)")
    N("vpcmpeqd %ymm6, %ymm6, %ymm6")
    N("pslldq $4, %xmm6")
    S("vpmaskmovd %ymm7, %ymm6, 200(%rdi)")
    S("vpmaskmovq %ymm7, %ymm6, 232(%rdi)")
    N("pcmpeqd %xmm8, %xmm8")
    L("vpgatherdd %ymm6, (%rdi, %ymm8, 4), %ymm9")
    /* far ones, by the stack */
    N("mov %rsp, %rdx")
    S("push $" STRING(USER_SS))
    S("push %rdx")
    S("pushfq")
    S("push $" STRING(USER_CS))
    N("lea 3f(%rip), %rax")
    S("push %rax")
    IRET("iretq")
    "3:\n"
    N("lea 4f(%rip), %eax")
    S("mov %eax, 300(%rdi)")
    S("movl $" STRING(USER_CS) ", 304(%rdi)")
    K(K_BRANCH | K_FAR | K_LOAD | K_STORE, "lcall *300(%rdi)")
    JMP("jmp 5f")
    "4:\n"
    K(K_BRANCH | K_FAR | K_LOAD, "lretl")
    "5:\n"
    LS("movsb"));

static const Sequence accesses_seq = SEQ(accesses);

/* What an instruction of these accesses: from where RDI points to, or RSP */
typedef struct Access {
    int load, store;
    bool locked;
} Access;

#define STACK(offset)   (0x10000 + (offset))
#define NONE            0x20000

static const Access accesses_made[] = {
    { 0, NONE }, { NONE, 8 }, { 16, 16 },
    { NONE, STACK(-8) }, { STACK(-8), NONE },
    { 24, 24, true }, { 64, 64, true },
    { 3, NONE }, { NONE, 101 }, { NONE, 512 }, { 512, NONE },
    { NONE, STACK(-8) }, { STACK(-8), NONE },
    { 32, 32, true },
    { NONE, 3 }, { 128, NONE }, { NONE, 160 },
    { NONE, 204 }, { NONE, 232 }, { -4, NONE },
    { NONE, STACK(-8) }, { NONE, STACK(-16) }, { NONE, STACK(-24) },
    { NONE, STACK(-32) }, { NONE, STACK(-40) }, { STACK(-40), NONE },
    { NONE, 300 }, { NONE, 304 },
    { 300, STACK(-4) }, { STACK(-8), NONE },
    /* RSI is that far from RDI. */
    { -1024, 0 },
};
#define ACCESSES_MADE (sizeof(accesses_made) / sizeof(accesses_made[0]))

static uint64_t accessed(int offset)
{
    return offset < STACK(-1024)
           ? (uintptr_t)test_data + 2048 + offset
           : (uintptr_t)test_stack + sizeof(test_stack) - 512 +
             offset - STACK(0);
}

/* The address that a record of @e has; 0 if @e doesn't count the access. */
static uint64_t access_address(const Access *a, const Event *e)
{
    if ((e->any & K_LOAD) && a->load != NONE) {
        return accessed(a->load);
    }
    if ((e->any & K_STORE) && a->store != NONE) {
        return accessed(a->store);
    }
    return 0;
}

static void check_addresses_of(const Event *e)
{
    const unsigned size = BASIC_SIZE + MEM_SIZE;
    unsigned n = 0;

    find_steps(&accesses_seq, true, NULL);
    check_begin();
    pebs_init(CFG_MEM, 1);
    wrmsr(MSR_LD_LAT, 3);
    *reset_slot(ds_area, 0) = -1ull;
    set_counter(0, e, SEL_USR | SEL_ADAPT, -1ull);
    seq_run(&accesses_seq, true, 1);
    for (unsigned i = 0; i < ACCESSES_MADE; i++) {
        const Access *a = &accesses_made[i];
        const uint8_t *r = buffer + n * size;

        if (!access_address(a, e)) {
            continue;
        }
        expect_record(r, nth_step(e, SEL_USR, ++n), CFG_MEM, 1);
        if (q(r + BASIC_SIZE) != access_address(a, e)) {
            check_fail("access %d: address 0x%llx, expected 0x%llx", i,
                       (unsigned long long)q(r + BASIC_SIZE),
                       (unsigned long long)access_address(a, e));
        }
        check_equal("source", q(r + BASIC_SIZE + 8), a->locked ? 0x21 : 1);
        check_equal("latency", q(r + BASIC_SIZE + 16), 64);
    }
    check_equal("events", expected_count(e, SEL_USR), n);
    check_equal("PEBS index", ds_area[DS_INDEX] - ds_area[DS_BASE], n * size);
    pmu_clear();
    check_end("memory addresses of %s", e->name);
}

static void check_addresses(void)
{
    static const Event latency = { "load latency", 0x01cd, K_LOAD };
    uint64_t cr4 = read_cr(4);

    write_cr(4, cr4 | 0x40000);
    asm volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
    check_addresses_of(&events[EV_LOADS]);
    check_addresses_of(&events[EV_STORES]);
    check_addresses_of(&events[EV_MEM]);
    check_addresses_of(&latency);
    write_cr(4, cr4);
}

/* Registers behind instructions that can't be single-stepped */
static const uint8_t *sample_at(const Scenario *sc, const uint8_t *base,
                                unsigned index)
{
    uint64_t ip = (find_insn((uintptr_t)base) + index)->start;
    unsigned n = 0, i = 0;

    for (; i < step_count && steps[i].ip != ip; i++) {
        n += step_counts(&steps[i], &events[EV_INSN], SEL_USR);
    }
    pebs_init(CFG_GPR, 1);
    set_counter(0, &events[EV_INSN], SEL_USR | SEL_ADAPT, -(uint64_t)(n + 1));
    seq_run(&sc->seq, true, 1);
    expect_record(buffer, &steps[i], CFG_GPR, 1);
    return buffer + BASIC_SIZE;
}

static void check_boundaries(void)
{
    const Scenario *sc = find_scenario("SYSCALL");
    const uint8_t *r;

    check_begin();
    scenario_begin(sc, true);
    wrmsr(MSR_SFMASK, 1);
    r = sample_at(sc, syscalls, 4);
    check_equal("IP", q(r + 8), (uintptr_t)just_sysret);
    check_equal("CX", q(r + 16 + 8),
                (find_insn((uintptr_t)syscalls) + 5)->start);
    check_equal("R11", q(r + 16 + 11 * 8) & ~0xffull, 0);
    check_equal("SP", q(r + 16 + 4 * 8), seq_regs[4]);
    wrmsr(MSR_SFMASK, 0);
    scenario_end();
    pmu_clear();
    check_end("registers behind SYSCALL");

    sc = find_scenario("INT at CPL 3");
    check_begin();
    scenario_begin(sc, true);
    r = sample_at(sc, interrupts, 4);
    check_equal("IP", q(r + 8), (uintptr_t)just_iret);
    check_equal("SP", q(r + 16 + 4 * 8), ist_top(IST_INT) - 40);
    scenario_end();
    pmu_clear();
    check_end("registers behind INT");
}

/* What the guest itself sees of the index, right behind each instruction */
SEQUENCE(watching,
    L("mov ds_area+0x28(%rip), %rax")
    S("mov %rax, (%rdi)")
    N("nop")
    L("mov ds_area+0x28(%rip), %rax")
    S("mov %rax, 8(%rdi)"));

static const Sequence watching_seq = SEQ(watching);

static void check_index_seen(void)
{
    unsigned size = record_size(full_cfg());

    check_begin();
    pebs_init(full_cfg(), 1);
    *reset_slot(ds_area, 0) = -1ull;
    set_counter(0, &events[EV_INSN], SEL_USR | adaptive(), -1ull);
    seq_run(&watching_seq, true, 1);
    check_equal("behind 3 instructions", q(test_data + 2048),
                (uintptr_t)buffer + 3 * size);
    check_equal("behind 6", q(test_data + 2056),
                (uintptr_t)buffer + 6 * size);
    pmu_clear();
    check_end("the next instruction sees the record");
}

/* ---- counters ---- */

static void check_reload(void)
{
    const Scenario *sc = find_scenario("arithmetic");

    scenario_begin(sc, true);
    check_begin();
    for (unsigned bit = 0; bit < 35; bit = bit == config.gp - 1 ? 32
                                                                : bit + 1) {
        bool fixed = bit >= 32;
        uint64_t n = expected_count(&events[EV_INSN], SEL_USR);

        if (fixed && !config.baseline) {
            break;
        }
        pebs_init(0, 1ull << bit);
        for (unsigned i = 0; i < 36; i++) {
            /* 48 bits of it are used */
            ds_area[DS_RESET + i] = 0xabcd100000000000ull + (i << 20);
        }
        if (fixed) {
            wrmsr(MSR_FIXED_CTRL, (2 | 1ull << 32) << (bit - 32) * 4);
            wrmsr(MSR_FIXED0 + bit - 32, COUNTER_MASK - 4);
        } else {
            set_counter(bit, &events[EV_INSN], SEL_USR | adaptive(), -5ull);
        }
        seq_run(&sc->seq, true, 1ull << bit);
        check_equal("counter", rdmsr(fixed ? MSR_FIXED0 + bit - 32
                                           : MSR_PMC0 + bit),
                    0x100000000000ull +
                    ((fixed ? fixed_slot() + bit - 32 : bit) << 20) + n - 5);
        check_equal("slots are only read",
                    *reset_slot(ds_area, bit) >> 44, 0xabcd1);
        pmu_clear();
    }
    scenario_end();
    check_end("each counter is reloaded from its own slot (format %d)",
              config.format);
}

static void check_several(void)
{
    const Scenario *sc = find_scenario("memory");
    unsigned full = record_size(full_cfg());
    const Step *s;
    unsigned n;

    scenario_begin(sc, true);
    s = nth_step(&events[EV_LOADS], SEL_USR, 5);
    n = 0;
    for (const Step *i = steps; i <= s; i++) {
        n += step_counts(i, &events[EV_INSN], SEL_USR);
    }

    check_begin();
    pebs_init(full_cfg(), 3);
    set_counter(0, &events[EV_INSN], SEL_USR | adaptive(), -(uint64_t)n);
    set_counter(1, &events[EV_LOADS], SEL_USR | adaptive(), -5ull);
    *reset_slot(ds_area, 1) = FAR_AWAY + 1000;
    seq_run(&sc->seq, true, 3);
    check_equal("PEBS index", ds_area[DS_INDEX] - ds_area[DS_BASE], full);
    expect_record(buffer, s, full_cfg(), 3);
    check_equal("counter 0", rdmsr(MSR_PMC0),
                FAR_AWAY + expected_count(&events[EV_INSN], SEL_USR) - n);
    check_equal("counter 1", rdmsr(MSR_PMC0 + 1), FAR_AWAY + 1000 +
                expected_count(&events[EV_LOADS], SEL_USR) - 5);
    pmu_clear();
    check_end("two counters at one instruction: one record");

    if (config.baseline) {
        check_begin();
        pebs_init(CFG_ALL, 1ull << 32 | 2);
        wrmsr(MSR_FIXED_CTRL, 2 | 1ull << 32);
        wrmsr(MSR_FIXED0, -(uint64_t)n & COUNTER_MASK);
        set_counter(1, &events[EV_LOADS], SEL_USR | SEL_ADAPT, -5ull);
        seq_run(&sc->seq, true, 1ull << 32 | 2);
        check_equal("PEBS index", ds_area[DS_INDEX] - ds_area[DS_BASE], full);
        expect_record(buffer, s, CFG_ALL, 1ull << 32 | 2);
        pmu_clear();
        check_end("a fixed and another counter: one record");

        check_begin();
        pebs_init(CFG_ALL, 3);
        set_counter(0, &events[EV_INSN], SEL_USR | SEL_ADAPT, -(uint64_t)n);
        set_counter(1, &events[EV_LOADS], SEL_USR, -5ull);
        seq_run(&sc->seq, true, 3);
        check_equal("PEBS index", ds_area[DS_INDEX] - ds_area[DS_BASE],
                    full + BASIC_SIZE);
        expect_record(buffer, s, CFG_ALL, 1);
        expect_record(buffer + full, s, 0, 2);
        pmu_clear();
        check_end("an adaptive and another event: a record each");
    }

    check_begin();
    pebs_init(full_cfg(), 1);
    set_counter(0, &events[EV_INSN], SEL_USR | adaptive(), -(uint64_t)n);
    set_counter(1, &events[EV_LOADS], SEL_USR | SEL_INT, -5ull);
    pmi_expected();
    seq_run(&sc->seq, true, 3);
    check_equal("PEBS index", ds_area[DS_INDEX] - ds_area[DS_BASE], full);
    expect_record(buffer, s, full_cfg(), 1);
    check_equal("interrupts", pmi_count, 1);
    check_equal("return address", pmi_rip, s->next);
    check_equal("GLOBAL_STATUS", pmi_status, 2);
    check_equal("counter 1 goes on from 0", rdmsr(MSR_PMC0 + 1),
                expected_count(&events[EV_LOADS], SEL_USR) - 5);
    pmu_clear();
    check_end("a counter without PEBS at the same instruction");
    scenario_end();
}

/* ---- threshold, buffer full ---- */

static void check_threshold(void)
{
    const Scenario *sc = find_scenario("arithmetic");
    const Event *e = &events[EV_INSN];
    unsigned size = record_size(full_cfg()), n;

    scenario_begin(sc, true);
    n = expected_count(e, SEL_USR);

    check_begin();
    pebs_init(full_cfg(), 1);
    ds_area[DS_THRESHOLD] = ds_area[DS_BASE] + 3 * size;
    *reset_slot(ds_area, 0) = -2ull;
    set_counter(0, e, SEL_USR | adaptive(), -2ull);
    pmi_expected();
    pmi_rearm = true;
    seq_run(&sc->seq, true, 1);
    check_equal("interrupts", pmi_count, n / 2 - 2);
    check_equal("return address", pmi_rip, nth_step(e, SEL_USR, 6)->next);
    check_equal("GLOBAL_STATUS", pmi_status, OVF_BUF);
    check_equal("GLOBAL_STATUS in the end", rdmsr(MSR_STATUS), OVF_BUF);
    check_equal("records", (ds_area[DS_INDEX] - ds_area[DS_BASE]) / size,
                n / 2);
    pmu_clear();
    check_end("threshold: a PMI for each record from there on, once unmasked");

    check_begin();
    pebs_init(full_cfg(), 1);
    ds_area[DS_THRESHOLD] = ds_area[DS_BASE] + 3 * size;
    *reset_slot(ds_area, 0) = -2ull;
    set_counter(0, e, SEL_USR | adaptive(), -2ull);
    pmi_expected();
    pmi_rearm = true;
    pmi_clear_status = OVF_BUF;
    seq_run(&sc->seq, true, 1);
    check_equal("interrupts", pmi_count, n / 2 - 2);
    check_equal("GLOBAL_STATUS in the end", rdmsr(MSR_STATUS), 0);
    pmu_clear();
    check_end("threshold: a PMI for each record while it stays reached");

    check_begin();
    pebs_init(full_cfg(), 1);
    ds_area[DS_THRESHOLD] = ds_area[DS_BASE] + 1;
    set_counter(0, e, SEL_USR | adaptive(), -9ull);
    pmi_expected();
    seq_run(&sc->seq, true, 1);
    check_equal("interrupts", pmi_count, 1);
    check_equal("return address", pmi_rip, nth_step(e, SEL_USR, 9)->next);
    pmu_clear();
    check_end("threshold: inside the record");

    check_begin();
    pebs_init(full_cfg(), 1);
    ds_area[DS_THRESHOLD] = ds_area[DS_BASE] + size;
    set_counter(0, e, SEL_USR | adaptive(), -9ull);
    pmi_expected();
    apic_write(APIC_LVTPC, APIC_NMI | APIC_MASKED);
    seq_run(&sc->seq, true, 1);
    check_equal("interrupts", pmi_count, 0);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), OVF_BUF);
    pmu_clear();
    check_end("threshold: LVTPC masked");

    check_begin();
    pebs_init(0, 1);
    ds_area[DS_THRESHOLD] = ds_area[DS_BASE] + record_size(0);
    set_counter(0, &events[EV_INSN], SEL_USR | adaptive(), -10ull);
    set_counter(1, &events[EV_INSN], SEL_BOTH, 0);
    wrmsr(MSR_DEBUGCTL, DEBUGCTL_FREEZE_PERFMON);
    pmi_expected();
    seq_run(&sc->seq, true, 3);
    check_equal("interrupts", pmi_count, 1);
    check_equal("GLOBAL_STATUS", pmi_status,
                OVF_BUF | (config.version >= 4 ? STATUS_CTR_FRZ : 0));
    /* WRMSR and IRET before, at CPL 0 */
    check_equal("another counter", rdmsr(MSR_PMC0 + 1), 2 + 10);
    check_equal("the counter", rdmsr(MSR_PMC0), FAR_AWAY);
    pmu_clear();
    check_end("threshold: FREEZE_PERFMON_ON_PMI stops all at the record");

    check_begin();
    pebs_init(full_cfg(), 1);
    ds_area[DS_MAXIMUM] = ds_area[DS_BASE] + 3 * size - 1;
    fill(buffer, 4 * size);
    *reset_slot(ds_area, 0) = -2ull;
    set_counter(0, e, SEL_USR | adaptive(), -2ull);
    pmi_expected();
    pmi_rearm = true;
    seq_run(&sc->seq, true, 1);
    check_equal("PEBS index", ds_area[DS_INDEX] - ds_area[DS_BASE], 2 * size);
    check_equal("beyond", is_filled(buffer + 2 * size, 2 * size), true);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), OVF_BUF);
    check_equal("interrupts", pmi_count, n / 2 - 2);
    check_equal("return address", pmi_rip, nth_step(e, SEL_USR, 6)->next);
    check_equal("counter", rdmsr(MSR_PMC0) | ~COUNTER_MASK,
                -(uint64_t)(2 - n % 2));
    pmu_clear();
    check_end("buffer full: the record is lost, the index stays");

    check_begin();
    pebs_init(full_cfg(), 1);
    ds_area[DS_MAXIMUM] = ds_area[DS_BASE] + size;
    set_counter(0, e, SEL_USR | adaptive(), -2ull);
    seq_run(&sc->seq, true, 1);
    check_equal("PEBS index", ds_area[DS_INDEX] - ds_area[DS_BASE], size);
    pmu_clear();
    check_end("buffer full: a record may end where the buffer does");
    scenario_end();
}

/* ---- memory ---- */

/* Sample once; returns how far the index went. */
static uint64_t sample_once(const Scenario *sc, uint64_t ds)
{
    set_counter(0, &events[EV_INSN], SEL_USR | adaptive(), -9ull);
    wrmsr(MSR_DS_AREA, ds);
    pmi_expected();
    seq_run(&sc->seq, true, 1);
    return rdmsr(MSR_PMC0);
}

static void expect_sample(const Scenario *sc, const uint64_t *ds,
                          const uint8_t *at)
{
    uint64_t start = ds[DS_INDEX];

    sample_once(sc, (uintptr_t)ds);
    check_equal("PEBS index", ds[DS_INDEX] - start, record_size(full_cfg()));
    expect_record(at, nth_step(&events[EV_INSN], SEL_USR, 9), full_cfg(), 1);
}

/* Neither record nor fault nor PMI, and execution goes on. */
static void expect_no_sample(const Scenario *sc, const uint64_t *ds)
{
    uint64_t start = ds[DS_INDEX], n = expected_count(&events[EV_INSN],
                                                      SEL_USR);

    check_equal("counter, reloaded", sample_once(sc, (uintptr_t)ds),
                FAR_AWAY + n - 9);
    check_equal("PEBS index", ds[DS_INDEX], start);
    check_equal("interrupts", pmi_count, 0);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), 0);
}

static uint64_t *init_at(uint64_t base, uint64_t size)
{
    pebs_init(full_cfg(), 1);
    ds_init(ds_area, base, size);
    return ds_area;
}

static void check_pages(void)
{
    const Scenario *sc = find_scenario("arithmetic");
    unsigned size = record_size(full_cfg());
    uint64_t at = PAGES_AT + PAGE - 24;
    uint8_t *first = frames[4] + PAGE - 24, *second = frames[2];
    uint64_t *ds;

    scenario_begin(sc, true);

    check_begin();
    map_page(0, frames[4], PAGE_P | PAGE_W);
    map_page(1, frames[2], PAGE_P | PAGE_W);
    fill(frames, sizeof(frames));
    expect_sample(sc, init_at(at, 2 * size), (uint8_t *)at);
    check_equal("first page, before", is_filled(frames[4], PAGE - 24), true);
    check_equal("second page, behind",
                is_filled(second + size - 24, PAGE - size + 24), true);
    check_equal("IP, in the first page", q(first + 8),
                nth_step(&events[EV_INSN], SEL_USR, 9)->ip);
    check_end("a record in two pages");

    check_begin();
    map_page(1, frames[2], 0);
    fill(frames, sizeof(frames));
    expect_no_sample(sc, init_at(at, 2 * size));
    check_equal("not a byte is written", is_filled(frames, sizeof(frames)),
                true);
    check_end("the second page isn't present: nothing is written");

    check_begin();
    map_page(1, frames[2], PAGE_P);
    expect_no_sample(sc, init_at(at, 2 * size));
    check_equal("not a byte is written", is_filled(frames, sizeof(frames)),
                true);
    map_page(0, frames[4], PAGE_P);
    expect_no_sample(sc, init_at(PAGES_AT, 2 * size));
    check_equal("not a byte is written", is_filled(frames, sizeof(frames)),
                true);
    check_end("a page is read-only: nothing is written");

    check_begin();
    write_cr(0, read_cr(0) & ~0x10000ull);
    expect_sample(sc, init_at(at, 2 * size), (uint8_t *)at);
    write_cr(0, read_cr(0) | 0x10000);
    check_end("a page is read-only, but CR0.WP clear: it is written");

    check_begin();
    map_page(0, frames[4], 0);
    fill(frames, sizeof(frames));
    expect_no_sample(sc, init_at(PAGES_AT + 512, 2 * size));
    check_equal("not a byte is written", is_filled(frames, sizeof(frames)),
                true);
    check_end("the buffer isn't mapped");

    check_begin();
    init_at((uintptr_t)buffer, 4 * size);
    fill(buffer, 4 * size);
    check_equal("counter goes on from 0", sample_once(sc, PAGES_AT + 512),
                expected_count(&events[EV_INSN], SEL_USR) - 9);
    check_equal("interrupts", pmi_count, 0);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), 0);
    check_equal("no record", is_filled(buffer, 4 * size), true);
    check_end("the DS area isn't mapped");

    check_begin();
    check_equal("counter", sample_once(sc, 0xffff800000000000ull),
                expected_count(&events[EV_INSN], SEL_USR) - 9);
    check_equal("counter", sample_once(sc, -64ull),
                expected_count(&events[EV_INSN], SEL_USR) - 9);
    check_equal("counter", sample_once(sc, 0x7fffffffffc0ull),
                expected_count(&events[EV_INSN], SEL_USR) - 9);
    check_equal("interrupts", pmi_count, 0);
    check_end("the DS area is at the end of the address space");

    check_begin();
    map_page(0, frames[4], PAGE_P | PAGE_W);
    ds_init((uint64_t *)PAGES_AT, (uintptr_t)buffer, 4 * size);
    map_page(0, frames[4], PAGE_P);
    expect_no_sample(sc, (uint64_t *)PAGES_AT);
    check_equal("no record", is_filled(buffer, 4 * size), true);
    check_end("the DS area is read-only: nothing is written");

    check_begin();
    map_page(0, frames[4], PAGE_P | PAGE_W);
    map_page(1, frames[2], PAGE_P | PAGE_W);
    for (unsigned i = 8; i <= 0x68; i += i == 0x68 ? 8 : 4) {
        /* the index itself, and the reset slots, in either page or both */
        ds = (uint64_t *)(PAGES_AT + PAGE - i);
        ds_init(ds, (uintptr_t)buffer, 4 * size);
        expect_sample(sc, ds, buffer);
        check_equal("counter", rdmsr(MSR_PMC0), FAR_AWAY +
                    expected_count(&events[EV_INSN], SEL_USR) - 9);
    }
    check_end("the DS area is in two pages");

    check_begin();
    map_page(1, frames[2], 0);
    ds = (uint64_t *)(PAGES_AT + PAGE - 0x40);
    for (unsigned i = 0; i < 8; i++) {
        ds[i] = 0;
    }
    ds[DS_BASE] = ds[DS_INDEX] = (uintptr_t)buffer;
    ds[DS_MAXIMUM] = ds[DS_THRESHOLD] = (uintptr_t)buffer + 4 * size;
    fill(buffer, 4 * size);
    check_equal("counter goes on from 0", sample_once(sc, (uintptr_t)ds),
                expected_count(&events[EV_INSN], SEL_USR) - 9);
    expect_record(buffer, nth_step(&events[EV_INSN], SEL_USR, 9), full_cfg(),
                  1);
    check_end("the reset slots aren't mapped: a record, but no reset");

    check_begin();
    map_page(0, (void *)0x1234567000, PAGE_P | PAGE_W);
    expect_no_sample(sc, init_at(PAGES_AT + 512, 2 * size));
    check_end("a buffer where there is no RAM");

    check_begin();
    map_page(0, (void *)0xfee00000, PAGE_P | PAGE_W);
    expect_no_sample(sc, init_at(PAGES_AT + 512, 2 * size));
    expect_no_sample(sc, init_at(0xfee00400, 2 * size));
    check_end("a buffer in a device: the record is dropped");

    check_begin();
    {
        uint8_t rom[64];

        memcpy(rom, (void *)0xfffff000, sizeof(rom));
        expect_no_sample(sc, init_at(0xfffff000, 2 * size));
        check_equal("ROM", equal_bytes(rom, (void *)0xfffff000, sizeof(rom)),
                    true);
    }
    check_end("a buffer in ROM: the record is dropped");
    map_page(0, NULL, 0);
    pmu_clear();
    scenario_end();
}

static void check_malformed(void)
{
    const Scenario *sc = find_scenario("arithmetic");
    unsigned size = record_size(full_cfg());
    uint64_t *ds;

    scenario_begin(sc, true);
    check_begin();
    ds = init_at((uintptr_t)buffer + 4096, 4096);
    fill(buffer, 16384);
    ds[DS_INDEX] -= 8;
    expect_no_sample(sc, ds);
    ds[DS_INDEX] = 0;
    expect_no_sample(sc, ds);
    check_equal("no record", is_filled(buffer, 16384), true);
    check_end("index below the base");

    check_begin();
    ds = init_at((uintptr_t)buffer + 4096, 4096);
    ds[DS_INDEX] += 4097;
    expect_no_sample(sc, ds);
    ds[DS_INDEX] = -8ull;
    expect_no_sample(sc, ds);
    check_equal("no record", is_filled(buffer, 16384), true);
    check_end("index beyond the maximum");

    check_begin();
    ds = init_at((uintptr_t)buffer, 4096);
    ds[DS_MAXIMUM] = -1ull;
    ds[DS_THRESHOLD] = -1ull;
    for (unsigned i = 1; i <= size; i += 31) {
        ds[DS_INDEX] = -(uint64_t)i;
        sample_once(sc, (uintptr_t)ds);
        check_equal("PEBS index", ds[DS_INDEX], -(uint64_t)i);
    }
    check_end("index near the end of the address space");

    check_begin();
    ds = init_at(0x7ffffffff000, 1ull << 62);
    expect_no_sample(sc, ds);
    ds[DS_INDEX] = 0x800000000000 - 8;
    expect_no_sample(sc, ds);
    ds[DS_INDEX] = 0x800000000000;
    expect_no_sample(sc, ds);
    check_end("a buffer that isn't canonical");

    check_begin();
    ds = init_at((uintptr_t)buffer + 3, 4096);
    expect_sample(sc, ds, buffer + 3);
    check_end("a buffer that isn't aligned");
    pmu_clear();
    scenario_end();
}

static void check_watchpoint(void)
{
    const Scenario *sc = find_scenario("arithmetic");

    scenario_begin(sc, true);
    check_begin();
    handlers[1] = count_debug;
    debug_count = 0;
    init_at((uintptr_t)buffer, 4096);
    write_dr(0, (uintptr_t)buffer);
    write_dr(1, (uintptr_t)&ds_area[DS_INDEX]);
    write_dr(2, (uintptr_t)reset_slot(ds_area, 0));
    write_dr(3, (uintptr_t)buffer + 16);
    /* all global; 0, 1: writes, 2: accesses, 3: accesses; of 8 bytes */
    write_dr(7, 0x400 | 0xaa | 0xfb99ull << 16);
    sample_once(sc, (uintptr_t)ds_area);
    check_equal("debug exceptions", debug_count, 0);
    asm volatile("movb $0, %0" : "=m"(buffer[16]));
    write_dr(7, 0x400);
    handlers[1] = debug_handler;
    check_equal("debug exceptions by a store of the guest's", debug_count, 1);
    *(uint64_t *)(buffer + 16) = 1;
    check_equal("PEBS index", ds_area[DS_INDEX], (uintptr_t)buffer +
                record_size(full_cfg()));
    expect_record(buffer, nth_step(&events[EV_INSN], SEL_USR, 9), full_cfg(),
                  1);
    pmu_clear();
    scenario_end();
    check_end("watchpoints on the buffer and the DS area don't fire");
}

/* CPL 3 has one page, SMAP is on, all else is the supervisor's. */
asm("   .text\n"
    "smap_code:\n"
    "   mov $7, %eax\n"
    "   add %eax, %eax\n"
    "smap_end:\n"
    "   int $0x81\n"
    "   .skip 64\n");
ASM_LABEL(smap_code);
ASM_LABEL(smap_end);

static void check_smap(void)
{
    static const Sequence seq = { NULL, (uint8_t *)PAGES_AT, NULL };
    unsigned size = record_size(full_cfg());
    uint32_t r[4];

    cpuid(7, 0, r);
    check_begin();
    check_equal("the CPU has SMAP", r[1] >> 20 & 1, 1);
    memcpy(frames[0], smap_code, 64);
    map_page(0, frames[0], PAGE_P | PAGE_U);
    /* 4 GiB, but for the pages at 1 GiB */
    for (unsigned gib = 0; gib < 4; gib++) {
        for (unsigned i = gib == 1; i < 512; i++) {
            page_directory(gib)[i] &= ~PAGE_U;
        }
    }
    write_cr(4, read_cr(4) ^ 0x80);     /* CR4.PGE: flush all */
    write_cr(4, (read_cr(4) ^ 0x80) | 1 << 21);

    init_at((uintptr_t)buffer, 4096);
    fill(buffer, 2 * size);
    set_counter(0, &events[EV_INSN], SEL_USR | adaptive(), -2ull);
    seq_run(&seq, true, 1);
    check_equal("PEBS index", ds_area[DS_INDEX], (uintptr_t)buffer + size);
    check_equal("IP", q(buffer + 8), PAGES_AT + 5);
    check_equal("beyond", is_filled(buffer + size, size), true);

    write_cr(4, read_cr(4) & ~(1ull << 21));
    for (unsigned gib = 0; gib < 4; gib++) {
        for (unsigned i = gib == 1; i < 512; i++) {
            page_directory(gib)[i] |= PAGE_U;
        }
    }
    write_cr(4, read_cr(4) ^ 0x80);
    write_cr(4, read_cr(4) ^ 0x80);
    map_page(0, NULL, 0);
    pmu_clear();
    check_end("CPL 3 with SMAP, and a buffer that only the supervisor has");
}

/* A record overwrites code that has been executed. */
static void check_code(void)
{
    static const uint8_t returns_1[] = { 0xb8, 1, 0, 0, 0, 0xc3 };
    static const uint8_t returns_2[] = { 0xb8, 2, 0, 0, 0, 0xc3 };
    const Scenario *sc = find_scenario("branches");
    unsigned xmm0 = record_size(CFG_ALL) - XMM_SIZE;
    int (*code)(void) = (int (*)(void))(uintptr_t)(buffer + xmm0);

    scenario_begin(sc, true);
    check_begin();
    for (unsigned i = 0; i < 3; i++) {
        memcpy(buffer + xmm0, returns_1, sizeof(returns_1));
        check_equal("code", code(), 1);
        init_at((uintptr_t)buffer, 4096);
        set_counter(0, &events[EV_INSN], SEL_USR | SEL_ADAPT, -9ull);
        /* seq_run() would set other registers */
        reset_data();
        memcpy(seq_xmm[0], returns_2, sizeof(returns_2));
        seq_user = 1;
        seq_trace = 0;
        seq_rflags = 2;
        seq_mask = 1;
        seq_entry = (uintptr_t)sc->seq.start;
        seq_end = (uintptr_t)sc->seq.end;
        seq_enter();
        check_equal("PEBS index", ds_area[DS_INDEX], (uintptr_t)buffer +
                    record_size(CFG_ALL));
        check_equal("code", code(), 2);
    }
    pmu_clear();
    scenario_end();
    check_end("a record over code that was translated");
}

/*
 * Bit 32 + n enables load latency on counter n, where it isn't that of a fixed
 * counter: Linux's intel_pmu_pebs_enable() below version 5.
 */
static void check_latency_enable(void)
{
    static const Event latency = { "load latency", 0x01cd, K_LOAD };
    const Scenario *sc = find_scenario("memory");
    unsigned loads;

    scenario_begin(sc, true);
    loads = expected_count(&latency, SEL_USR);
    check_begin();
    pebs_init(0, 1ull << 32 | 1);
    *reset_slot(ds_area, 0) = -1ull;
    set_counter(0, &latency, SEL_USR, -1ull);
    wrmsr(MSR_FIXED_CTRL, 2);
    wrmsr(MSR_FIXED0, COUNTER_MASK);
    seq_run(&sc->seq, true, FIXED_BIT(0) | 1);
    check_equal("PEBS index", ds_area[DS_INDEX] - ds_area[DS_BASE],
                loads * BASIC_SIZE);
    for (unsigned i = 0; i < loads; i++) {
        expect_record(buffer + i * BASIC_SIZE,
                      nth_step(&latency, SEL_USR, i + 1), 0, 1);
    }
    check_equal("fixed counter 0 overflows as ever", rdmsr(MSR_STATUS),
                FIXED_BIT(0));
    pmu_clear();
    check_end("load latency enabled in the upper half of PEBS_ENABLE");
    scenario_end();
}

static void check_enable(void)
{
    const Scenario *sc = find_scenario("arithmetic");

    scenario_begin(sc, true);
    check_begin();
    pebs_init(full_cfg(), 2);
    set_counter(0, &events[EV_INSN], SEL_USR | adaptive() | SEL_INT, -9ull);
    pmi_expected();
    seq_run(&sc->seq, true, 1);
    check_equal("PEBS index", ds_area[DS_INDEX], ds_area[DS_BASE]);
    check_equal("interrupts", pmi_count, 1);
    check_equal("GLOBAL_STATUS", pmi_status, 1);
    pmu_clear();
    check_end("a counter that isn't in PEBS_ENABLE overflows as ever");
    scenario_end();
}

/* ---- interrupts beside samples ---- */

#define BESIDE_PERIOD   2017        /* instructions; a round has two */
#define BESIDE_TICKS    2000
#define BESIDE_EVERY    20011       /* of 1 ns */
#define BESIDE_LEAST    50          /* to one that comes before a sample */

static uint32_t beside_due __attribute__((used));

/* Counts interrupts, and those where a sample is due in the next round. */
asm("   .text\n"
    "beside_tick:\n"
    "   push %rax\n"
    "   push %rcx\n"
    "   push %rdx\n"
    "   xor %ecx, %ecx\n"
    "   rdpmc\n"
    "   add $2, %eax\n"
    "   adcl $0, beside_due(%rip)\n"
    "   pop %rdx\n"
    "   pop %rcx\n"
    "   pop %rax\n"
    "   jmp tick\n");
ASM_LABEL(beside_tick);

SEQUENCE(beside,
    "1:\n"
    L("cmpl $" STRING(BESIDE_TICKS) ", ticks(%rip)")
    COND("jb 1b"));
static const Sequence beside_seq = SEQ(beside);

static void run_beside(void)
{
    ticks = beside_due = 0;
    timer_start(beside_tick, BESIDE_EVERY);
    seq_trace = 0;
    seq_mask = 3;
    seq_entry = (uintptr_t)beside;
    seq_go(&beside_seq, true, FLAG_IF);
    timer_stop();
}

/*
 * What a sample costs has to lie between two instructions, but not before the
 * one that is sampled: Linux never starts a counter one event before it
 * overflows, so that a task switch there moves all later samples.
 */
static void check_beside(void)
{
    uint64_t counted;

    check_begin();
    pebs_init(0, 1);
    *reset_slot(ds_area, 0) = -(uint64_t)BESIDE_PERIOD;
    set_counter(0, &events[EV_INSN], SEL_USR | adaptive(),
                -(uint64_t)BESIDE_PERIOD);
    set_counter(1, &events[EV_INSN], SEL_USR, 0);
    run_beside();
    check_equal("interrupts enough", ticks >= BESIDE_TICKS, true);
    check_equal("more than one in so many", beside_due > ticks / BESIDE_LEAST,
                false);
    /* All samples were there, none came early or late. */
    counted = rdmsr(MSR_PMC0 + 1);
    check_equal("a thousand samples and more",
                counted > 1000 * BESIDE_PERIOD, true);
    check_equal("since the last sample",
                (rdmsr(MSR_PMC0) + BESIDE_PERIOD) & COUNTER_MASK,
                counted % BESIDE_PERIOD);
    pmu_clear();
    check_end("of %d interrupts few come right before a sample (%d)",
              (int)ticks, (int)beside_due);
}

/*
 * Records that depend on when each interrupt comes: CPL 3 works and halts by
 * turns, each halt until there is one
 */
#define DUMP_HALTS      20
#define DUMP_EVERY      50000       /* of 1 ns */

asm("   .text\n"
    "halt_sysret:\n"
    "   sti\n"
    "   hlt\n"
    "   cli\n"
    "   sysretq\n");
ASM_LABEL(halt_sysret);

SEQUENCE(working,
    N("mov $" STRING(DUMP_HALTS) ", %ebp")
    "1:\n"
    N("mov $200, %ebx")
    "2:\n"
    LS("addl $3, (%rdi)")
    N("dec %ebx")
    COND("jnz 2b")
    FAR("syscall")
    N("dec %ebp")
    COND("jnz 1b"));
static const Sequence working_seq = SEQ(working);

static void sample_ticks(void)
{
    static const uint64_t periods[] = { 37, 23 };

    wrmsr(MSR_LSTAR, (uintptr_t)halt_sysret);
    pebs_init(CFG_MEM | CFG_GPR, 3);
    for (unsigned i = 0; i < 2; i++) {
        *reset_slot(ds_area, i) = -periods[i];
        set_counter(i, &events[i ? EV_LOADS : EV_INSN],
                    (i ? SEL_USR : SEL_BOTH) | SEL_ADAPT, -periods[i]);
    }
    timer_start(tick, DUMP_EVERY);
    seq_trace = 0;
    seq_mask = 3;
    seq_entry = (uintptr_t)working;
    seq_go(&working_seq, true, FLAG_IF);
    apic_write(APIC_INITIAL, 0);
}

static void dump(const char *what, const void *from, const void *to)
{
    for (const uint64_t *at = from; at < (const uint64_t *)to; at++) {
        ml_printf("%s 0x%llx\n", what, (unsigned long long)*at);
    }
}

static int dump_records(void)
{
    sample_ticks();
    dump("DS area", ds_area, ds_area + 64);
    dump("record", buffer, (void *)(uintptr_t)ds_area[DS_INDEX]);
    for (unsigned i = 0; i < 2; i++) {
        ml_printf("counter %llx\n",
                  (unsigned long long)rdmsr(MSR_PMC0 + i));
    }
    return 0;
}

int main(void)
{
    uint32_t r[4];

    pmu_test_init();
    cpuid(1, 0, r);
    if (!has_pmu() || !(r[3] >> 21 & 1)) {
        ml_printf("1..0 # SKIP no PEBS: run with "
                  "-cpu Icelake-Server,pebs=on\n");
        return 0;
    }
    pmu_clear();
    handlers[2] = pmi_handler;
    if (config.dump) {
        return dump_records();
    }

    for_scenarios(check_scenario);
    if (config.baseline) {
        check_groups();
        check_lbr_group();
        check_addresses();
        check_boundaries();
        check_code();
    }
    check_not_adaptive();
    check_tsc();
    check_index_seen();
    check_reload();
    check_several();
    check_threshold();
    check_pages();
    check_malformed();
    check_watchpoint();
    check_smap();
    check_enable();
    if (!config.baseline) {
        check_latency_enable();
    }
    check_beside();
    return tap_end();
}
