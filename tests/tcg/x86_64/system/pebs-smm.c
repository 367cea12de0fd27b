/*
 * The emulated PMU and PEBS in system management mode
 *
 * SMM has an address space of its own and no paging: nothing of PEBS may reach
 * memory there.  A record that falls due waits for RSM.
 *
 * The SMI handler is one of this program's, put into the SMRAM that SeaBIOS
 * has set up at 0xa0000.  Run with -cpu Icelake-Server,pebs=on -machine pc
 * -device VGA: what lies there outside SMM has to be a device.
 * With other properties say so with -append: baseline=off, format=N, gp=N.
 * With -append until-key the handler stays in SMM until port 0xb3 reads 0x55,
 * which the monitor can write: for snapshots and migration.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "pebs-test.h"

#define SMRAM           0xa0000ul
#define SMI_ENTRY       (SMRAM + 0x8000)
#define SMI_COUNT       (SMRAM + 0x9f00)
/* Save state: RIP, in the layout of a CPU with long mode */
#define SMI_SAVED_RIP   (SMRAM + 0xff78)
/* In SMRAM, free of the handler and its state */
#define SMRAM_FREE      (SMRAM + 0x9000)
#define SMRAM_FREE_SIZE 0x800

#define APM_CONTROL     0xb2        /* a write raises an SMI */
#define APM_STATUS      0xb3        /* a scratch register beside it */

/* What is counted before the handler's first instruction: see smi_go() */
#define BEFORE_SMI      3
#define HANDLER_INSNS   34

#define SMI_HANDLER(name, body)                                 \
    asm("   .text\n"                                            \
        "   .code16\n"                                          \
        #name ":\n"                                             \
        "   incl %cs:0x9f00\n"                                  \
        "   .rept 32\n"                                         \
        "   nop\n"                                              \
        "   .endr\n"                                            \
        body                                                    \
        "   rsm\n"                                              \
        #name "_end:\n"                                         \
        "   .code64\n")

SMI_HANDLER(smi_plain, "");
ASM_LABEL(smi_plain);
ASM_LABEL(smi_plain_end);

SMI_HANDLER(smi_switches_off,
    "   mov $" STRING(MSR_PEBS_ENABLE) ", %ecx\n"
    "   xor %eax, %eax\n"
    "   xor %edx, %edx\n"
    "   wrmsr\n");
ASM_LABEL(smi_switches_off);
ASM_LABEL(smi_switches_off_end);

/* RSM brings back the registers. */
SMI_HANDLER(smi_holds,
    "1: in $0xb3, %al\n"
    "   cmp $0x55, %al\n"
    "   jne 1b\n");
ASM_LABEL(smi_holds);
ASM_LABEL(smi_holds_end);

/* ---- SMRAM ---- */

/* 0xa: closed, but for SMM; 0x4a: open to all.  82441FX, "SMRAMC". */
static void set_smramc(uint8_t value)
{
    asm volatile("outl %0, %w1" : : "a"(0x80000070), "d"(0xcf8));
    outb(0xcfe, value);
}

static void smram_open(void)
{
    set_smramc(0x4a);
}

static void smram_close(void)
{
    set_smramc(0x0a);
}

static void set_handler(const uint8_t *start, const uint8_t *end)
{
    smram_open();
    memcpy((void *)SMI_ENTRY, start, end - start);
    fill((void *)SMRAM_FREE, SMRAM_FREE_SIZE);
    memset((void *)SMI_COUNT, 0, 4);
    smram_close();
}

static uint64_t smram_read(uint64_t at)
{
    uint64_t value;

    smram_open();
    memcpy(&value, (void *)at, sizeof(value));
    smram_close();
    return value;
}

static bool is_smram_free_intact(void)
{
    bool intact;

    smram_open();
    intact = is_filled((void *)SMRAM_FREE, SMRAM_FREE_SIZE);
    smram_close();
    return intact;
}

/* ---- an SMI, with counters on ---- */

ASM_LABEL(smi_behind);

/*
 * Counted at CPL 0: WRMSR, MOV and OUT; the handler, if that raises an SMI;
 * eight NOPs, three MOVs.
 */
static void smi_go(uint16_t port, uint64_t mask)
{
    asm volatile("wrmsr\n"
                 "mov %w3, %%dx\n"
                 "outb %%al, %%dx\n"
                 "smi_behind:\n"
                 ".rept 8\n"
                 "nop\n"
                 ".endr\n"
                 "mov $0x38f, %%ecx\n"
                 "mov $0, %%eax\n"
                 "mov $0, %%edx\n"
                 "wrmsr"
                 : "+c"((uint32_t){ MSR_GLOBAL_CTRL }),
                   "+a"((uint32_t){ mask }), "+d"((uint32_t){ mask >> 32 })
                 : "r"(port) : "memory");
}

#define COUNTED_WITHOUT_SMI     (BEFORE_SMI + 8 + 3)

static void expect_smi(void)
{
    check_equal("SMIs", smram_read(SMI_COUNT) & 0xffffffff, 1);
    check_equal("the SMI comes behind OUT", smram_read(SMI_SAVED_RIP),
                (uintptr_t)smi_behind);
}

/* ---- counting ---- */

static uint64_t count(uint64_t privs, uint16_t port)
{
    uint64_t value;

    set_counter(0, &events[EV_INSN], privs, 0);
    smi_go(port, 1);
    value = rdmsr(MSR_PMC0);
    pmu_clear();
    return value;
}

static void check_counting(void)
{
    check_begin();
    set_handler(smi_plain, smi_plain_end);
    check_equal("without an SMI", count(SEL_OS, APM_STATUS),
                COUNTED_WITHOUT_SMI);
    check_equal("with one", count(SEL_OS, APM_CONTROL),
                COUNTED_WITHOUT_SMI + HANDLER_INSNS);
    expect_smi();
    check_equal("at CPL 3", count(SEL_USR, APM_CONTROL), 0);
    check_end("SMM counts as CPL 0");

    check_begin();
    set_handler(smi_plain, smi_plain_end);
    wrmsr(MSR_DEBUGCTL, DEBUGCTL_FREEZE_IN_SMM);
    check_equal("without an SMI", count(SEL_OS, APM_STATUS),
                COUNTED_WITHOUT_SMI);
    wrmsr(MSR_DEBUGCTL, DEBUGCTL_FREEZE_IN_SMM);
    check_equal("with one", count(SEL_OS, APM_CONTROL), COUNTED_WITHOUT_SMI);
    expect_smi();
    check_end("FREEZE_WHILE_SMM: nothing of SMM counts");
}

/* ---- records ---- */

static uint64_t ds_frame[512] __attribute__((aligned(4096)));
static uint8_t buffer_frame[4096] __attribute__((aligned(4096)));
static uint64_t high_directory[512] __attribute__((aligned(4096)));
static uint64_t high_table[512] __attribute__((aligned(4096)));

/*
 * Pages above 4 GiB, whose low 32 bits are the address of RAM: that is where
 * an address ends up that is cut, and not translated.
 */
#define HIGH            0x100000000ull

static uint8_t decoys[2][4096] __attribute__((aligned(4096)));

static uint64_t map_high(const void *decoy, const void *frame)
{
    uint64_t at = (uintptr_t)decoy;

    high_directory[at >> 21 & 511] = (uintptr_t)high_table | PAGE_P | PAGE_W;
    high_table[at >> 12 & 511] = (uintptr_t)frame | PAGE_P | PAGE_W | PAGE_AD;
    return HIGH + at;
}

static void init_high(void)
{
    uint64_t *pointers = next_table((uint64_t *)(read_cr(3) & ~0xfffull), 0);

    if ((uintptr_t)decoys[0] >> 21 != (uintptr_t)decoys[1] >> 21) {
        ml_printf("Bail out! the decoys need one page table\n");
        quit(2);
    }
    pointers[4] = (uintptr_t)high_directory | PAGE_P | PAGE_W;
}

static uint64_t sample_cfg(void)
{
    return config.baseline ? CFG_GPR : 0;
}

/* An empty buffer at @buffer, a linear address, with room for 8 records */
static void pebs_init(uint64_t buffer)
{
    fill(buffer_frame, sizeof(buffer_frame));
    fill(decoys, sizeof(decoys));
    ds_init(ds_frame, buffer, 8 * record_size(sample_cfg()));
    wrmsr(MSR_DS_AREA, map_high(decoys[0], ds_frame));
    if (config.baseline) {
        wrmsr(MSR_PEBS_DATA_CFG, sample_cfg());
    }
    wrmsr(MSR_PEBS_ENABLE, 1);
}

/* Counter 0 samples the @n-th instruction from the WRMSR on. */
static void sample(unsigned n)
{
    set_counter(0, &events[EV_INSN],
                SEL_OS | (config.baseline ? SEL_ADAPT : 0), -(uint64_t)n);
    smi_go(APM_CONTROL, 1);
}

static uint64_t buffer_word(unsigned i)
{
    return ((uint64_t *)buffer_frame)[i];
}

/*
 * A record of the instruction at @ip, made where @next is the next one.
 * Counting starts over there, and counts @behind instructions.
 */
static void expect_one_record(uint64_t ip, uint64_t next, unsigned behind)
{
    unsigned size = record_size(sample_cfg());

    check_equal("records", (ds_frame[DS_INDEX] - ds_frame[DS_BASE]) / size, 1);
    check_equal("format and size", buffer_word(0),
                sample_cfg() | (uint64_t)size << 48);
    check_equal("IP", buffer_word(1), ip);
    check_equal("counters", buffer_word(2), 1);
    if (config.baseline) {
        check_equal("IP of the next instruction", buffer_word(5), next);
    }
    check_equal("the counter", rdmsr(MSR_PMC0), FAR_AWAY + behind);
    check_equal("nothing is written where it isn't mapped",
                is_filled(decoys, sizeof(decoys)), true);
    check_equal("SMRAM", is_smram_free_intact(), true);
}

static void check_waiting(void)
{
    check_begin();
    for (unsigned n = 1; n <= HANDLER_INSNS; n++) {
        set_handler(smi_plain, smi_plain_end);
        pebs_init(map_high(decoys[1], buffer_frame));
        sample(BEFORE_SMI + n);
        expect_smi();
        /* No address of SMM's is in it. */
        expect_one_record((uintptr_t)smi_behind, (uintptr_t)smi_behind, 8 + 3);
        pmu_clear();
    }
    check_end("an overflow in SMM makes its record right after RSM");

    check_begin();
    set_handler(smi_plain, smi_plain_end);
    pebs_init(map_high(decoys[1], buffer_frame));
    sample(BEFORE_SMI);
    expect_smi();
    expect_one_record((uintptr_t)smi_behind - 1, (uintptr_t)smi_behind,
                      HANDLER_INSNS + 8 + 3);
    pmu_clear();
    check_end("one right before an SMI makes its record before it");

    check_begin();
    set_handler(smi_switches_off, smi_switches_off_end);
    pebs_init(map_high(decoys[1], buffer_frame));
    sample(BEFORE_SMI + 8);
    check_equal("records", ds_frame[DS_INDEX] - ds_frame[DS_BASE], 0);
    wrmsr(MSR_PEBS_ENABLE, 1);
    set_handler(smi_plain, smi_plain_end);
    smi_go(APM_CONTROL, 1);
    check_equal("records, later", ds_frame[DS_INDEX] - ds_frame[DS_BASE], 0);
    pmu_clear();
    check_end("what the handler switches off makes none");

    check_begin();
    set_handler(smi_plain, smi_plain_end);
    pebs_init(map_high(decoys[1], buffer_frame));
    wrmsr(MSR_DEBUGCTL, DEBUGCTL_FREEZE_IN_SMM);
    sample(BEFORE_SMI + 8);
    expect_one_record((uintptr_t)smi_behind + 7, (uintptr_t)smi_behind + 8, 3);
    pmu_clear();
    check_end("FREEZE_WHILE_SMM: the eighth behind it is sampled");
}

/* What lies in SMRAM lies elsewhere for whoever isn't in SMM. */
static void check_smram(void)
{
    check_begin();
    for (unsigned n = 1; n <= BEFORE_SMI + HANDLER_INSNS + 8; n++) {
        set_handler(smi_plain, smi_plain_end);
        pebs_init(SMRAM_FREE);
        /* at an address that leads there without paging, too */
        wrmsr(MSR_DS_AREA, (uintptr_t)ds_frame);
        sample(n);
        check_equal("index", ds_frame[DS_INDEX], SMRAM_FREE);
        check_equal("SMRAM", is_smram_free_intact(), true);
        pmu_clear();
    }
    check_end("a buffer at an address of SMRAM's reaches no SMRAM");

    check_begin();
    for (unsigned n = 1; n <= BEFORE_SMI + HANDLER_INSNS + 8; n++) {
        set_handler(smi_plain, smi_plain_end);
        pebs_init(map_high(decoys[1], buffer_frame));
        smram_open();
        memcpy((void *)SMRAM_FREE, ds_frame, DS_SIZE);
        smram_close();
        wrmsr(MSR_DS_AREA, SMRAM_FREE);
        sample(n);
        check_equal("index", smram_read(SMRAM_FREE + DS_INDEX * 8),
                    ds_frame[DS_INDEX]);
        check_equal("buffer", buffer_word(0), 0xeeeeeeeeeeeeeeeeull);
        pmu_clear();
    }
    check_end("a DS area in SMRAM is out of reach");
}

/* ---- interrupts ---- */

static unsigned pmi_count;
static uint64_t pmi_rip, pmi_status;

static void pmi_handler(Frame *f)
{
    pmi_count++;
    pmi_rip = f->rip;
    pmi_status = rdmsr(MSR_STATUS);
}

static void expect_pmi_behind_smi(uint64_t status)
{
    check_equal("PMIs", pmi_count, 1);
    check_equal("return address", pmi_rip, (uintptr_t)smi_behind);
    check_equal("GLOBAL_STATUS", pmi_status, status);
}

static void check_interrupts(void)
{
    check_begin();
    for (unsigned n = 1; n <= HANDLER_INSNS; n++) {
        set_handler(smi_plain, smi_plain_end);
        pmi_count = 0;
        apic_write(APIC_LVTPC, APIC_NMI);
        set_counter(0, &events[EV_INSN], SEL_OS | SEL_INT,
                    -(uint64_t)(BEFORE_SMI + n));
        smi_go(APM_CONTROL, 1);
        expect_smi();
        expect_pmi_behind_smi(1);
        pmu_clear();
    }
    check_end("a PMI of an overflow in SMM waits for RSM");

    check_begin();
    for (unsigned n = 1; n <= HANDLER_INSNS; n++) {
        set_handler(smi_plain, smi_plain_end);
        pebs_init(map_high(decoys[1], buffer_frame));
        ds_frame[DS_THRESHOLD] = ds_frame[DS_BASE] +
                                 record_size(sample_cfg());
        pmi_count = 0;
        apic_write(APIC_LVTPC, APIC_NMI);
        sample(BEFORE_SMI + n);
        expect_smi();
        expect_pmi_behind_smi(OVF_BUF);
        pmu_clear();
    }
    check_end("so does that of a PEBS buffer");
}

/* ---- */

static void hold(void)
{
    check_begin();
    set_handler(smi_holds, smi_holds_end);
    pebs_init(map_high(decoys[1], buffer_frame));
    outb(APM_STATUS, 0);
    ml_printf("# holds in SMM until port 0xb3 reads 0x55\n");
    sample(BEFORE_SMI + 8);
    expect_smi();
    expect_one_record((uintptr_t)smi_behind, (uintptr_t)smi_behind, 8 + 3);
    check_end("an overflow that waits for RSM outlasts what is done then");
}

int main(void)
{
    pmu_test_init();
    handlers[2] = pmi_handler;
    init_high();
    pmu_clear();
    if (config.until_key) {
        hold();
        return tap_end();
    }
    check_counting();
    check_waiting();
    check_smram();
    check_interrupts();
    return tap_end();
}
