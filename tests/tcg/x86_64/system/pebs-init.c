/*
 * PEBS and counters over INIT
 *
 * INIT leaves counters and MSRs as they are: SDM, volume 3A, "Processor State
 * Following Power-up, Reset, or INIT".  The second vCPU samples in long mode,
 * gets an INIT, and goes on in real mode, where a SIPI starts it.  What it
 * runs is a list, so every count and every record is known beforehand.
 *
 * Run with -cpu Icelake-Server,pebs=on -smp 2.  With -append until-key it
 * waits for a key at each line that begins with "# now", which tells what the
 * second vCPU does and how many records it has made.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

/* Much of what the tests share is for sequences, which aren't needed here. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

#include "pebs-test.h"

#define RECORD_CFG      CFG_GPR
#define RECORD_SIZE     (BASIC_SIZE + GPR_SIZE)
#define PERIOD          3
#define SPIN_PERIOD     10000000
#define MAX_RECORDS     4096

/* Where a SIPI starts the second vCPU: for long mode, and for real mode */
#define AT_LONG         0x8000
#define AT_REAL         0x9000
#define REAL_SEGMENT    0x900
#define REAL_STACK      0x800

#define APIC_ICR        0x300
#define ICR_OTHERS      0xc4000     /* all but this one */
#define ICR_NMI         (ICR_OTHERS | 0x400)
#define ICR_INIT        (ICR_OTHERS | 0x500)
#define ICR_SIPI(at)    (ICR_OTHERS | 0x600 | (at) >> 12)

#define LONG_ENOUGH     500000000   /* ticks, for a vCPU to halt, or be reset */

typedef volatile uint64_t SharedWord;   /* the other vCPU's, too */
typedef volatile uint32_t SharedHalf;   /* the same */
typedef volatile uint8_t SharedByte;    /* the same */

static SharedWord ds_area[DS_SIZE / 8] __attribute__((aligned(4096)));
static uint8_t buffer[MAX_RECORDS * RECORD_SIZE] __attribute__((aligned(4096)));
static uint8_t second_stack[16384] __attribute__((used, aligned(16)));

static SharedHalf long_ready __attribute__((used));
static SharedHalf long_spin __attribute__((used));
static SharedHalf long_rounds __attribute__((used));
static uint32_t long_cell __attribute__((used));
static uint64_t period;
static unsigned records_earlier;    /* before the buffer was emptied */

/* ---- the second vCPU ---- */

static void __attribute__((used)) set_counters(void)
{
    wrmsr(MSR_GLOBAL_CTRL, 0);
    wrmsr(MSR_DS_AREA, (uintptr_t)ds_area);
    wrmsr(MSR_PEBS_DATA_CFG, RECORD_CFG);
    wrmsr(MSR_PEBS_ENABLE, 1);
    set_counter(0, &events[EV_INSN], SEL_OS | SEL_ADAPT, -period);
    set_counter(1, &events[EV_INSN], SEL_OS, 0);
    set_counter(2, &events[EV_LOADS], SEL_BOTH, 0);
    set_counter(3, &events[EV_STORES], SEL_OS, 0);
    wrmsr(MSR_FIXED_CTRL, 0x111);
    for (unsigned i = 0; i < 3; i++) {
        wrmsr(MSR_FIXED0 + i, i << 20);
    }
}

#define COUNTERS        0x70000000full
#define COUNTERS_LOW    0xf
#define COUNTERS_HIGH   0x7

asm("   .text\n"
    "   .code16\n"
    "to_long:\n"
    "   cli\n"
    "   xor %ax, %ax\n"
    "   mov %ax, %ds\n"
    "   lgdtl (0x8000 + to_long_gdt - to_long)\n"
    "   mov $0x620, %eax\n"             /* PAE, SSE */
    "   mov %eax, %cr4\n"
    "   mov (0x8000 + to_long_cr3 - to_long), %eax\n"
    "   mov %eax, %cr3\n"
    "   mov $0xc0000080, %ecx\n"        /* EFER.LME */
    "   rdmsr\n"
    "   or $0x100, %eax\n"
    "   wrmsr\n"
    "   mov $0x80000011, %eax\n"        /* PG, ET, PE */
    "   mov %eax, %cr0\n"
    "   ljmpl $0x08, $in_long\n"
    "   .balign 4\n"
    "to_long_gdt:\n"
    "   .word 0\n"
    "   .long 0\n"
    "   .balign 4\n"
    "to_long_cr3:\n"
    "   .long 0\n"
    "to_long_end:\n"
    "   .code64\n"
    "in_long:\n"
    "   mov $0x10, %eax\n"
    "   mov %eax, %ds\n"
    "   mov %eax, %es\n"
    "   mov %eax, %ss\n"
    "   lea second_stack+16384(%rip), %rsp\n"
    "   call set_counters\n"
    "   mov $0x38f, %ecx\n"
    "   mov $" STRING(COUNTERS_LOW) ", %eax\n"
    "   mov $" STRING(COUNTERS_HIGH) ", %edx\n"
    "long_steps:\n"
    N("wrmsr")
    N("nop")
    L("mov long_cell(%rip), %ebx")
    N("add $3, %ebx")
    S("mov %ebx, long_cell(%rip)")
    LS("incl long_cell(%rip)")
    S("push %rbx")
    L("pop %rsi")
    L("cmpl $0, long_spin(%rip)")
    COND("jne long_spinning")
    "long_straight:\n"
    S("movl $1, long_ready(%rip)")
    N("hlt")
    "long_steps_end:\n"
    "   ud2\n"
    "long_spinning:\n"
    LS("incl long_rounds(%rip)")
    JMP("jmp long_spinning")
    "long_spinning_end:\n");

ASM_LABEL(to_long);
ASM_LABEL(to_long_gdt);
ASM_LABEL(to_long_cr3);
ASM_LABEL(to_long_end);
ASM_LABEL(long_steps);
ASM_LABEL(long_steps_end);
ASM_LABEL(long_straight);
ASM_LABEL(long_spinning);
ASM_LABEL(long_spinning_end);

/* What is read of the second vCPU when it has switched its counters off */
static const uint32_t msrs[] = {
    MSR_PMC0, MSR_PMC0 + 1, MSR_PMC0 + 2, MSR_PMC0 + 3,
    MSR_FIXED0, MSR_FIXED0 + 1, MSR_FIXED0 + 2,
    MSR_EVTSEL0, MSR_EVTSEL0 + 1, MSR_EVTSEL0 + 2, MSR_EVTSEL0 + 3,
    MSR_FIXED_CTRL, MSR_STATUS, MSR_PEBS_ENABLE, MSR_PEBS_DATA_CFG,
    MSR_DS_AREA,
};
#define MSRS        16
#define FIRST_KEPT  7           /* before it, what counts */
_Static_assert(sizeof(msrs) / sizeof(msrs[0]) == MSRS, "");

#define IN_REAL(label)  "(" label " - real_code)"

asm("   .text\n"
    "   .code16\n"
    "real_code:\n"
    "real_steps:\n"
    N("mov $" STRING(REAL_SEGMENT) ", %ax")
    N("mov %ax, %ds")
    N("mov %ax, %ss")
    N("mov $" STRING(REAL_STACK) ", %sp")
    N("mov $0x38f, %ecx")
    N("rdmsr")
    S("mov %eax, " IN_REAL("real_global_ctrl"))
    S("mov %edx, " IN_REAL("real_global_ctrl") " + 4")
    S("push %ax")
    L("pop %bx")
    N("nop")
    L("cmpb $0, " IN_REAL("real_no_halt"))
    COND("jne real_off")
    "real_halting:\n"
    S("movb $1, " IN_REAL("real_state"))
    N("hlt")
    "real_off:\n"               /* an NMI leads here, or the jump */
    N("mov $0x38f, %ecx")
    N("xor %eax, %eax")
    N("xor %edx, %edx")
    "real_steps_end:\n"
    "   wrmsr\n"
    "   mov $" IN_REAL("real_msrs") ", %si\n"
    "   mov $" IN_REAL("real_values") ", %di\n"
    "   mov $" STRING(MSRS) ", %bp\n"
    "1: mov (%si), %ecx\n"
    "   rdmsr\n"
    "   mov %eax, (%di)\n"
    "   mov %edx, 4(%di)\n"
    "   add $4, %si\n"
    "   add $8, %di\n"
    "   dec %bp\n"
    "   jnz 1b\n"
    "   movb $2, " IN_REAL("real_state") "\n"
    "2: hlt\n"
    "   jmp 2b\n"
    "real_nmi:\n"
    IRET("iretw")
    "   .balign 8\n"
    "real_global_ctrl:  .quad 0\n"
    "real_values:       .skip 8 * " STRING(MSRS) "\n"
    "real_msrs:         .skip 4 * " STRING(MSRS) "\n"
    "real_no_halt:     .byte 0\n"
    "real_state:        .byte 0\n"
    "real_end:\n"
    "   .code64\n");

ASM_LABEL(real_code);
ASM_LABEL(real_steps);
ASM_LABEL(real_halting);
ASM_LABEL(real_off);
ASM_LABEL(real_steps_end);
ASM_LABEL(real_nmi);
ASM_LABEL(real_global_ctrl);
ASM_LABEL(real_values);
ASM_LABEL(real_msrs);
ASM_LABEL(real_no_halt);
ASM_LABEL(real_state);
ASM_LABEL(real_end);

static SharedByte *in_real(const uint8_t *label)
{
    return (SharedByte *)(uintptr_t)(AT_REAL + (label - real_code));
}

/* ---- the first one ---- */

static void wait_ticks(uint64_t ticks)
{
    for (uint64_t start = rdtsc(); rdtsc() - start < ticks; ) {
        asm volatile("pause");
    }
}

/* It stays where it is until a SIPI comes. */
static void send_init(void)
{
    apic_write(APIC_ICR, ICR_INIT);
    wait_ticks(LONG_ENOUGH);
}

static unsigned record_count(void)
{
    return (ds_area[DS_INDEX] - ds_area[DS_BASE]) / RECORD_SIZE;
}

static void prepare_second(bool spin)
{
    uint32_t cr3 = read_cr(3), base = (uintptr_t)gdt;
    uint16_t limit = sizeof(gdt) - 1;
    uint16_t (*ivt)[2] = (void *)0;

    asm("" : "+r"(ivt));        /* the compiler takes it for a NULL pointer */
    ivt[2][0] = real_nmi - real_code;
    ivt[2][1] = REAL_SEGMENT;
    memcpy(to_long_gdt, &limit, sizeof(limit));
    memcpy(to_long_gdt + sizeof(limit), &base, sizeof(base));
    memcpy(to_long_cr3, &cr3, sizeof(cr3));
    memcpy((void *)AT_LONG, to_long, to_long_end - to_long);
    memcpy((void *)AT_REAL, real_code, real_end - real_code);
    memcpy((void *)in_real(real_msrs), msrs, sizeof(msrs));
    *in_real(real_no_halt) = spin;

    long_ready = long_rounds = 0;
    long_spin = spin;
    period = spin ? SPIN_PERIOD : PERIOD;
    records_earlier += record_count();
    fill(buffer, sizeof(buffer));
    ds_init((uint64_t *)ds_area, (uintptr_t)buffer, sizeof(buffer));
    ds_area[DS_RESET] = -period;
}

static bool has_started(void)
{
    return long_ready || long_rounds;
}

static bool has_started_again(void)
{
    return *in_real(real_state);
}

/* A SIPI that comes before INIT has had its effect is lost. */
static void start_second(unsigned at, bool (*done)(void))
{
    while (!done()) {
        apic_write(APIC_ICR, ICR_SIPI(at));
        wait_ticks(LONG_ENOUGH);
    }
}

static void wait_state(uint8_t state)
{
    while (*in_real(real_state) != state) {
        asm volatile("pause");
    }
}

/* What @label and the instructions behind it are, up to @end */
static void list_steps_to(const uint8_t *label, const uint8_t *end)
{
    for (const Insn *i = find_insn((uintptr_t)label);
         i < insn_table_end && i->start < (uintptr_t)end; i++) {
        add_step((void *)i->start, (void *)i->end, i->kinds, false);
    }
}

static uint64_t ip_of(uint64_t at)
{
    bool real = at >= (uintptr_t)real_code && at < (uintptr_t)real_end;

    return real ? at - (uintptr_t)real_code : at;
}

static uint64_t value_of(uint32_t msr)
{
    for (unsigned i = 0; i < MSRS; i++) {
        if (msrs[i] == msr) {
            return *(uint64_t *)in_real(real_values + 8 * i);
        }
    }
    quit(2);
}

/* INIT has left everything as it was. */
static void expect_kept(void)
{
    const uint64_t kept[] = {
        events[EV_INSN].code | SEL_OS | SEL_ADAPT | SEL_ENABLE,
        events[EV_INSN].code | SEL_OS | SEL_ENABLE,
        events[EV_LOADS].code | SEL_BOTH | SEL_ENABLE,
        events[EV_STORES].code | SEL_OS | SEL_ENABLE,
        0x111, 0, 1, RECORD_CFG, (uintptr_t)ds_area,
    };

    _Static_assert(sizeof(kept) / sizeof(kept[0]) == MSRS - FIRST_KEPT, "");
    check_equal("IA32_PERF_GLOBAL_CTRL", *(uint64_t *)in_real(real_global_ctrl),
                COUNTERS);
    for (unsigned i = FIRST_KEPT; i < MSRS; i++) {
        if (value_of(msrs[i]) != kept[i - FIRST_KEPT]) {
            check_fail("MSR 0x%x: 0x%llx, expected 0x%llx", msrs[i],
                       (unsigned long long)value_of(msrs[i]),
                       (unsigned long long)kept[i - FIRST_KEPT]);
        }
    }
}

/* Of the instructions, so many have been counted, and sampled. */
static void expect_instructions(uint64_t count)
{
    check_equal("counter 0", value_of(MSR_PMC0) | ~COUNTER_MASK,
                -(period - count % period));
    check_equal("counter 1", value_of(MSR_PMC0 + 1), count);
    for (unsigned i = 0; i < 3; i++) {
        check_equal("fixed counter", value_of(MSR_FIXED0 + i),
                    count + (i << 20));
    }
    check_equal("records", record_count(), count / period);
    check_equal("beyond", is_filled(buffer + record_count() * RECORD_SIZE,
                                    4 * RECORD_SIZE), true);
}

static void expect_record(unsigned number, const Step *s)
{
    const uint8_t *r = buffer + number * RECORD_SIZE;

    check_equal("format", q(r), RECORD_CFG | (uint64_t)RECORD_SIZE << 48);
    check_equal("IP", q(r + 8), ip_of(s->ip));
    check_equal("applicable counters", q(r + 16), 1);
    check_equal("IP behind the instruction", q(r + BASIC_SIZE + 8),
                ip_of(s->next));
}

/* The machine may be looked at while the second vCPU is @where. */
static void say_where(const char *where)
{
    ml_printf("# now %s: %d records\n", where,
              records_earlier + record_count());
    let_look();
}

/* It halts before INIT, and once again after it, until there is an NMI. */
static void check_halted(void)
{
    unsigned before;

    step_count = 0;
    list_steps_to(long_steps, long_steps_end);
    before = step_count;
    list_steps_to(real_steps, real_off);
    list_steps_to(real_nmi, real_nmi + 1);
    steps[step_count - 1].next = (uintptr_t)real_off;
    list_steps_to(real_off, real_steps_end);

    prepare_second(false);
    send_init();
    start_second(AT_LONG, has_started);
    check_begin();
    check_equal("records", record_count(), before / PERIOD);
    check_end("halted in long mode");
    say_where("sampling");

    send_init();
    check_begin();
    check_equal("records", record_count(), before / PERIOD);
    check_end("INIT: no record");
    say_where("waiting for a SIPI");

    start_second(AT_REAL, has_started_again);
    check_begin();
    check_equal("records", record_count() > before / PERIOD, true);
    check_end("halted in real mode: there are more records");
    say_where("sampling again");

    apic_write(APIC_ICR, ICR_NMI);
    wait_state(2);
    check_begin();
    expect_kept();
    check_end("INIT keeps the MSRs");
    check_begin();
    expect_instructions(step_count);
    check_equal("counter 2", value_of(MSR_PMC0 + 2),
                expected_count(&events[EV_LOADS], SEL_OS));
    check_equal("counter 3", value_of(MSR_PMC0 + 3),
                expected_count(&events[EV_STORES], SEL_OS));
    check_end("counts over INIT");
    check_begin();
    for (unsigned i = 0; i < step_count / PERIOD; i++) {
        expect_record(i, &steps[(i + 1) * PERIOD - 1]);
    }
    check_end("records over INIT");
    say_where("switched off");
}

/* It spins, and INIT comes behind either of two instructions. */
static void check_spinning(void)
{
    const Insn *spin = find_insn((uintptr_t)long_spinning);
    uint64_t known, spun;

    step_count = 0;
    list_steps_to(long_steps, long_straight);
    list_steps_to(real_steps, real_halting);
    list_steps_to(real_off, real_steps_end);
    known = step_count;

    prepare_second(true);
    send_init();
    start_second(AT_LONG, has_started);
    while (long_rounds < SPIN_PERIOD) {
        asm volatile("pause");
    }
    say_where("spinning");
    send_init();
    say_where("waiting again");
    start_second(AT_REAL, has_started_again);
    wait_state(2);
    check_begin();
    expect_kept();
    spun = value_of(MSR_PMC0 + 1) - known;
    check_equal("rounds", (spun + 1) / 2, long_rounds);
    expect_instructions(known + spun);
    for (unsigned i = 0; i < record_count(); i++) {
        const uint8_t *r = buffer + i * RECORD_SIZE;
        const Insn *insn = spin + (q(r + 8) != spin->start);

        check_equal("IP", q(r + 8), insn->start);
    }
    check_end("INIT while it spins: %d rounds", (int)long_rounds);
    say_where("switched off");
}

static unsigned vcpu_count(void)
{
    /* fw_cfg: number of CPUs */
    asm volatile("outw %w0, %w1" : : "a"(0x05), "d"(0x510));
    return inb(0x511) | inb(0x511) << 8;
}

int main(void)
{
    pmu_test_init();
    if (!has_pmu() || !config.baseline || vcpu_count() != 2) {
        ml_printf("1..0 # SKIP no PEBS, or not two vCPUs: run with "
                  "-cpu Icelake-Server,pebs=on -smp 2\n");
        return 0;
    }
    check_halted();
    check_spinning();
    return tap_end();
}
