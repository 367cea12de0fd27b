/*
 * Counting and PEBS in each context that the processor can be in
 *
 * The 64-bit program goes to compatibility mode, protected mode without and
 * with paging of each kind, real mode, VM86 mode and 5-level paging, runs the
 * instructions of pebs-contexts.h there, and comes back.
 *
 * Run with -cpu Icelake-Server,pebs=on, and with la57=on for 5-level paging.
 * In the end the program says how many records it has found and missed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "pebs-contexts.h"

#define CR0_PE          0x1
#define CR0_WP          0x10000
#define CR0_PG          0x80000000
#define CR4_PSE         0x10
#define CR4_PAE         0x20
#define CR4_LA57        0x1000
#define EFER_LME        0x100

/* More segments, known to the code in assembly */
#define CODE16          0x50
#define DATA16          0x58
#define TSS32           0x60

/* 64 KiB below 1 MiB for 16-bit code: code, data, stack, trace */
#define LOW             0x9000
#define LOW_SEGMENT     0x900
#define LOW_DATA        0x2000
#define LOW_STACK       0x3000
#define LOW_TRACE       0x4000

#define FLAGS_VM        0x20000
#define FLAGS_IOPL3     0x3000
#define HLT             0x90f4  /* and NOP */

/* Added for 57-bit addresses, to be found in pml5[] */
#define WIDE            0x55000000000000ull
#define WIDE_NEGATIVE   0xffaa000000000000ull

/* ---- going there and back ---- */

static uint32_t ctx_run __attribute__((used));
static uint32_t ctx_start __attribute__((used));
static uint32_t ctx_flags __attribute__((used));
static uint32_t ctx_user_flags __attribute__((used));
static uint32_t ctx_cr0 __attribute__((used));
static uint32_t ctx_cr3 __attribute__((used));
static uint32_t ctx_cr4 __attribute__((used));
static uint32_t ctx_lme __attribute__((used));
static uint64_t ctx_mask __attribute__((used));
static uint64_t ctx_ds __attribute__((used));
static uint64_t saved_rsp __attribute__((used));
static uint32_t saved_cr0 __attribute__((used));
static uint32_t saved_cr3 __attribute__((used));
static uint32_t saved_cr4 __attribute__((used));

static uint8_t stack32[4096] __attribute__((used, aligned(16)));
static uint8_t stack_vm86[4096] __attribute__((aligned(16)));

typedef struct __attribute__((packed)) TablePointer {
    uint16_t limit;
    uint32_t base;
} TablePointer;

static TablePointer ctx_idt __attribute__((used));
static TablePointer saved_idt __attribute__((used));

asm("   .text\n"
    "context_switch:\n"
    "   push %rbx\n"
    "   push %rbp\n"
    "   push %r12\n"
    "   push %r13\n"
    "   push %r14\n"
    "   push %r15\n"
    "   mov %rsp, saved_rsp(%rip)\n"
    "   push $" STRING(CODE32) "\n"
    "   push $leave_long\n"
    "   lretq\n"
    "   .code32\n"
    "leave_long:\n"
    "   mov $0x10, %eax\n"
    "   mov %eax, %ds\n"
    "   mov %eax, %es\n"
    "   mov %eax, %ss\n"
    "   mov $stack32 + 4096, %esp\n"
    "   mov %cr0, %eax\n"
    "   and $0x7fffffff, %eax\n"
    "   mov %eax, %cr0\n"
    "   mov $0xc0000080, %ecx\n"
    "   rdmsr\n"
    "   and $~0x100, %eax\n"
    "   or ctx_lme, %eax\n"
    "   wrmsr\n"
    "   mov ctx_cr4, %eax\n"
    "   mov %eax, %cr4\n"
    "   mov ctx_cr3, %eax\n"
    "   mov %eax, %cr3\n"
    "   lidtl ctx_idt\n"
    "   mov ctx_cr0, %eax\n"
    "   mov %eax, %cr0\n"
    "   jmp *ctx_run\n"

    /* from any 32-bit code */
    "back:\n"
    "   mov $0x10, %eax\n"
    "   mov %eax, %ds\n"
    "   mov %eax, %es\n"
    "   mov %eax, %ss\n"
    "   mov %cr0, %eax\n"
    "   and $0x7fffffff, %eax\n"
    "   mov %eax, %cr0\n"
    "   mov $0xc0000080, %ecx\n"
    "   rdmsr\n"
    "   or $0x100, %eax\n"
    "   wrmsr\n"
    "   mov saved_cr4, %eax\n"
    "   mov %eax, %cr4\n"
    "   mov saved_cr3, %eax\n"
    "   mov %eax, %cr3\n"
    "   mov saved_cr0, %eax\n"
    "   mov %eax, %cr0\n"
    "   lidtl saved_idt\n"
    "   ljmpl $0x08, $enter_long\n"
    "   .code64\n"
    "enter_long:\n"
    "   mov saved_rsp(%rip), %rsp\n"
    "   pop %r15\n"
    "   pop %r14\n"
    "   pop %r13\n"
    "   pop %r12\n"
    "   pop %rbp\n"
    "   pop %rbx\n"
    "   ret\n");

/* ---- 64-bit code ---- */

asm("   .text\n"
    "   .code32\n"
    "run64:\n"
    "   ljmpl $0x08, $run64_here\n"
    "   .code64\n"
    "run64_here:\n"
    "   mov $stack32 + 4096, %rsp\n"
    /* 57-bit addresses are surely taken now */
    "   mov $0x600, %ecx\n"
    "   mov ctx_ds, %eax\n"
    "   mov ctx_ds + 4, %edx\n"
    "   wrmsr\n"
    SET_REGISTERS
    "   mov ctx_mask, %eax\n"
    "   mov ctx_mask + 4, %edx\n"
    "   mov ctx_flags, %r8d\n"
    "   push %r8\n"
    "   mov ctx_start, %r8d\n"
    "   popfq\n"
    "   jmp *%r8\n"
    "run64_wrmsr:\n"
    N("wrmsr")
    "run64_body:\n"
    BODY("ctx_data", "push %rbx", "pop %rbp")
    "run64_end:\n"
    SWITCH_OFF
    "   push $" STRING(CODE32) "\n"
    "   push $back\n"
    "   lretq\n");

ASM_LABEL(run64);
ASM_LABEL(run64_wrmsr);
ASM_LABEL(run64_body);
ASM_LABEL(run64_end);



/* ---- 32-bit code, and VM86's kernel ---- */

#define BASED(label) "(" label " - " STRING(CODE_BASE) ")"

asm("   .text\n"
    "   .code32\n"
    "run32:\n"
    "   ljmpl $" STRING(CODE32_BASED) ", $" BASED("run32_here") "\n"
    "run32_here:\n"
    SET_REGISTERS
    "   mov ctx_mask, %eax\n"
    "   mov ctx_mask + 4, %edx\n"
    "   pushl ctx_flags\n"
    "   popfl\n"
    "   jmp *ctx_start\n"
    "run32_wrmsr:\n"
    N("wrmsr")
    "run32_body:\n"
    BODY("ctx_data", "push %ebx", "pop %ebp")
    "run32_end:\n"
    SWITCH_OFF
    "   ljmpl $" STRING(CODE32) ", $back\n"

    "run_vm86:\n"
    "   ljmpl $" STRING(CODE32_BASED) ", $" BASED("run_vm86_here") "\n"
    "run_vm86_here:\n"
    "   mov $" STRING(TSS32) ", %eax\n"
    "   ltr %ax\n"
    "   pushl $0\n"
    "   pushl $0\n"
    "   pushl $" STRING(LOW_SEGMENT) "\n"       /* DS */
    "   pushl $" STRING(LOW_SEGMENT) "\n"       /* ES */
    "   pushl $" STRING(LOW_SEGMENT) "\n"       /* SS */
    "   pushl $" STRING(LOW_STACK) "\n"
    "   pushl ctx_user_flags\n"
    "   pushl $" STRING(LOW_SEGMENT) "\n"       /* CS */
    "   pushl $(low_user - low_code)\n"
    SET_REGISTERS
    "   mov ctx_mask, %eax\n"
    "   mov ctx_mask + 4, %edx\n"
    "   jmp *ctx_start\n"
    "vm86_wrmsr:\n"
    N("wrmsr")
    "vm86_iret:\n"
    IRET("iretl")
    "vm86_exit:\n"              /* INT or #GP */
    SWITCH_OFF
    "   ljmpl $" STRING(CODE32) ", $back\n"
    "   .code64\n");

ASM_LABEL(run32);
ASM_LABEL(run32_wrmsr);
ASM_LABEL(run32_body);
ASM_LABEL(run32_end);
ASM_LABEL(run_vm86);
ASM_LABEL(vm86_wrmsr);
ASM_LABEL(vm86_iret);
ASM_LABEL(vm86_exit);

/* ---- 16-bit code, which is copied to LOW ---- */

#define IN_LOW(label)   "(" label " - low_code)"

asm("   .text\n"
    "   .code32\n"
    "run16:\n"
    "   ljmpl $" STRING(CODE16) ", $" IN_LOW("low_protected") "\n"
    "   .code16\n"
    "low_code:\n"
    "low_protected:\n"
    "   mov $" STRING(DATA16) ", %ax\n"
    "   mov %ax, %ds\n"
    "   mov %ax, %es\n"
    "   mov %ax, %ss\n"
    "   mov %cr0, %eax\n"
    "   and $~1, %eax\n"
    "   mov %eax, %cr0\n"
    "   ljmpw $" STRING(LOW_SEGMENT) ", $" IN_LOW("low_real") "\n"
    "low_real:\n"
    "   mov $" STRING(LOW_SEGMENT) ", %ax\n"
    "   mov %ax, %ds\n"
    "   mov %ax, %es\n"
    "   mov %ax, %ss\n"
    "   mov $" STRING(LOW_STACK) ", %esp\n"
    SET_REGISTERS
    "   mov " IN_LOW("low_mask") ", %eax\n"
    "   mov 4 + " IN_LOW("low_mask") ", %edx\n"
    "   pushw " IN_LOW("low_flags") "\n"
    "   popfw\n"
    "   jmp *" IN_LOW("low_start") "\n"
    "low_wrmsr:\n"
    N("wrmsr")
    "low_body:\n"
    BODY(STRING(LOW_DATA), "push %ebx", "pop %ebp")
    "low_body_end:\n"
    SWITCH_OFF
    "   mov %cr0, %eax\n"
    "   or $1, %eax\n"
    "   mov %eax, %cr0\n"
    "   ljmpl $" STRING(CODE32) ", $back\n"

    "low_user:\n"               /* in VM86 mode */
    BODY(STRING(LOW_DATA), "push %ebx", "pop %ebp")
    "low_user_end:\n"
    K(K_BRANCH | K_FAR, "int $0x81")    /* or what replaces it */

    "low_debug:\n"
    "   pushal\n"
    "   mov %sp, %bp\n"
    "   mov " IN_LOW("low_trace_at") ", %di\n"
    "   movzwl 32(%bp), %eax\n"
    "   mov %eax, (%di)\n"
    "   movzwl 36(%bp), %eax\n"
    "   mov %eax, 4(%di)\n"
    "   lea 38(%bp), %ax\n"
    "   movzwl %ax, %eax\n"
    "   mov %eax, 8(%di)\n"
    "   add $12, %di\n"
    "   mov %bp, %si\n"
    "   mov $8, %cx\n"
    "   rep movsl\n"
    "   mov %di, " IN_LOW("low_trace_at") "\n"
    "   mov 32(%bp), %ax\n"
    "   cmp " IN_LOW("low_end") ", %ax\n"
    "   jne 2f\n"
    "   andw $~0x100, 36(%bp)\n"
    "2: popal\n"
    "   iretw\n"

    "low_nmi:\n"
    S("push %ax")
    S("push %bp")
    N("mov %sp, %bp")
    L("mov 4(%bp), %ax")
    S("mov %ax, " IN_LOW("low_nmi_ip"))
    LS("incw " IN_LOW("low_nmi_count"))
    L("pop %bp")
    L("pop %ax")
    IRET("iretw")
    "low_nmi_end:\n"
    "low_lost:\n"
    "   mov $0x21, %ax\n"
    "   out %ax, $0xf4\n"
    "   .balign 8\n"
    "low_mask:      .quad 0\n"
    "low_flags:     .word 0\n"
    "low_start:     .word 0\n"
    "low_end:       .word 0\n"
    "low_trace_at:  .word 0\n"
    "low_nmi_ip:    .word 0\n"
    "low_nmi_count: .word 0\n"
    "low_code_end:\n"
    "   .code64\n");

ASM_LABEL(run16);
ASM_LABEL(low_code);
ASM_LABEL(low_wrmsr);
ASM_LABEL(low_body);
ASM_LABEL(low_body_end);
ASM_LABEL(low_user);
ASM_LABEL(low_user_end);
ASM_LABEL(low_debug);
ASM_LABEL(low_nmi);
ASM_LABEL(low_nmi_end);
ASM_LABEL(low_lost);
ASM_LABEL(low_mask);
ASM_LABEL(low_flags);
ASM_LABEL(low_start);
ASM_LABEL(low_end);
ASM_LABEL(low_trace_at);
ASM_LABEL(low_nmi_ip);
ASM_LABEL(low_nmi_count);
ASM_LABEL(low_code_end);

static void *in_low(const uint8_t *label)
{
    return (void *)(uintptr_t)(LOW + (label - low_code));
}

static uint16_t *low_word(const uint8_t *label)
{
    return in_low(label);
}

/* ---- paging of each kind ---- */

static Tables tables_64 __attribute__((aligned(4096)));
static Tables tables_57[2] __attribute__((aligned(4096)));
static Tables tables_pae __attribute__((aligned(4096)));
static Tables tables_2m __attribute__((aligned(4096)));
static uint64_t pml5[512] __attribute__((aligned(4096)));
static uint32_t pd_4k[1024] __attribute__((aligned(4096)));
static uint32_t pd_4m[1024] __attribute__((aligned(4096)));
static uint32_t pt_4k[2][1024] __attribute__((aligned(4096)));

static void map_64(unsigned page, uint64_t entry)
{
    map_tables(&tables_64, page, entry);
}

static void map_57(unsigned page, uint64_t entry)
{
    map_tables(&tables_57[0], page, entry);
}

static void map_57_negative(unsigned page, uint64_t entry)
{
    map_tables(&tables_57[1], page, entry);
}

static void map_pae(unsigned page, uint64_t entry)
{
    map_tables(&tables_pae, page, entry);
}

static void map_2m(unsigned page, uint64_t entry)
{
    tables_2m.pd[(WINDOW >> 21) + page / UPPER_HALF] =
        (entry & ~0x1ff000ull) | PAGE_LARGE;
}

static void map_4k(unsigned page, uint64_t entry)
{
    if (page < UPPER_HALF) {
        pt_4k[0][1024 - UPPER_HALF + page] = entry;
    } else {
        pt_4k[1][page - UPPER_HALF] = entry;
    }
}

static void map_4m(unsigned page, uint64_t entry)
{
    pd_4m[(WINDOW >> 22) + page / UPPER_HALF] =
        (entry & ~0x3ff000ull) | PAGE_LARGE;
}

/* Where each kind of paging has the window's pages: none in order, if it can */
static uint64_t at_64(unsigned page)
{
    return 0x4020000 + (page ^ 1) * PAGE;
}

static uint64_t at_57(unsigned page)
{
    return 0x4030000 + (page ^ 2) * PAGE;
}

static uint64_t at_57_negative(unsigned page)
{
    return 0x4040000 + (page ^ 3) * PAGE;
}

static uint64_t at_4k(unsigned page)
{
    return 0x4000000 + (page ^ 7) * PAGE;
}

static uint64_t at_pae(unsigned page)
{
    return 0x4010000 + (page ^ 5) * PAGE;
}

static uint64_t at_4m(unsigned page)
{
    return page < UPPER_HALF ? 0x57fc000 + page * PAGE
                             : 0x5000000 + (page - UPPER_HALF) * PAGE;
}

static uint64_t at_2m(unsigned page)
{
    return page < UPPER_HALF ? 0x4bfc000 + page * PAGE
                             : 0x4800000 + (page - UPPER_HALF) * PAGE;
}

/* ---- descriptors ---- */

static uint32_t tss32[26];

static void init_descriptors(void)
{
    uint16_t (*ivt)[2] = (void *)0;

    asm("" : "+r"(ivt));        /* the compiler takes it for a NULL pointer */
    init_code32();
    gdt[CODE16 / 8] = segment(LOW, 0x00009b000000ffff);
    gdt[DATA16 / 8] = segment(LOW, 0x000093000000ffff);
    tss32[1] = (uintptr_t)stack_vm86 + sizeof(stack_vm86);
    tss32[2] = KERNEL_SS;
    tss32[25] = sizeof(tss32) << 16;

    for (unsigned i = 0; i < 256; i++) {
        ivt[i][0] = low_lost - low_code;
        ivt[i][1] = LOW_SEGMENT;
    }
    idt32[13] = gate32(vm86_exit, 0);
    idt32[0x81] = gate32(vm86_exit, 3);
    ivt[1][0] = low_debug - low_code;
    ivt[2][0] = low_nmi - low_code;
    set_gate(2, nmi64, 0);
}

/* The two task registers have to be free when they are loaded. */
static void free_tasks(void)
{
    gdt[TSS32 / 8] = segment((uintptr_t)tss32, 0x890000000000 |
                             (sizeof(tss32) - 1));
    gdt[6] &= ~(2ull << 40);
    asm volatile("ltr %w0" : : "r"(0x30));
}

static void init_pae(Tables *t)
{
    t->pdp[0] = (uintptr_t)t->pd | PAGE_P;
    for (unsigned gib = 1; gib < 4; gib++) {
        t->pdp[gib] = (uintptr_t)page_directory(gib) | PAGE_P;
    }
    memcpy(t->pd, page_directory(0), PAGE);
}

static void init_paging(void)
{
    uint64_t *pml4 = (uint64_t *)(read_cr(3) & ~0xfffull);

    init_tables_of(&tables_64);
    next_table(pml4, 0)[HIGH >> 30] = table_entry(tables_64.pd);
    pml5[0] = table_entry(pml4);
    for (unsigned i = 0; i < 2; i++) {
        init_tables_of(&tables_57[i]);
        pml5[(i ? WIDE_NEGATIVE : WIDE) >> 48 & 0x1ff] =
            table_entry(tables_57[i].pml4);
    }
    init_pae(&tables_pae);
    init_pae(&tables_2m);
    tables_pae.pd[WINDOW >> 21] = table_entry(tables_pae.pt[0]);
    tables_pae.pd[(WINDOW >> 21) + 1] = table_entry(tables_pae.pt[1]);
    for (unsigned i = 0; i < 1024; i++) {
        /* CPL 3 has the lowest 4 MiB. */
        pd_4k[i] = pd_4m[i] = i << 22 | PAGE_LARGE | PAGE_P | PAGE_W |
                              PAGE_AD | (i ? 0 : PAGE_U);
    }
    pd_4k[WINDOW >> 22] = table_entry(pt_4k[0]);
    pd_4k[(WINDOW >> 22) + 1] = table_entry(pt_4k[1]);
    write_cr(3, read_cr(3));
}

/* ---- contexts ---- */

struct Mode {
    const uint8_t *run;         /* 32-bit code that goes there */
    uint32_t cr0, cr4, lme;     /* what matters of CR0, CR4 and EFER */
    const void *cr3;            /* NULL: the program's own */
    bool real;
    uint32_t iopl;              /* VM86 mode: bits of its EFLAGS */
    uint16_t leave;             /* and what replaces INT in the end, or 0 */
};

static void go(const uint8_t *start, uint32_t flags, uint64_t mask)
{
    const Mode *mode = ctx->mode;

    ctx_mask = mask;
    ctx_run = (uintptr_t)mode->run;
    ctx_start = ip_of((uintptr_t)start);
    ctx_flags = 2 | flags;
    ctx_user_flags = 2 | flags | FLAGS_VM | mode->iopl;
    ctx_ds = ctx->linear + WINDOW + DS_OFFSET;
    ctx_cr0 = (read_cr(0) & ~(uint64_t)(CR0_PG | CR0_WP)) | mode->cr0 |
              (write_protect ? CR0_WP : 0);
    ctx_cr4 = (read_cr(4) & ~(uint64_t)CR4_PAE) | mode->cr4;
    ctx_cr3 = mode->cr3 ? (uintptr_t)mode->cr3 : read_cr(3);
    ctx_lme = mode->lme;
    saved_cr0 = read_cr(0);
    saved_cr3 = read_cr(3);
    saved_cr4 = read_cr(4);
    saved_idt = (TablePointer) { sizeof(idt) - 1, (uintptr_t)idt };
    ctx_idt = mode->lme ? saved_idt :
              mode->real ? (TablePointer) { 0x3ff, 0 } :
              (TablePointer) { sizeof(idt32) - 1, (uintptr_t)idt32 };
    reset_ctx_data(ctx_data);
    free_tasks();
    context_switch();
    free_tasks();
}

static void prepare_low(void)
{
    memcpy((void *)LOW, low_code, low_code_end - low_code);
    reset_ctx_data((void *)(LOW + LOW_DATA));
}

static void go_real(const uint8_t *start, uint32_t flags, uint64_t mask)
{
    prepare_low();
    memcpy(in_low(low_mask), &mask, sizeof(mask));
    *low_word(low_flags) = 2 | flags;
    *low_word(low_start) = start - low_code;
    *low_word(low_end) = ctx->end - low_code;
    *low_word(low_trace_at) = LOW_TRACE;
    go(start, flags, mask);
    memcpy(trace, (void *)(LOW + LOW_TRACE), sizeof(trace));
    nmi_count = *low_word(low_nmi_count);
    nmi_ip = *low_word(low_nmi_ip);
}

static void go_vm86(const uint8_t *start, uint32_t flags, uint64_t mask)
{
    prepare_low();
    if (ctx->mode->leave) {
        memcpy(in_low(low_user_end), &ctx->mode->leave,
               sizeof(ctx->mode->leave));
    }
    go(start, flags, mask);
}

#define RUN_64 .go = go, .wrmsr = run64_wrmsr, .body = run64_body,          \
    .end = run64_end, .off = run64_end, .off_count = 3, .data = ctx_data,   \
    .nmi = nmi64, .nmi_end = nmi64_end
#define RUN_32 .go = go, .wrmsr = run32_wrmsr, .body = run32_body,          \
    .end = run32_end, .off = run32_end, .off_count = 3, .data = ctx_data,   \
    .base = CODE_BASE, .body_base = CODE_BASE,                              \
    .nmi = nmi32, .nmi_end = nmi32_end
#define RUN_16 .go = go_real, .wrmsr = low_wrmsr, .body = low_body,         \
    .end = low_body_end, .off = low_body_end, .off_count = 3,               \
    .data = (void *)(LOW + LOW_DATA), .base = (uintptr_t)low_code,          \
    .body_base = (uintptr_t)low_code, .nmi = low_nmi, .nmi_end = low_nmi_end
#define RUN_VM86 .go = go_vm86, .wrmsr = vm86_wrmsr, .enter = vm86_iret,    \
    .enter_count = 1, .late_trap = true, .user = true, .body = low_user,    \
    .end = low_user_end, .off = vm86_exit, .off_count = 3,                  \
    .data = (void *)(LOW + LOW_DATA), .base = CODE_BASE,                    \
    .body_base = (uintptr_t)low_code, .nmi = nmi32, .nmi_end = nmi32_end,   \
    .map = map_4k, .place = at_4k

#define MODE(...) .mode = &(const Mode) { __VA_ARGS__ }
#define MODE_VM86(...) MODE(run_vm86, CR0_PG, CR4_PSE, 0, pd_4k, __VA_ARGS__)
#define MODE_57 MODE(run64, CR0_PG, CR4_PAE | CR4_LA57, EFER_LME, pml5)

enum { CONTEXT_COMPATIBILITY };

static const Context contexts[] = {
    [CONTEXT_COMPATIBILITY] = {
      "compatibility mode", RUN_32, MODE(run32, CR0_PG, CR4_PAE, EFER_LME),
      .map = map_64, .place = at_64, .linear = HIGH },
    { "64-bit mode", RUN_64, MODE(run64, CR0_PG, CR4_PAE, EFER_LME),
      .map = map_64, .place = at_64, .linear = HIGH },
    { "protected mode without paging", RUN_32, MODE(run32),
      .place = at_identity },
    { "32-bit paging, 4 KiB", RUN_32, MODE(run32, CR0_PG, CR4_PSE, 0, pd_4k),
      .map = map_4k, .place = at_4k },
    { "32-bit paging, 4 MiB", RUN_32, MODE(run32, CR0_PG, CR4_PSE, 0, pd_4m),
      .map = map_4m, .large = true, .place = at_4m },
    { "PAE paging, 4 KiB", RUN_32,
      MODE(run32, CR0_PG, CR4_PAE, 0, tables_pae.pdp),
      .map = map_pae, .place = at_pae },
    { "PAE paging, 2 MiB", RUN_32,
      MODE(run32, CR0_PG, CR4_PAE, 0, tables_2m.pdp),
      .map = map_2m, .large = true, .place = at_2m },
    { "real mode", RUN_16, MODE(run16, .real = true), .place = at_identity },
    { "VM86 mode, left by INT", RUN_VM86, MODE_VM86(.iopl = FLAGS_IOPL3),
      .delivered = true },
    { "VM86 mode, left by INT's #GP", RUN_VM86, MODE_VM86(.iopl = 0) },
    { "VM86 mode, left by HLT's #GP", RUN_VM86, MODE_VM86(.leave = HLT) },
    { "5-level paging", RUN_64, MODE_57, .map = map_57, .place = at_57,
      .linear = WIDE + HIGH, .sets_ds_area = true },
    { "5-level paging, the upper half", RUN_64, MODE_57,
      .map = map_57_negative, .place = at_57_negative,
      .linear = WIDE_NEGATIVE + HIGH, .sets_ds_area = true },
};
#define CONTEXTS (sizeof(contexts) / sizeof(contexts[0]))

/* ---- the address itself ---- */

static bool has_la57(void)
{
    uint32_t r[4];

    cpuid(7, 0, r);
    return r[2] >> 16 & 1;
}

/*
 * WRMSR checks an address by the width that the processor has, whatever
 * CR4.LA57 is: see also KVM's is_noncanonical_msr_address().
 */
static void check_ds_area(void)
{
    unsigned bits = has_la57() ? 57 : 48;
    uint64_t half = 1ull << (bits - 1);

    check_begin();
    check_equal("CR4.LA57", read_cr(4) & CR4_LA57, 0);
    check_equal("the first that is too high", try_wrmsr(MSR_DS_AREA, half),
                13);
    check_equal("the last that is too low", try_wrmsr(MSR_DS_AREA, -half - 8),
                13);
    check_equal("a bit behind", try_wrmsr(MSR_DS_AREA, half << 1), 13);
    check_equal("IA32_DS_AREA", rdmsr(MSR_DS_AREA), 0);
    check_equal("the highest", try_wrmsr(MSR_DS_AREA, half - 8), -1);
    check_equal("IA32_DS_AREA", rdmsr(MSR_DS_AREA), half - 8);
    check_equal("the lowest", try_wrmsr(MSR_DS_AREA, -half), -1);
    check_equal("IA32_DS_AREA", rdmsr(MSR_DS_AREA), -half);
    wrmsr(MSR_DS_AREA, 0);
    check_end("IA32_DS_AREA takes addresses of %d bits", bits);
}

/* With 4-level paging there is nothing at an address of 57 bits. */
static void check_too_wide(void)
{
    uint64_t at = WIDE + HIGH + WINDOW + DS_OFFSET;

    ctx = &contexts[CONTEXT_COMPATIBILITY];
    map_window(ctx);
    check_begin();
    find_context_steps();
    prepare(&events[EV_INSN], SEL_OS, DROP_AT);
    check_equal("IA32_DS_AREA", try_wrmsr(MSR_DS_AREA, at), -1);
    expect_dropped(SEL_OS, false);
    pmu_clear();
    check_end("a DS area that only 5-level paging could reach");
}

int main(void)
{
    uint64_t (*const used[])(unsigned page) = {
        at_identity, at_64, at_57, at_57_negative, at_4k, at_pae, at_4m, at_2m,
    };

    pmu_test_init();
    if (!has_pmu() || !config.baseline) {
        ml_printf("1..0 # SKIP no PEBS: run with "
                  "-cpu Icelake-Server,pebs=on\n");
        return 0;
    }
    pmu_clear();
    init_descriptors();
    init_paging();
    for (unsigned i = 0; i < sizeof(used) / sizeof(used[0]); i++) {
        watch_place(used[i]);
    }

    check_ds_area();
    if (has_la57()) {
        check_too_wide();
    }
    for (unsigned i = 0; i < CONTEXTS; i++) {
        if (!(contexts[i].mode->cr4 & CR4_LA57) || has_la57()) {
            check_context(&contexts[i]);
        }
    }
    say_records();
    return tap_end();
}
