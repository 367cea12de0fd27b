/*
 * Bare-metal tests of the emulated PMU: what they share
 *
 * A sequence is a run of instructions, each marked with what it is: a load, a
 * near call, and so on.  Single-stepping it, with all counters off, tells what
 * was executed in which order, and the registers after each instruction.  From
 * that follows what each counter has to count, where it overflows, and what a
 * PEBS record of it has to hold: no expectation comes from the PMU itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PMU_TEST_H
#define PMU_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <minilib.h>

/* No program needs all that is here. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

/* A handler must not touch the vector registers of what it interrupts. */
#pragma GCC target("general-regs-only")

/* ---- TAP ---- */

static unsigned tap_count, tap_failed;
static bool tap_good;
static unsigned tap_complaints;

/* A check is several expectations; it prints one line. */
static void check_begin(void)
{
    tap_good = true;
    tap_complaints = 0;
}

#define check_fail(...)                         \
    do {                                        \
        tap_good = false;                       \
        if (tap_complaints++ < 6) {             \
            ml_printf("# " __VA_ARGS__);        \
            ml_printf("\n");                    \
        }                                       \
    } while (0)

#define check_equal(what, got, expected)                                  \
    do {                                                                  \
        uint64_t got_ = (got), expected_ = (expected);                    \
        if (got_ != expected_) {                                          \
            check_fail("%s: 0x%llx, expected 0x%llx", what,               \
                       (unsigned long long)got_,                          \
                       (unsigned long long)expected_);                    \
        }                                                                 \
    } while (0)

#define check_end(...)                                                    \
    do {                                                                  \
        tap_failed += !tap_good;                                          \
        ml_printf("%sok %d - ", tap_good ? "" : "not ", ++tap_count);     \
        ml_printf(__VA_ARGS__);                                           \
        ml_printf("\n");                                                  \
    } while (0)

static int tap_end(void)
{
    ml_printf("1..%d\n", tap_count);
    return tap_failed ? 1 : 0;
}

static void __attribute__((noreturn)) quit(int status)
{
    asm volatile("out %%ax, $0xf4" : : "a"(status));
    for (;;) {
        asm volatile("hlt");
    }
}

/* What the compiler may call by itself */
void *memset(void *to, int c, size_t n)
{
    void *d = to;

    asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *d = to;

    asm volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
    return to;
}

static uint64_t low_bits(unsigned n)
{
    return n < 64 ? (1ull << n) - 1 : -1ull;
}

/* ---- instructions ---- */

#define MSR_APIC_BASE           0x1b
#define MSR_PMC0                0xc1
#define MSR_SYSENTER_CS         0x174
#define MSR_SYSENTER_ESP        0x175
#define MSR_SYSENTER_EIP        0x176
#define MSR_EVTSEL0             0x186
#define MSR_MISC_ENABLE         0x1a0
#define MSR_DEBUGCTL            0x1d9
#define MSR_FIXED0              0x309
#define MSR_PERF_CAPABILITIES   0x345
#define MSR_FIXED_CTRL          0x38d
#define MSR_STATUS              0x38e
#define MSR_GLOBAL_CTRL         0x38f
#define MSR_OVF_CTRL            0x390
#define MSR_STATUS_SET          0x391
#define MSR_INUSE               0x392
#define MSR_PEBS_ENABLE         0x3f1
#define MSR_PEBS_DATA_CFG       0x3f2
#define MSR_LD_LAT              0x3f6
#define MSR_FULL0               0x4c1
#define MSR_DS_AREA             0x600
#define MSR_EFER                0xc0000080
#define MSR_STAR                0xc0000081
#define MSR_LSTAR               0xc0000082
#define MSR_SFMASK              0xc0000084
#define MSR_TSC_AUX             0xc0000103

static uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;

    asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return lo | (uint64_t)hi << 32;
}

static void wrmsr(uint32_t msr, uint64_t value)
{
    asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value),
                 "d"((uint32_t)(value >> 32)) : "memory");
}

static uint64_t rdtsc(void)
{
    uint32_t lo, hi;

    asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return lo | (uint64_t)hi << 32;
}

static void outb(uint16_t port, uint8_t value)
{
    asm volatile("outb %0, %1" : : "a"(value), "d"(port));
}

static uint8_t inb(uint16_t port)
{
    uint8_t value;

    asm volatile("inb %1, %0" : "=a"(value) : "d"(port));
    return value;
}

static void cpuid(uint32_t leaf, uint32_t sub, uint32_t reg[4])
{
    asm volatile("cpuid" : "=a"(reg[0]), "=b"(reg[1]), "=c"(reg[2]),
                 "=d"(reg[3]) : "a"(leaf), "c"(sub));
}

#define read_cr(n) ({ uint64_t v_; \
                      asm volatile("mov %%cr" #n ", %0" : "=r"(v_)); v_; })
#define write_cr(n, v) \
    asm volatile("mov %0, %%cr" #n : : "r"((uint64_t)(v)) : "memory")
#define write_dr(n, v) \
    asm volatile("mov %0, %%dr" #n : : "r"((uint64_t)(v)) : "memory")

static void invlpg(uint64_t address)
{
    asm volatile("invlpg (%0)" : : "r"(address) : "memory");
}

#define APIC_EOI        0x0b0
#define APIC_SVR        0x0f0
#define APIC_TIMER      0x320
#define APIC_LVTPC      0x340
#define APIC_INITIAL    0x380
#define APIC_DIVIDE     0x3e0
#define APIC_MASKED     0x10000
#define APIC_NMI        0x400

static inline volatile uint32_t *apic(uint32_t reg) /* volatile: a device */
{
    return (volatile uint32_t *)(0xfee00000ul + reg);   /* a device */
}

static inline uint32_t apic_read(uint32_t reg)
{
    return *apic(reg);
}

static void apic_write(uint32_t reg, uint32_t value)
{
    *apic(reg) = value;
}

/* ---- what this machine is to be, by QEMU's -append ---- */

static struct {
    bool pebs;
    bool baseline;
    unsigned format;
    unsigned version;
    unsigned gp;
    bool pdcm;          /* there is IA32_PERF_CAPABILITIES */
    bool full_width;    /* counters can be written whole */
    bool icount;        /* time is instructions: QEMU's -icount shift=0 */
    bool brief;         /* a few of the sequences only */
    bool codes;         /* only what depends on the CPU model */
    bool until_key;     /* go on until a key is pressed */
    bool dump;          /* records are printed instead of checked */
    uint64_t counters;  /* all, as bits of IA32_PERF_GLOBAL_CTRL */
} config = {
    .pebs = true, .baseline = true, .format = 4, .gp = 8,
    .pdcm = true, .full_width = true,
};

static bool starts_with(const char *s, const char *prefix)
{
    while (*prefix) {
        if (*s++ != *prefix++) {
            return false;
        }
    }
    return true;
}

static void read_config(void)
{
    static char text[256];
    unsigned size;

    /* fw_cfg: the size of the command line, the command line */
    asm volatile("outw %w0, %w1" : : "a"(0x14), "d"(0x510));
    size = inb(0x511);
    size |= inb(0x511) << 8;
    asm volatile("outw %w0, %w1" : : "a"(0x15), "d"(0x510));
    for (unsigned i = 0; i < size && i < sizeof(text) - 1; i++) {
        text[i] = inb(0x511);
    }
    for (const char *s = text; *s; s++) {
        if (starts_with(s, "pebs=off")) {
            config.pebs = config.baseline = false;
            config.format = 0;
        } else if (starts_with(s, "baseline=off")) {
            config.baseline = false;
        } else if (starts_with(s, "format=")) {
            config.format = s[7] - '0';
        } else if (starts_with(s, "gp=")) {
            config.gp = s[3] - '0';
        } else if (starts_with(s, "pdcm=off")) {
            config.pdcm = config.full_width = false;
        } else if (starts_with(s, "full-width=off")) {
            config.full_width = false;
        } else if (starts_with(s, "icount")) {
            config.icount = true;
        } else if (starts_with(s, "brief")) {
            config.brief = true;
        } else if (starts_with(s, "codes")) {
            config.codes = true;
        } else if (starts_with(s, "until-key")) {
            config.until_key = true;
        } else if (starts_with(s, "dump")) {
            config.dump = true;
        }
    }
    config.version = config.baseline ? 5 : 2;
    config.counters = low_bits(config.gp) | 7ull << 32;
}

/* ---- traps ---- */

typedef struct Frame {
    uint64_t regs[16];          /* as encoded in instructions */
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
} Frame;

#define FLAG_TF     0x100ull
#define FLAG_IF     0x200ull
#define FLAG_RF     0x10000ull

#define KERNEL_CS   0x08
#define KERNEL_SS   0x10
#define USER_SS     0x23
#define USER_CS     0x2b

#define STRING_(x)  #x
#define STRING(x)   STRING_(x)

asm("   .text\n"
    "   .balign 16\n"
    "vectors:\n"
    "   .set v, 0\n"
    "   .rept 256\n"
    "   .balign 16\n"
    "   .if v != 8 && v != 10 && v != 11 && v != 12 && v != 13 && "
            "v != 14 && v != 17\n"
    "   push $0\n"
    "   .endif\n"
    "   push $v\n"
    "   jmp trap_common\n"
    "   .set v, v + 1\n"
    "   .endr\n"
    "trap_common:\n"
    "   push %r15\n"
    "   push %r14\n"
    "   push %r13\n"
    "   push %r12\n"
    "   push %r11\n"
    "   push %r10\n"
    "   push %r9\n"
    "   push %r8\n"
    "   push %rdi\n"
    "   push %rsi\n"
    "   push %rbp\n"
    "   push $0\n"
    "   push %rbx\n"
    "   push %rdx\n"
    "   push %rcx\n"
    "   push %rax\n"
    "   cld\n"
    "   mov %rsp, %rdi\n"
    "   mov %rsp, %rbp\n"
    "   and $-16, %rsp\n"
    "   call trap\n"
    "   mov %rbp, %rsp\n"
    "   pop %rax\n"
    "   pop %rcx\n"
    "   pop %rdx\n"
    "   pop %rbx\n"
    "   pop %rbp\n"     /* not RSP */
    "   pop %rbp\n"
    "   pop %rsi\n"
    "   pop %rdi\n"
    "   pop %r8\n"
    "   pop %r9\n"
    "   pop %r10\n"
    "   pop %r11\n"
    "   pop %r12\n"
    "   pop %r13\n"
    "   pop %r14\n"
    "   pop %r15\n"
    "   add $16, %rsp\n"
    "   iretq\n");

extern uint8_t vectors[];

static void (*handlers[256])(Frame *f);
static uint64_t fixup_rip __attribute__((used));
static int fault_vector;
static uint64_t fault_error;

void trap(Frame *f);
void trap(Frame *f)
{
    f->regs[4] = f->rsp;
    if (handlers[f->vector]) {
        handlers[f->vector](f);
    } else if (f->vector < 32 && fixup_rip) {
        fault_vector = f->vector;
        fault_error = f->error;
        f->rip = fixup_rip;
        fixup_rip = 0;
    } else {
        ml_printf("Bail out! vector %d at 0x%llx, error 0x%llx, cs 0x%llx, "
                  "cr2 0x%llx\n", (int)f->vector, (unsigned long long)f->rip,
                  (unsigned long long)f->error, (unsigned long long)f->cs,
                  (unsigned long long)read_cr(2));
        quit(2);
    }
}

/* Each returns the vector of the fault that the instruction raises, or -1. */
#define FIXUP_BEGIN "lea 1f(%%rip), %%r8\n mov %%r8, fixup_rip(%%rip)\n"
#define FIXUP_END   "\n1: movq $0, fixup_rip(%%rip)\n"

static int try_wrmsr(uint32_t msr, uint64_t value)
{
    fault_vector = -1;
    asm volatile(FIXUP_BEGIN "wrmsr" FIXUP_END
                 : : "c"(msr), "a"((uint32_t)value),
                     "d"((uint32_t)(value >> 32)) : "r8", "memory");
    return fault_vector;
}

static inline int try_rdmsr(uint32_t msr, uint64_t *value)
{
    uint32_t lo = 0, hi = 0;

    fault_vector = -1;
    asm volatile(FIXUP_BEGIN "rdmsr" FIXUP_END
                 : "+a"(lo), "+d"(hi) : "c"(msr) : "r8", "memory");
    *value = lo | (uint64_t)hi << 32;
    return fault_vector;
}

static inline int try_rdpmc(uint64_t selector, uint64_t *value)
{
    uint64_t lo = -1ull, hi = -1ull;

    fault_vector = -1;
    asm volatile(FIXUP_BEGIN "rdpmc" FIXUP_END
                 : "+a"(lo), "+d"(hi) : "c"(selector) : "r8", "memory");
    *value = lo + (hi << 32);
    return fault_vector;
}

/* ---- tables ---- */

static uint64_t gdt[16];
static struct {
    uint64_t low, high;
} idt[256];
static uint8_t tss[104] __attribute__((aligned(16)));
static uint8_t ist_stacks[4][16384] __attribute__((aligned(16)));

enum { IST_NMI = 1, IST_DB, IST_FAULT, IST_INT };

static uint64_t ist_top(unsigned ist)
{
    return (uintptr_t)ist_stacks[ist];
}

static void set_gate(unsigned vector, const void *handler, unsigned dpl)
{
    uint64_t address = (uintptr_t)handler;
    unsigned ist = vector == 2 ? IST_NMI : vector == 1 ? IST_DB :
                   vector < 32 ? IST_FAULT : IST_INT;

    idt[vector].low = (address & 0xffff) | KERNEL_CS << 16 |
                      (uint64_t)ist << 32 | 0x8e0000000000ull |
                      (uint64_t)dpl << 45 | (address >> 16 & 0xffff) << 48;
    idt[vector].high = address >> 32;
}

static void reset_gate(unsigned vector)
{
    set_gate(vector, vectors + vector * 16, 0);
}

/* SYSENTER and SYSEXIT have their segments in a row. */
#define SYSENTER_CS         0x40
#define SYSENTER_USER_CS32  0x53
#define SYSENTER_USER_CS    0x63

static inline void init_sysenter_segments(void)
{
    gdt[SYSENTER_CS / 8] = gdt[1];
    gdt[SYSENTER_CS / 8 + 1] = gdt[2];
    gdt[SYSENTER_CS / 8 + 2] = 0x00cffb000000ffffull;
    gdt[SYSENTER_CS / 8 + 3] = gdt[USER_SS / 8];
    gdt[SYSENTER_CS / 8 + 4] = gdt[USER_CS / 8];
    gdt[SYSENTER_CS / 8 + 5] = gdt[USER_SS / 8];
    wrmsr(MSR_SYSENTER_CS, SYSENTER_CS);
}

#define GATE_SELECTOR       0x73

/* For CPL 3, too */
static inline void set_call_gate(const void *target)
{
    uint64_t address = (uintptr_t)target;

    gdt[GATE_SELECTOR / 8] = (address & 0xffff) | KERNEL_CS << 16 |
                             0xec0000000000ull |
                             (address >> 16 & 0xffff) << 48;
    gdt[GATE_SELECTOR / 8 + 1] = address >> 32;
}

static void init_tables(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer;
    uint64_t base = (uintptr_t)tss;

    for (unsigned i = 1; i <= 4; i++) {
        *(uint64_t *)(tss + 36 + (i - 1) * 8) = ist_top(i);
    }
    *(uint64_t *)(tss + 4) = ist_top(IST_FAULT);
    *(uint16_t *)(tss + 102) = sizeof(tss);

    gdt[1] = 0x00af9b000000ffffull;
    gdt[2] = 0x00cf93000000ffffull;
    gdt[4] = 0x00cff3000000ffffull;
    gdt[5] = 0x00affb000000ffffull;
    gdt[6] = (sizeof(tss) - 1) | (base & 0xffffff) << 16 |
             0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[7] = base >> 32;
    for (unsigned i = 0; i < 256; i++) {
        reset_gate(i);
    }

    pointer.limit = sizeof(gdt) - 1;
    pointer.base = (uintptr_t)gdt;
    asm volatile("lgdt %0" : : "m"(pointer));
    pointer.limit = sizeof(idt) - 1;
    pointer.base = (uintptr_t)idt;
    asm volatile("lidt %0" : : "m"(pointer));
    asm volatile("ltr %w0" : : "r"(0x30));
}

/* ---- pages of 4 KiB, at 1 GiB ---- */

#define PAGE            4096ull
#define PAGE_P          1ull
#define PAGE_W          2ull
#define PAGE_U          4ull
#define PAGE_AD         0x60ull
#define PAGES_AT        0x40000000  /* known to the sequences, too */

static uint64_t page_table[512] __attribute__((used, aligned(4096)));
static uint8_t frames[8][4096] __attribute__((aligned(4096)));

static uint64_t *next_table(uint64_t *table, unsigned i)
{
    return (uint64_t *)(uintptr_t)(table[i] & 0xffffffffff000ull);
}

static uint64_t *page_directory(unsigned gib)
{
    return next_table(next_table((uint64_t *)(read_cr(3) & ~0xfffull), 0),
                      gib);
}

static uint64_t map_page(unsigned i, const void *frame, uint64_t flags)
{
    page_table[i] = flags ? (uintptr_t)frame | flags | PAGE_AD : 0;
    invlpg(PAGES_AT + i * PAGE);
    return PAGES_AT + i * PAGE;
}

static void init_pages(void)
{
    page_directory(1)[0] = (uintptr_t)page_table | PAGE_P | PAGE_W | PAGE_U;
    write_cr(3, read_cr(3));
}

/* ---- sequences ---- */

/* What an instruction is */
#define K_LOAD      0x001
#define K_STORE     0x002
#define K_BRANCH    0x004
#define K_COND      0x008
#define K_CALL      0x010
#define K_RET       0x020
#define K_FAR       0x040
#define K_INDIRECT  0x080
#define K_NEAR      0x100   /* a near branch that is always taken */
#define K_NOREG     0x200   /* its results aren't the same in each run */
#define K_SHADOW    0x400   /* an NMI is held until the next one has retired */
#define K_NOTHING   0x800   /* no instruction is that */

typedef struct Insn {
    uint64_t start, end, kinds;
} Insn;

extern Insn insn_table[], insn_table_end[];

asm("   .data 1\n"
    "   .balign 8\n"
    "insn_table:\n"
    "   .data 3\n"
    "insn_table_end:\n"
    "   .data 0\n");

#define K(kinds, insn)                                          \
    "771: " insn "\n"                                           \
    "772:\n"                                                    \
    "   .pushsection .data, 2\n"                                \
    "   .quad 771b, 772b, " STRING((kinds)) "\n"                \
    "   .popsection\n"
#define N(insn)     K(0, insn)
#define L(insn)     K(K_LOAD, insn)
#define S(insn)     K(K_STORE, insn)
#define LS(insn)    K(K_LOAD | K_STORE, insn)
#define COND(insn)  K(K_BRANCH | K_COND, insn)
#define JMP(insn)   K(K_BRANCH | K_NEAR, insn)
#define CALL(insn)  K(K_BRANCH | K_NEAR | K_CALL | K_STORE, insn)
#define RET(insn)   K(K_BRANCH | K_NEAR | K_RET | K_LOAD, insn)
#define FAR(insn)   K(K_BRANCH | K_FAR, insn)
#define IRET(insn)  K(K_BRANCH | K_FAR | K_LOAD, insn)

/*
 * Counting is switched on by a WRMSR right before, at CPL 0, and off after an
 * INT right behind.  The first three instructions replace what those two need.
 */
#define SEQUENCE(name, body)                                    \
    extern uint8_t name[], name##_enter[], name##_end[];        \
    asm("   .text\n"                                            \
        SEQUENCE_BODY(#name, body))

#define SEQUENCE_BODY(name, body)                               \
        name "_enter:\n"                                        \
        "   wrmsr\n"                                            \
        name ":\n"                                              \
        N("mov $0x1001, %eax")                                  \
        N("mov $0x1002, %ecx")                                  \
        N("mov $0x1003, %edx")                                  \
        body                                                    \
        name "_end:\n"                                          \
        "   int $0x81\n"

/* A label within a sequence */
#define ASM_LABEL(name) \
    extern uint8_t name[]

/* Known to the code in assembly, too */
static uint64_t seq_regs[16] __attribute__((used));
static uint64_t seq_xmm[16][2] __attribute__((used, aligned(16)));
static uint64_t seq_saved_rsp __attribute__((used));
static uint64_t seq_mask __attribute__((used));
static uint64_t seq_entry __attribute__((used));
static uint64_t seq_rflags __attribute__((used));
static uint32_t seq_user __attribute__((used));
static uint32_t seq_trace __attribute__((used));
static uint64_t seq_end;
static uint64_t trace_last;

static uint8_t test_data[8192] __attribute__((aligned(4096)));
static uint8_t test_stack[4096] __attribute__((aligned(4096)));

asm("   .text\n"
    "seq_enter:\n"
    "   push %rbx\n"
    "   push %rbp\n"
    "   push %r12\n"
    "   push %r13\n"
    "   push %r14\n"
    "   push %r15\n"
    "   mov %rsp, seq_saved_rsp(%rip)\n"
    "   lea seq_xmm(%rip), %rax\n"
    "   movups 0x00(%rax), %xmm0\n"
    "   movups 0x10(%rax), %xmm1\n"
    "   movups 0x20(%rax), %xmm2\n"
    "   movups 0x30(%rax), %xmm3\n"
    "   movups 0x40(%rax), %xmm4\n"
    "   movups 0x50(%rax), %xmm5\n"
    "   movups 0x60(%rax), %xmm6\n"
    "   movups 0x70(%rax), %xmm7\n"
    "   movups 0x80(%rax), %xmm8\n"
    "   movups 0x90(%rax), %xmm9\n"
    "   movups 0xa0(%rax), %xmm10\n"
    "   movups 0xb0(%rax), %xmm11\n"
    "   movups 0xc0(%rax), %xmm12\n"
    "   movups 0xd0(%rax), %xmm13\n"
    "   movups 0xe0(%rax), %xmm14\n"
    "   movups 0xf0(%rax), %xmm15\n"
    "   mov seq_regs+0x18(%rip), %rbx\n"
    "   mov seq_regs+0x28(%rip), %rbp\n"
    "   mov seq_regs+0x30(%rip), %rsi\n"
    "   mov seq_regs+0x38(%rip), %rdi\n"
    "   mov seq_regs+0x40(%rip), %r8\n"
    "   mov seq_regs+0x48(%rip), %r9\n"
    "   mov seq_regs+0x50(%rip), %r10\n"
    "   mov seq_regs+0x58(%rip), %r11\n"
    "   mov seq_regs+0x60(%rip), %r12\n"
    "   mov seq_regs+0x68(%rip), %r13\n"
    "   mov seq_regs+0x70(%rip), %r14\n"
    "   mov seq_regs+0x78(%rip), %r15\n"
    "   mov $0x38f, %ecx\n"
    "   mov seq_mask(%rip), %eax\n"
    "   mov seq_mask+4(%rip), %edx\n"
    "   cmpl $0, seq_user(%rip)\n"
    "   jne 2f\n"
    "   mov seq_regs+0x20(%rip), %rsp\n"
    "   pushq seq_rflags(%rip)\n"
    "   popfq\n"
    "   jmp *seq_entry(%rip)\n"
    "2: pushq $0x23\n"
    "   pushq seq_regs+0x20(%rip)\n"
    "   pushq seq_rflags(%rip)\n"
    "   pushq $0x2b\n"
    "   pushq seq_entry(%rip)\n"
    "   cmpl $0, seq_trace(%rip)\n"
    "   jne user_iret\n"
    "user_wrmsr:\n"
    "   wrmsr\n"
    "user_iret:\n"
    "   iretq\n"
    "seq_exit:\n"
    "   mov $0x38f, %ecx\n"
    "seq_exit_2:\n"
    "   xor %eax, %eax\n"
    "seq_exit_3:\n"
    "   xor %edx, %edx\n"
    "seq_exit_4:\n"
    "   wrmsr\n"
    "   cld\n"
    "   mov seq_saved_rsp(%rip), %rsp\n"
    "   pop %r15\n"
    "   pop %r14\n"
    "   pop %r13\n"
    "   pop %r12\n"
    "   pop %rbp\n"
    "   pop %rbx\n"
    "   ret\n");

void seq_enter(void);
extern uint8_t user_wrmsr[], user_iret[];
extern uint8_t seq_exit[], seq_exit_2[], seq_exit_3[], seq_exit_4[];

typedef struct Sequence {
    uint8_t *enter, *start, *end;
} Sequence;

#define SEQ(name) { name##_enter, name, name##_end }

/* ---- single-stepping ---- */

#define MAX_STEPS   1024

/* One retired instruction, and the state after it */
typedef struct Step {
    uint64_t ip, next, kinds;
    uint64_t record_next;   /* IP that a PEBS record has */
    bool user, fall_through, has_regs, off;
    uint64_t rflags, regs[16], xmm[16][2];
} Step;

static Step steps[MAX_STEPS];
static unsigned step_count;
static uint64_t steps_taken;

static const Insn *find_insn(uint64_t ip)
{
    for (Insn *i = insn_table; i < insn_table_end; i++) {
        if (i->start == ip) {
            return i;
        }
    }
    ml_printf("Bail out! unknown instruction at 0x%llx\n",
              (unsigned long long)ip);
    quit(2);
}

static Step *add_step(const void *ip, const void *next, uint64_t kinds,
                            bool user)
{
    Step *s = &steps[step_count];

    if (++step_count == MAX_STEPS) {
        ml_printf("Bail out! too many steps\n");
        quit(2);
    }
    s->ip = (uintptr_t)ip;
    s->next = s->record_next = (uintptr_t)next;
    s->kinds = kinds;
    s->user = user;
    s->fall_through = false;
    s->has_regs = false;
    s->off = false;
    return s;
}

static void debug_handler(Frame *f)
{
    static uint8_t fx[512] __attribute__((aligned(16)));

    steps_taken++;
    if (f->rip == seq_end) {
        f->rflags &= ~FLAG_TF;
    }
    if (!seq_trace) {
        return;
    }
    /* An iteration of a string instruction is no instruction. */
    if (trace_last && f->rip != trace_last) {
        const Insn *insn = find_insn(trace_last);
        Step *s = add_step((void *)trace_last, (void *)f->rip, insn->kinds,
                           f->cs & 3);

        s->fall_through = f->rip == insn->end;
        s->has_regs = !(insn->kinds & K_NOREG);
        s->rflags = f->rflags & ~(FLAG_TF | FLAG_RF);
        for (unsigned i = 0; i < 16; i++) {
            s->regs[i] = f->regs[i];
        }
        asm volatile("fxsave64 %0" : "=m"(fx));
        memcpy(s->xmm, fx + 160, sizeof(s->xmm));
    }
    trace_last = f->rip;
}

static void reset_data(void)
{
    static uint8_t pattern[sizeof(test_data)];
    static bool pattern_done;
    void *to = test_data, *from = pattern;
    size_t n = sizeof(test_data) / 8;

    for (unsigned i = 0; !pattern_done && i < sizeof(pattern); i++) {
        pattern[i] = i * 7 + (i >> 8);
    }
    pattern_done = true;
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    for (unsigned i = 0; i < 16; i++) {
        seq_regs[i] = 0x0101010101010101ull * i;
        seq_xmm[i][0] = 0x1111000000000000ull + i;
        seq_xmm[i][1] = 0x2222000000000000ull + i * 0x100;
    }
    seq_regs[4] = (uintptr_t)test_stack + sizeof(test_stack) - 512;
    seq_regs[6] = (uintptr_t)test_data + 1024;
    seq_regs[7] = (uintptr_t)test_data + 2048;
}

static void (*before_run)(void), (*after_run)(void);

static void seq_go(const Sequence *s, bool user, uint64_t flags)
{
    reset_data();
    if (before_run) {
        before_run();
    }
    seq_user = user;
    seq_rflags = 2 | flags;
    seq_end = (uintptr_t)s->end;
    seq_enter();
    if (after_run) {
        after_run();
    }
}

/* Run with the counters of @mask on. */
static void seq_run(const Sequence *s, bool user, uint64_t mask)
{
    seq_trace = 0;
    seq_mask = mask;
    seq_entry = (uintptr_t)(user ? s->start : s->enter);
    seq_go(s, user, 0);
}

/* The same, at CPL 3 and single-stepping all the while */
static void seq_run_stepping(const Sequence *s, uint64_t mask)
{
    seq_trace = 0;
    seq_mask = mask;
    seq_entry = (uintptr_t)s->start;
    seq_go(s, true, FLAG_TF);
}

#define K_INT       (K_BRANCH | K_FAR)
#define K_IRET      (K_BRANCH | K_FAR | K_LOAD)

static void trace_steps(const Sequence *s, bool user)
{
    trace_last = user ? (uintptr_t)s->start : 0;
    seq_trace = 1;
    seq_mask = 0;
    seq_entry = (uintptr_t)s->start;
    seq_go(s, user, FLAG_TF);
    seq_trace = 0;
}

/*
 * Where single-stepping would itself change what happens, a list says what
 * is executed: @count instructions, the first @index behind @base, as they
 * stand in the source.
 */
typedef enum StopAt {
    AT_BODY,        /* at the privilege level of the run */
    AT_TRAP,        /* the same, and a debug exception comes behind it */
    AT_KERNEL,      /* at CPL 0 */
    AT_OFF,         /* it faults, or nothing is counted */
} StopAt;

typedef struct Stop {
    const uint8_t *base;
    unsigned index, count;
    StopAt at;
} Stop;

static void link_steps(Step *s, uint64_t next)
{
    s->next = next;
    if (s->record_next == 0) {
        s->record_next = next;
    }
    s->fall_through = (s->kinds & K_COND) && find_insn(s->ip)->end == next;
}

static void list_insn(const Insn *insn, bool user, StopAt at)
{
    Step *s;

    link_steps(&steps[step_count - 1], insn->start);
    s = add_step((void *)insn->start, NULL, insn->kinds, user);
    s->off = at == AT_OFF;
    if (at == AT_TRAP) {
        s->record_next = insn->end;
    }
}

static void list_steps(const Sequence *s, bool user, const Stop *list)
{
    const Insn *insn = find_insn((uintptr_t)s->start);

    /* the three instructions that all have */
    for (unsigned i = 0; i < 3; i++) {
        list_insn(&insn[i], user, AT_BODY);
    }
    for (; list->base; list++) {
        insn = find_insn((uintptr_t)list->base) + list->index;
        for (unsigned i = 0; i < list->count; i++) {
            list_insn(&insn[i], user && list->at != AT_KERNEL, list->at);
        }
    }
    link_steps(&steps[step_count - 1], (uintptr_t)s->end);
}

/*
 * Find out what a run retires from its WRMSR on, that included; @list may be
 * NULL.
 */
static void find_steps(const Sequence *s, bool user, const Stop *list)
{
    step_count = 0;
    if (user) {
        add_step(user_wrmsr, user_iret, 0, false);
        add_step(user_iret, s->start, K_IRET, false);
    } else {
        add_step(s->enter, s->start, 0, false);
    }
    if (list) {
        list_steps(s, user, list);
    } else {
        trace_steps(s, user);
    }
    add_step(s->end, seq_exit, K_INT, user);
    add_step(seq_exit, seq_exit_2, 0, false);
    add_step(seq_exit_2, seq_exit_3, 0, false);
    add_step(seq_exit_3, seq_exit_4, 0, false);
}

/* ---- events ---- */

typedef struct Event {
    const char *name;
    uint16_t code;
    uint64_t any;           /* of these kinds; 0: all instructions */
    bool taken, not_taken;  /* of a conditional branch */
} Event;

/* As Ice Lake has them; choose_events() changes what differs elsewhere. */
static Event events[] = {
    { "instructions",           0x00c0 },
    { "PREC_DIST",              0x01c0 },
    { "cycles",                 0x003c },
    { "reference cycles",       0x013c },
    { "branches",               0x00c4, K_BRANCH },
    { "conditional",            0x11c4, K_COND },
    { "conditional taken",      0x01c4, K_COND, .taken = true },
    { "conditional not taken",  0x10c4, K_COND, .not_taken = true },
    { "near taken",             0x20c4, K_COND | K_NEAR, .taken = true },
    { "near call",              0x02c4, K_CALL },
    { "near return",            0x08c4, K_RET },
    { "far",                    0x40c4, K_FAR },
    { "indirect",               0x80c4, K_INDIRECT },
    { "loads",                  0x81d0, K_LOAD },
    { "stores",                 0x82d0, K_STORE },
    { "loads or stores",        0x83d0, K_LOAD | K_STORE },
};
#define EVENTS (sizeof(events) / sizeof(events[0]))

enum { EV_INSN = 0, EV_BRANCHES = 4, EV_COND, EV_COND_TAKEN, EV_TAKEN = 8,
       EV_FAR = 11, EV_INDIRECT, EV_LOADS, EV_STORES, EV_MEM };

static unsigned cpu_model(void)
{
    uint32_t r[4], extended;

    cpuid(1, 0, r);
    extended = r[0] >> 16 & 0xf;
    return extended << 4 | (r[0] >> 4 & 0xf);
}

/* On Skylake 0x01C4 is all conditional branches, and two events are missing. */
static void choose_events(void)
{
    if (cpu_model() == 0x55) {
        events[EV_COND].code = 0x01c4;
        events[EV_COND_TAKEN].code = 0x11c4;
        events[EV_COND_TAKEN].any = K_NOTHING;
        events[EV_INDIRECT].any = K_NOTHING;
    }
}

static inline bool is_counted(const Event *e)
{
    return e->any != K_NOTHING;
}

#define SEL_USR     (1ull << 16)
#define SEL_OS      (1ull << 17)
#define SEL_EDGE    (1ull << 18)
#define SEL_PC      (1ull << 19)
#define SEL_INT     (1ull << 20)
#define SEL_ENABLE  (1ull << 22)
#define SEL_INV     (1ull << 23)
#define SEL_CMASK(n) ((uint64_t)(n) << 24)
#define SEL_ADAPT   (1ull << 34)
#define SEL_BOTH    (SEL_USR | SEL_OS)

#define STATUS_CTR_FRZ          (1ull << 59)
#define STATUS_VERSION4         (0xfull << 58)

#define DEBUGCTL_FREEZE_PERFMON (1ull << 12)
#define DEBUGCTL_FREEZE_IN_SMM  (1ull << 14)

#define FIXED_BIT(i) (1ull << (32 + (i)))
#define COUNTER_MASK 0xffffffffffffull

static bool step_counts(const Step *s, const Event *e, uint64_t privs)
{
    if (s->off || !(privs & (s->user ? SEL_USR : SEL_OS))) {
        return false;
    }
    if (e->any == 0) {
        return true;
    }
    if (!(s->kinds & e->any)) {
        return false;
    }
    if (s->kinds & K_COND) {
        return s->fall_through ? !e->taken : !e->not_taken;
    }
    return true;
}

static unsigned expected_count(const Event *e, uint64_t privs)
{
    unsigned n = 0;

    for (unsigned i = 0; i < step_count; i++) {
        n += step_counts(&steps[i], e, privs);
    }
    return n;
}

/* The @n-th event's step, from 1 */
static const Step *nth_step(const Event *e, uint64_t privs, unsigned n)
{
    for (unsigned i = 0; i < step_count; i++) {
        if (step_counts(&steps[i], e, privs) && --n == 0) {
            return &steps[i];
        }
    }
    return NULL;
}

static void pmu_clear(void)
{
    wrmsr(MSR_GLOBAL_CTRL, 0);
    for (unsigned i = 0; i < config.gp; i++) {
        wrmsr(MSR_EVTSEL0 + i, 0);
        wrmsr(MSR_FULL0 + i, 0);
    }
    wrmsr(MSR_FIXED_CTRL, 0);
    for (unsigned i = 0; i < 3; i++) {
        wrmsr(MSR_FIXED0 + i, 0);
    }
    if (config.pebs) {
        wrmsr(MSR_PEBS_ENABLE, 0);
        wrmsr(MSR_DS_AREA, 0);
        wrmsr(MSR_LD_LAT, 0);
    }
    if (config.baseline) {
        wrmsr(MSR_PEBS_DATA_CFG, 0);
    }
    wrmsr(MSR_DEBUGCTL, 0);
    wrmsr(MSR_OVF_CTRL, config.counters | 1ull << 62 | 1ull << 63 |
                        (config.version >= 4 ? STATUS_VERSION4 : 0));
    apic_write(APIC_LVTPC, APIC_MASKED);
}

static void set_counter(unsigned i, const Event *e, uint64_t flags,
                        uint64_t value)
{
    wrmsr(MSR_EVTSEL0 + i, e->code | flags | SEL_ENABLE);
    wrmsr(MSR_FULL0 + i, value & COUNTER_MASK);
}

static inline const char *priv_name(uint64_t privs)
{
    return privs == SEL_BOTH ? "OS and USR" : privs == SEL_OS ? "OS" : "USR";
}

/* ---- start ---- */

static void pmu_test_init(void)
{
    read_config();
    choose_events();
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    init_tables();
    /* no emulation of the FPU, write protection; FXSAVE, SSE */
    write_cr(0, (read_cr(0) & ~0xcull) | 0x10022);
    write_cr(4, read_cr(4) | 0x600);
    init_pages();
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
    wrmsr(MSR_STAR, (uint64_t)KERNEL_CS << 32 | 0x1bull << 48);
    wrmsr(MSR_SFMASK, 0);
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_LVTPC, APIC_MASKED);
    set_gate(0x81, seq_exit, 3);
    handlers[1] = debug_handler;
}

/* Without a PMU there is nothing to test. */
static bool has_pmu(void)
{
    uint32_t r[4];

    cpuid(0, 0, r);
    if (r[0] < 0xa) {
        return false;
    }
    cpuid(0xa, 0, r);
    return r[0] & 0xff;
}

#endif
