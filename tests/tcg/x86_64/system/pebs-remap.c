/*
 * PEBS records as another vCPU reads them, while counters move
 *
 * The first vCPU samples a loop, pass after pass, with several counters into
 * one buffer.  The second reads each record as soon as the index says that it
 * is there, and looks at the bytes beyond the index in the meantime.  What
 * each record has to be is known from the first pass.  Whoever runs this takes
 * physical counters away and gives them back meanwhile, with host-pmc-claim:
 * neither vCPU may ever read of another counter than the guest's.
 *
 * Run with -cpu Icelake-Server,pebs=on -smp 2.  With -append until-key passes
 * go on until a key is pressed, as by send-key in QEMU's monitor.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

/* Much of what the tests share is for sequences, which aren't needed here. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

#include "pmu-test.h"

#define CFG_GPR         2ull
#define RECORD_SIZE     (32 + 144)
#define RECORD_FORMAT   (CFG_GPR | (uint64_t)RECORD_SIZE << 48)
#define MAX_RECORDS     1024
#define EMPTY           0xee    /* unlike any byte of a counters' mask here */
#define EMPTY_WORD      0xeeeeeeeeeeeeeeeeull

#define ROUNDS          5000
#define PASSES          20      /* if no key ends them */
#define ROOM            10      /* records, where they don't all have some */

/* Two GP counters and a fixed one, which often are due together */
#define COUNTERS        (3ull | FIXED_BIT(0))
#define PERIOD_0        97
#define PERIOD_1        31
#define PERIOD_FIXED    (2 * PERIOD_0)

enum { DS_BASE = 4, DS_INDEX, DS_MAXIMUM, DS_THRESHOLD, DS_RESET };
#define DS_RESET_FIXED  (DS_RESET + 8)

typedef volatile uint64_t SharedWord;   /* the other vCPU's, too */

static SharedWord ds_area[64] __attribute__((aligned(4096)));
static uint8_t buffer[MAX_RECORDS * RECORD_SIZE] __attribute__((aligned(4096)));
static uint64_t cell;

static struct {
    uint64_t ip, counters;
} wanted[MAX_RECORDS];
static unsigned wanted_count;

/* What the vCPUs tell each other; one writer each */
static SharedWord pass;
static struct {
    SharedWord pass;        /* that it has begun to look at */
    SharedWord at;          /* before this it has looked at everything */
    SharedWord records, wrong;
    SharedWord number, ip, counters;    /* of the first that was wrong */
} seen;

static const SharedWord *record(unsigned i)
{
    return (const SharedWord *)(buffer + i * RECORD_SIZE);
}

static unsigned record_count(void)
{
    return (ds_area[DS_INDEX] - ds_area[DS_BASE]) / RECORD_SIZE;
}

static bool is_wanted(const SharedWord *r, unsigned i)
{
    return r[0] == RECORD_FORMAT && r[1] == wanted[i].ip &&
           r[2] == wanted[i].counters;
}

/* ---- the second vCPU ---- */

/* What becomes a record may be there in part, and nothing else ever is. */
static bool is_coming(const SharedWord *r, unsigned i)
{
    uint64_t counters = r[2];

    for (unsigned shift = 0; shift < 64; shift += 8) {
        uint8_t byte = counters >> shift;

        if (byte != EMPTY && byte != (uint8_t)(wanted[i].counters >> shift)) {
            return false;
        }
    }
    return true;
}

static void complain(unsigned i)
{
    if (seen.wrong++ == 0) {
        seen.number = i;
        seen.ip = record(i)[1];
        seen.counters = record(i)[2];
    }
}

static void __attribute__((used, noreturn)) watch(void)
{
    unsigned i = 0;

    for (;;) {
        unsigned count;

        if (seen.pass != pass) {
            i = 0;
            seen.at = (uintptr_t)buffer;
            seen.pass = pass;
        }
        for (count = record_count(); i < count; i++) {
            if (!is_wanted(record(i), i)) {
                complain(i);
            }
            seen.records++;
            seen.at = (uintptr_t)record(i + 1);
        }
        if (i < wanted_count && !is_coming(record(i), i)) {
            complain(i);
        }
    }
}

#define TRAMPOLINE  0x8000

static uint8_t second_stack[16384] __attribute__((used, aligned(16)));

/* From real mode, where a SIPI starts it, straight into long mode */
asm("   .text\n"
    "   .code16\n"
    "trampoline:\n"
    "   cli\n"
    "   xor %ax, %ax\n"
    "   mov %ax, %ds\n"
    "   lgdtl (0x8000 + trampoline_gdt - trampoline)\n"
    "   mov $0x620, %eax\n"             /* PAE, SSE */
    "   mov %eax, %cr4\n"
    "   mov (0x8000 + trampoline_cr3 - trampoline), %eax\n"
    "   mov %eax, %cr3\n"
    "   mov $0xc0000080, %ecx\n"        /* EFER.LME */
    "   rdmsr\n"
    "   or $0x100, %eax\n"
    "   wrmsr\n"
    "   mov $0x80000011, %eax\n"        /* PG, ET, PE */
    "   mov %eax, %cr0\n"
    "   ljmpl $0x08, $second\n"
    "   .balign 4\n"
    "trampoline_gdt:\n"
    "   .word 0\n"
    "   .long 0\n"
    "   .balign 4\n"
    "trampoline_cr3:\n"
    "   .long 0\n"
    "trampoline_end:\n"
    "   .code64\n"
    "second:\n"
    "   mov $0x10, %eax\n"
    "   mov %eax, %ds\n"
    "   mov %eax, %es\n"
    "   mov %eax, %ss\n"
    "   lea second_stack+16384(%rip), %rsp\n"
    "   call watch\n");

ASM_LABEL(trampoline);
ASM_LABEL(trampoline_gdt);
ASM_LABEL(trampoline_cr3);
ASM_LABEL(trampoline_end);

#define APIC_ICR        0x300
#define ICR_INIT        0xc4500     /* to all but this one */
#define ICR_SIPI        (0xc4600 | TRAMPOLINE >> 12)

static void start_second(void)
{
    uint32_t cr3 = read_cr(3), base = (uintptr_t)gdt;
    uint16_t limit = sizeof(gdt) - 1;

    memcpy(trampoline_gdt, &limit, sizeof(limit));
    memcpy(trampoline_gdt + sizeof(limit), &base, sizeof(base));
    memcpy(trampoline_cr3, &cr3, sizeof(cr3));
    memcpy((void *)TRAMPOLINE, trampoline, trampoline_end - trampoline);
    apic_write(APIC_ICR, ICR_INIT);
    /* One that comes before the INIT has had its effect is lost. */
    while (!seen.pass) {
        apic_write(APIC_ICR, ICR_SIPI);
        for (uint64_t start = rdtsc(); rdtsc() - start < 10000000; ) {
            asm volatile("pause");
        }
    }
}

static unsigned vcpu_count(void)
{
    /* fw_cfg: number of CPUs */
    asm volatile("outw %w0, %w1" : : "a"(0x05), "d"(0x510));
    return inb(0x511) | inb(0x511) << 8;
}

/* ---- the first one ---- */

static void ds_init(void)
{
    ds_area[DS_BASE] = (uintptr_t)buffer;
    ds_area[DS_MAXIMUM] = (uintptr_t)buffer + sizeof(buffer);
    ds_area[DS_THRESHOLD] = ds_area[DS_MAXIMUM] + 1;
    ds_area[DS_RESET] = -(uint64_t)PERIOD_0;
    ds_area[DS_RESET + 1] = -(uint64_t)PERIOD_1;
    ds_area[DS_RESET_FIXED] = -(uint64_t)PERIOD_FIXED;
}

static void start_counters(void)
{
    wrmsr(MSR_DS_AREA, (uintptr_t)ds_area);
    wrmsr(MSR_PEBS_DATA_CFG, CFG_GPR);
    wrmsr(MSR_PEBS_ENABLE, COUNTERS);
    set_counter(0, &events[EV_INSN], SEL_OS | SEL_ADAPT, -(uint64_t)PERIOD_0);
    set_counter(1, &events[EV_LOADS], SEL_OS | SEL_ADAPT,
                -(uint64_t)PERIOD_1);
    wrmsr(MSR_FIXED_CTRL, 1 | 1ull << 32);
    wrmsr(MSR_FIXED0, -(uint64_t)PERIOD_FIXED & COUNTER_MASK);
    wrmsr(MSR_GLOBAL_CTRL, COUNTERS);
}

static void work(void)
{
    uint64_t rounds = ROUNDS;

    asm volatile("1: mov %1, %%rax\n"
                 "   add $1, %%rax\n"
                 "   mov %%rax, %1\n"
                 "   dec %0\n"
                 "   jnz 1b"
                 : "+r"(rounds), "+m"(cell) : : "rax", "cc");
}

/* Until it has looked at all of this pass, and at none of the next */
static void wait_second(void)
{
    while (seen.at != ds_area[DS_INDEX] || seen.pass != pass) {
        asm volatile("pause");
    }
}

/* As far as there will be records, and one more */
static void empty_buffer(void)
{
    void *to = buffer;
    size_t n = wanted_count ? (wanted_count + 1) * RECORD_SIZE
                            : sizeof(buffer);

    n /= 8;
    asm volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(EMPTY_WORD)
                 : "memory");
}

/* Returns how many records there are. */
static unsigned run_pass(void)
{
    empty_buffer();
    ds_area[DS_INDEX] = ds_area[DS_BASE];
    pass++;
    if (wanted_count) {
        wait_second();
    }
    start_counters();
    work();
    wrmsr(MSR_GLOBAL_CTRL, 0);
    if (wanted_count) {
        wait_second();
    }
    return record_count();
}

static void learn(void)
{
    uint64_t all = 0;
    bool several = false;
    unsigned count;

    check_begin();
    count = run_pass();
    check_equal("records, enough", count > ROUNDS / PERIOD_1, true);
    check_equal("records, not too many", count < MAX_RECORDS, true);
    for (unsigned i = 0; i < count; i++) {
        wanted[i].ip = record(i)[1];
        wanted[i].counters = record(i)[2];
        all |= wanted[i].counters;
        several |= wanted[i].counters == (1 | FIXED_BIT(0));
    }
    check_equal("counters", all, COUNTERS);
    check_equal("one record for several", several, true);
    wanted_count = count;
    check_end("%d records of each pass", count);
}

static bool key_pressed(void)
{
    return inb(0x64) & 1;       /* the keyboard controller has something */
}

static void compare(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (!is_wanted(record(i), i)) {
            check_fail("pass %d, record %d: IP 0x%llx, counters 0x%llx, "
                       "not 0x%llx and 0x%llx", (int)pass, i,
                       (unsigned long long)record(i)[1],
                       (unsigned long long)record(i)[2],
                       (unsigned long long)wanted[i].ip,
                       (unsigned long long)wanted[i].counters);
        }
    }
}

int main(void)
{
    unsigned dropped;

    pmu_test_init();
    if (!has_pmu() || !config.baseline || vcpu_count() < 2) {
        ml_printf("1..0 # SKIP no PEBS, or one vCPU: run with "
                  "-cpu Icelake-Server,pebs=on -smp 2\n");
        return 0;
    }
    pmu_clear();
    ds_init();
    learn();
    start_second();
    wait_second();
    while (key_pressed()) {
        inb(0x60);              /* what the firmware has left */
    }
    ml_printf("# ready\n");

    check_begin();
    for (unsigned i = 0; config.until_key ? !key_pressed() : i < PASSES; i++) {
        unsigned count = run_pass();

        check_equal("records", count, wanted_count);
        compare(count);
    }
    check_end("every pass has the same records");

    check_begin();
    ds_area[DS_MAXIMUM] = ds_area[DS_BASE] + ROOM * RECORD_SIZE;
    check_equal("records", run_pass(), ROOM);
    compare(ROOM);
    dropped = wanted_count - ROOM;
    check_end("room for %d records: %d are dropped", ROOM, dropped);

    check_begin();
    check_equal("records", seen.records, (pass - 1) * wanted_count + ROOM);
    check_equal("wrong ones", seen.wrong, 0);
    if (seen.wrong) {
        check_fail("the first: record %d, IP 0x%llx, counters 0x%llx, "
                   "not 0x%llx", (int)seen.number,
                   (unsigned long long)seen.ip,
                   (unsigned long long)seen.counters,
                   (unsigned long long)wanted[seen.number].counters);
    }
    check_end("the other vCPU has read the same, and nothing else");
    ml_printf("# %d passes, %d records, %d dropped\n", (int)pass,
              (int)((pass - 1) * wanted_count + ROOM), (int)dropped);
    return tap_end();
}
