/*
 * Counting and PEBS in SVM guests
 *
 * The host runs a guest in its own address space, with and without nested
 * paging, which has the window's pages elsewhere, and one that has no paging
 * of its own.  The instructions of pebs-contexts.h are run there, up to a
 * VMMCALL.
 *
 * What counts (AMD's manual, volume 2, "SVM": VMRUN is an instruction, and
 * #VMEXIT is none; what is intercepted isn't executed): VMRUN once, when it
 * has entered the guest, and an intercepted instruction not at all.
 *
 * Run with -cpu Icelake-Server,pebs=on,svm=on,npt=on.  In the end the program
 * says how many records it has found and missed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "pebs-contexts.h"

#define MSR_VM_HSAVE_PA     0xc0010117
#define EFER_SVME           (1ull << 12)
#define CR0_PG              (1ull << 31)

#define EXIT_VMMCALL        0x81
#define INTERCEPT_VMRUN     (1ull << 32)
#define INTERCEPT_VMMCALL   (1ull << 33)

/* In the VMCB */
#define CTL_INTERCEPT       0x00c
#define CTL_ASID            0x058
#define CTL_TLB             0x05c
#define CTL_EXIT_CODE       0x070
#define CTL_EXIT_INFO_1     0x078
#define CTL_EXIT_INFO_2     0x080
#define CTL_NESTED          0x090
#define CTL_EVENT_INJ       0x0a8
#define CTL_NESTED_CR3      0x0b0
#define SAVE_ES             0x400
#define SAVE_CS             0x410
#define SAVE_SS             0x420
#define SAVE_DS             0x430
#define SAVE_GDTR           0x460
#define SAVE_IDTR           0x480
#define SAVE_EFER           0x4d0
#define SAVE_CR4            0x548
#define SAVE_CR3            0x550
#define SAVE_CR0            0x558
#define SAVE_DR7            0x560
#define SAVE_DR6            0x568
#define SAVE_RFLAGS         0x570
#define SAVE_RIP            0x578
#define SAVE_RSP            0x5d8
#define SAVE_RAX            0x5f8
#define SAVE_CR2            0x640

#define TLB_FLUSH_ALL       1
#define INJECT              (1u << 31)

/* What VMRUN injects */
enum { INJECT_INTERRUPT, INJECT_NMI = 2, INJECT_EXCEPTION, INJECT_SOFT };

/* ---- going there and back ---- */

static uint8_t vmcb[4096] __attribute__((used, aligned(4096)));
static uint8_t host_save[4096] __attribute__((aligned(4096)));
static uint8_t guest_stack[4096] __attribute__((aligned(16)));

static uint64_t svm_mask __attribute__((used));
static uint64_t svm_start __attribute__((used));

asm("   .text\n"
    "context_switch:\n"
    "   push %rbx\n"
    "   push %rbp\n"
    "   push %r12\n"
    "   push %r13\n"
    "   push %r14\n"
    "   push %r15\n"
    SET_REGISTERS
    "   mov svm_mask, %eax\n"
    "   mov svm_mask + 4, %edx\n"
    "   jmp *svm_start\n"
    "svm_wrmsr:\n"
    N("wrmsr")
    "svm_enter:\n"
    N("mov $vmcb, %eax")
    N("vmrun %rax")
    "svm_back:\n"
    N("stgi")                   /* a PMI waits until here */
    SWITCH_OFF
    "   pop %r15\n"
    "   pop %r14\n"
    "   pop %r13\n"
    "   pop %r12\n"
    "   pop %rbp\n"
    "   pop %rbx\n"
    "   ret\n"

    "guest_body:\n"
    BODY("ctx_data", "push %rbx", "pop %rbp")
    "guest_end:\n"
    "   vmmcall\n"

    "   .code32\n"
    "guest32_body:\n"
    BODY("ctx_data", "push %ebx", "pop %ebp")
    "guest32_end:\n"
    "   vmmcall\n"
    "   .code64\n"

    /* This guest switches the counters on and off. */
    "guest_alone:\n"
    N("wrmsr")
    "guest_alone_body:\n"
    BODY("ctx_data", "push %rbx", "pop %rbp")
    "guest_alone_end:\n"
    SWITCH_OFF
    "guest_alone_leave:\n"
    "   vmmcall\n"

    /* A guest that gets an interrupt before its first instruction */
    "guest_handler:\n"
    N("nop")
    IRET("iretq")
    "guest_brief:\n"
    N("nop")
    N("nop")
    "guest_brief_end:\n"
    "   vmmcall\n");

ASM_LABEL(svm_wrmsr);
ASM_LABEL(svm_enter);
ASM_LABEL(svm_back);
ASM_LABEL(guest_body);
ASM_LABEL(guest_end);
ASM_LABEL(guest32_body);
ASM_LABEL(guest32_end);
ASM_LABEL(guest_alone);
ASM_LABEL(guest_alone_body);
ASM_LABEL(guest_alone_end);
ASM_LABEL(guest_alone_leave);
ASM_LABEL(guest_handler);
ASM_LABEL(guest_brief);
ASM_LABEL(guest_brief_end);

static uint32_t *vmcb_32(unsigned offset)
{
    return (uint32_t *)(vmcb + offset);
}

static uint64_t *vmcb_64(unsigned offset)
{
    return (uint64_t *)(vmcb + offset);
}

static void set_vmcb_segment(unsigned offset, uint16_t selector,
                             uint16_t attributes, uint64_t base)
{
    *vmcb_32(offset) = selector | (uint32_t)attributes << 16;
    *vmcb_32(offset + 4) = 0xffffffff;
    *vmcb_64(offset + 8) = base;
}

static void set_vmcb_table(unsigned offset, uint64_t base, uint32_t limit)
{
    *vmcb_32(offset + 4) = limit;
    *vmcb_64(offset + 8) = base;
}

static void set_vmcb(const uint8_t *rip, uint32_t flags)
{
    memset(vmcb, 0, sizeof(vmcb));
    *vmcb_64(CTL_INTERCEPT) = INTERCEPT_VMRUN | INTERCEPT_VMMCALL;
    *vmcb_32(CTL_ASID) = 1;
    vmcb[CTL_TLB] = TLB_FLUSH_ALL;
    set_vmcb_segment(SAVE_ES, KERNEL_SS, 0xc93, 0);
    set_vmcb_segment(SAVE_CS, KERNEL_CS, 0xa9b, 0);
    set_vmcb_segment(SAVE_SS, KERNEL_SS, 0xc93, 0);
    set_vmcb_segment(SAVE_DS, KERNEL_SS, 0xc93, 0);
    set_vmcb_table(SAVE_GDTR, (uintptr_t)gdt, sizeof(gdt) - 1);
    set_vmcb_table(SAVE_IDTR, (uintptr_t)idt, sizeof(idt) - 1);
    *vmcb_64(SAVE_EFER) = rdmsr(MSR_EFER);
    *vmcb_64(SAVE_CR4) = read_cr(4);
    *vmcb_64(SAVE_CR3) = read_cr(3);
    *vmcb_64(SAVE_CR2) = read_cr(2);
    *vmcb_64(SAVE_CR0) = write_protect ? read_cr(0) : read_cr(0) & ~0x10000ull;
    *vmcb_64(SAVE_DR7) = 0x400;
    *vmcb_64(SAVE_DR6) = 0xffff0ff0;
    *vmcb_64(SAVE_RFLAGS) = 2 | flags;
    *vmcb_64(SAVE_RIP) = (uintptr_t)rip;
    *vmcb_64(SAVE_RSP) = (uintptr_t)guest_stack + sizeof(guest_stack);
}

/* Protected mode, 32 bits, without paging */
static void set_vmcb_unpaged(const uint8_t *rip)
{
    set_vmcb_segment(SAVE_CS, CODE32_BASED, 0xc9b, CODE_BASE);
    set_vmcb_table(SAVE_IDTR, (uintptr_t)idt32, sizeof(idt32) - 1);
    *vmcb_64(SAVE_EFER) = EFER_SVME;
    *vmcb_64(SAVE_CR0) &= ~CR0_PG;
    *vmcb_64(SAVE_CR3) = 0;
    *vmcb_64(SAVE_RIP) = (uintptr_t)rip - CODE_BASE;
}

/* The guest has left by its VMMCALL at @end, and by nothing else. */
static void run_guest(const uint8_t *start, uint64_t end)
{
    svm_start = (uintptr_t)start;
    context_switch();
    check_equal("exit code", *vmcb_64(CTL_EXIT_CODE), EXIT_VMMCALL);
    check_equal("exit information 1", *vmcb_64(CTL_EXIT_INFO_1), 0);
    check_equal("exit information 2", *vmcb_64(CTL_EXIT_INFO_2), 0);
    check_equal("the guest's RIP", *vmcb_64(SAVE_RIP), end);
}

/* ---- paging, of both stages ---- */

/* Aligned for one table of stage 2 to have all of it */
static Tables tables_64 __attribute__((aligned(32768)));
/* The guest's physical window, in one table of stage 2 */
static uint64_t nested_pml4[512] __attribute__((aligned(4096)));
static uint64_t nested_pdp[512] __attribute__((aligned(4096)));
static uint64_t nested_pd[4][512] __attribute__((aligned(4096)));
static uint64_t nested_window[512] __attribute__((aligned(4096)));
static uint64_t nested_tables[512] __attribute__((aligned(4096)));

#define LARGE_PAGE      0x200000ull
#define GUEST_WINDOW    0x4020000ull    /* the guest's physical addresses */

static void map_64(unsigned page, uint64_t entry)
{
    map_tables(&tables_64, page, entry);
}

static uint64_t at_64(unsigned page)
{
    return GUEST_WINDOW + (page ^ 1) * PAGE;
}

static uint64_t at_nested(unsigned page)
{
    return 0x4830000 + (page ^ 6) * PAGE;
}

/* Without paging the guest has its window at other addresses, in order. */
#define UNPAGED_WINDOW  0x4030000ull

static uint64_t at_unpaged(unsigned page)
{
    return UNPAGED_WINDOW + page * PAGE;
}

static uint64_t at_unpaged_nested(unsigned page)
{
    return 0x4840000 + (page ^ 3) * PAGE;
}

/* Stage 2 has @entry for the guest-physical page at @at. */
static void map_nested(uint64_t at, uint64_t entry)
{
    bool in_window = at / LARGE_PAGE == GUEST_WINDOW / LARGE_PAGE;

    (in_window ? nested_window : nested_tables)[at / PAGE % 512] = entry;
}

static void map_window_nested(void)
{
    for (unsigned page = 0; page < WINDOW_PAGES; page++) {
        map_nested(at_64(page), at_nested(page) | TABLE_FLAGS);
        map_nested(at_unpaged(page), at_unpaged_nested(page) | TABLE_FLAGS);
    }
}

/* @entry says where the host is to have it. */
static void map_both(unsigned page, uint64_t entry)
{
    uint64_t frame = entry & ~(PAGE - 1);

    if (frame == at_nested(page)) {
        entry = at_64(page) | (entry & (PAGE - 1));
    }
    map_64(page, entry);
}

static void init_paging(void)
{
    uint64_t *pml4 = (uint64_t *)(read_cr(3) & ~0xfffull);
    uint64_t window = GUEST_WINDOW - GUEST_WINDOW % LARGE_PAGE;
    uint64_t tables = (uintptr_t)&tables_64;

    tables -= tables % LARGE_PAGE;
    init_tables_of(&tables_64);
    next_table(pml4, 0)[HIGH >> 30] = table_entry(tables_64.pd);
    write_cr(3, read_cr(3));

    nested_pml4[0] = table_entry(nested_pdp);
    for (unsigned gib = 0; gib < 4; gib++) {
        nested_pdp[gib] = table_entry(nested_pd[gib]);
        memcpy(nested_pd[gib], page_directory(gib), PAGE);
    }
    nested_pd[0][GUEST_WINDOW / LARGE_PAGE] = table_entry(nested_window);
    nested_pd[0][tables / LARGE_PAGE] = table_entry(nested_tables);
    for (unsigned i = 0; i < 512; i++) {
        nested_window[i] = (window + i * PAGE) | TABLE_FLAGS;
        nested_tables[i] = (tables + i * PAGE) | TABLE_FLAGS;
    }
    map_window_nested();
}

/* ---- contexts ---- */

struct Mode {
    bool nested, unpaged;
};

static void prepare_guest(const uint8_t *rip, uint32_t flags, uint64_t mask)
{
    set_vmcb(rip, flags);
    if (ctx->mode->unpaged) {
        set_vmcb_unpaged(rip);
    }
    if (ctx->mode->nested) {
        *vmcb_64(CTL_NESTED) = 1;
        *vmcb_64(CTL_NESTED_CR3) = (uintptr_t)nested_pml4;
    }
    svm_mask = mask;
    reset_ctx_data(ctx_data);
}

static void go(const uint8_t *start, uint32_t flags, uint64_t mask)
{
    prepare_guest(ctx->body, flags, mask);
    run_guest(start, ip_of((uintptr_t)ctx->end));
}

static void go_alone(const uint8_t *start, uint32_t flags, uint64_t mask)
{
    prepare_guest(start, flags, mask);
    *vmcb_64(SAVE_RAX) = (uint32_t)mask;
    run_guest(svm_enter, (uintptr_t)guest_alone_leave);
}

#define GUEST .late_trap = true, .data = ctx_data, .nmi = nmi64,            \
    .nmi_end = nmi64_end, .linear = HIGH
#define RUN_GUEST .go = go, .wrmsr = svm_wrmsr, .enter = svm_enter,         \
    .enter_count = 2, .body = guest_body, .end = guest_end,                 \
    .off = svm_back, .off_count = 4, GUEST

static const Context plain = {
    "SVM guest", RUN_GUEST, .mode = &(const Mode) { false },
    .map = map_64, .place = at_64
};

static const Context nested = {
    "SVM guest, nested paging", RUN_GUEST, .mode = &(const Mode) { true },
    .map = map_both, .place = at_nested, .host_place = at_64
};

static const Context unpaged = {
    "SVM guest without paging, nested paging", .go = go, .wrmsr = svm_wrmsr,
    .enter = svm_enter, .enter_count = 2, .late_trap = true,
    .body = guest32_body, .end = guest32_end, .off = svm_back, .off_count = 4,
    .body_base = CODE_BASE, .data = ctx_data, .nmi = nmi32,
    .nmi_end = nmi32_end, .mode = &(const Mode) { true, true },
    .place = at_unpaged_nested, .host_place = at_unpaged,
    .linear = UNPAGED_WINDOW - WINDOW
};

/* The guest switches the counters on and off, and the host has none. */
static const Context alone = {
    "SVM guest, its own WRMSR", .go = go_alone, GUEST, .wrmsr = guest_alone,
    .body = guest_alone_body, .end = guest_alone_end, .off = guest_alone_end,
    .off_count = 3, .mode = &(const Mode) { true }, .map = map_both,
    .place = at_nested
};

/* ---- what stage 2 refuses ---- */

static void drop_with_nested(uint64_t at, uint64_t entry, bool reloaded)
{
    prepare(&events[EV_INSN], SEL_OS, DROP_AT);
    the_ds()[DS_THRESHOLD] = the_ds()[DS_BASE] + RECORD_SIZE;
    map_nested(at, entry);
    expect_dropped(SEL_OS, reloaded);
    map_window_nested();
}

/* The window's pages are at @guest_page to the guest. */
static void check_stage_2(const Context *c,
                          uint64_t (*guest_page)(unsigned page))
{
    uint64_t lower = guest_page(UPPER_HALF - 1);
    uint64_t upper = guest_page(UPPER_HALF), ds_page = guest_page(0);
    const uint64_t readable = PAGE_P | PAGE_U | PAGE_AD;

    ctx = c;
    map_window(c);
    check_begin();
    find_context_steps();
    drop_with_nested(upper, 0, true);
    drop_with_nested(lower, 0, true);
    drop_with_nested(ds_page, 0, false);
    check_end("%s: a page isn't present in stage 2", c->name);

    check_begin();
    drop_with_nested(upper, c->place(UPPER_HALF) | readable, true);
    drop_with_nested(lower, c->place(UPPER_HALF - 1) | readable, true);
    drop_with_nested(ds_page, c->place(0) | readable, true);
    check_end("%s: a page is read-only in stage 2", c->name);

    check_begin();
    drop_with_nested(upper, AT_DEVICE | TABLE_FLAGS, true);
    drop_with_nested(ds_page, AT_DEVICE | TABLE_FLAGS, false);
    drop_with_nested(upper, AT_NOTHING | TABLE_FLAGS, true);
    drop_with_nested(ds_page, AT_NOTHING | TABLE_FLAGS, false);
    check_end("%s: a page is a device in stage 2, or nothing", c->name);
    pmu_clear();
}

static void drop_with_table(const void *table, bool reloaded)
{
    drop_with_nested((uintptr_t)table, 0, reloaded);
    map_nested((uintptr_t)table, table_entry(table));
}

static void check_tables(void)
{
    ctx = &nested;
    map_window(ctx);
    check_begin();
    find_context_steps();
    drop_with_table(tables_64.pt[1], true);
    drop_with_table(tables_64.pd, false);
    pmu_clear();
    check_end("%s: a table of stage 1 isn't present in stage 2", ctx->name);
}

/* ---- what isn't executed doesn't count ---- */

static void expect_counts(uint64_t privs, void (*run)(uint64_t mask))
{
    for (unsigned first = 0; first < EVENTS; first += config.gp) {
        pmu_clear();
        for (unsigned i = 0; i < config.gp && first + i < EVENTS; i++) {
            set_counter(i, &events[first + i], privs, 0);
        }
        run(low_bits(config.gp));
        for (unsigned i = 0; i < config.gp && first + i < EVENTS; i++) {
            check_equal(events[first + i].name, rdmsr(MSR_PMC0 + i),
                        expected_count(&events[first + i], privs));
        }
    }
    pmu_clear();
}

#define INJECTED_VECTOR 0x82
#define EXCEPTION       5       /* #BR: without an error code */

static uint32_t injected;

static void run_injected(uint64_t mask)
{
    set_vmcb(guest_brief, 0);
    *vmcb_32(CTL_EVENT_INJ) = injected;
    svm_mask = mask;
    run_guest(svm_wrmsr, (uintptr_t)guest_brief_end);
}

/* The handler runs first, though no instruction of the guest's leads there. */
static void check_injected(const char *name, unsigned type, unsigned vector)
{
    check_begin();
    injected = INJECT | type << 8 | vector;
    set_gate(vector, guest_handler, 0);
    step_count = 0;
    add_listed(svm_wrmsr, 1);
    add_listed(svm_enter, 2);
    add_listed(guest_handler, 2);
    add_listed(guest_brief, 2);
    add_listed(svm_back, 4);
    expect_counts(SEL_OS, run_injected);
    expect_counts(SEL_BOTH, run_injected);
    reset_gate(vector);
    set_gate(2, nmi64, 0);
    check_end("VMRUN injects %s", name);
}

/* Outside of a guest VMMCALL is undefined. */
SEQUENCE(vmmcall,
    N("nop")
    L("mov (%rdi), %rbx")
    N("nop")
    N("vmmcall")
    ".rept 6\n"                /* left out */
    "   nop\n"
    ".endr\n"
    "vmmcall_on:\n"
    N("nop")
    S("mov %rbx, 8(%rdi)")
    N("nop"));
ASM_LABEL(vmmcall_on);
ASM_LABEL(skip_vmmcall);

asm("   .text\n"
    "skip_vmmcall:\n"
    LS("addq $9, (%rsp)")
    IRET("iretq"));

static const Sequence vmmcall_seq = SEQ(vmmcall);
static const Stop vmmcall_list[] = {
    { vmmcall, 3, 3, AT_BODY },
    { vmmcall, 6, 1, AT_OFF },
    { skip_vmmcall, 0, 2, AT_KERNEL },
    { vmmcall_on, 0, 3, AT_BODY },
    { NULL }
};

static bool at_user_level;

static void run_vmmcall(uint64_t mask)
{
    seq_run(&vmmcall_seq, at_user_level, mask);
}

static void check_vmmcall(bool user)
{
    check_begin();
    at_user_level = user;
    set_gate(6, skip_vmmcall, 0);
    find_steps(&vmmcall_seq, user, vmmcall_list);
    expect_counts(SEL_BOTH, run_vmmcall);
    expect_counts(SEL_OS, run_vmmcall);
    expect_counts(SEL_USR, run_vmmcall);
    reset_gate(6);
    check_end("VMMCALL's #UD at CPL %d", user ? 3 : 0);
}

/* ---- all of it ---- */

static bool has_svm(void)
{
    uint32_t r[4];

    cpuid(0x80000001, 0, r);
    return r[2] >> 2 & 1;
}

int main(void)
{
    pmu_test_init();
    if (!has_pmu() || !config.baseline || !has_svm()) {
        ml_printf("1..0 # SKIP no PEBS, or no SVM: run with "
                  "-cpu Icelake-Server,pebs=on,svm=on,npt=on\n");
        return 0;
    }
    pmu_clear();
    init_paging();
    init_code32();
    set_gate(2, nmi64, 0);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
    wrmsr(MSR_VM_HSAVE_PA, (uintptr_t)host_save);
    watch_place(at_identity);
    watch_place(at_64);
    watch_place(at_nested);
    watch_place(at_unpaged);
    watch_place(at_unpaged_nested);

    check_vmmcall(false);
    check_vmmcall(true);
    check_injected("an interrupt", INJECT_INTERRUPT, INJECTED_VECTOR);
    check_injected("an NMI", INJECT_NMI, 2);
    check_injected("an exception", INJECT_EXCEPTION, EXCEPTION);
    check_injected("a soft interrupt", INJECT_SOFT, INJECTED_VECTOR);
    check_stage_2(&nested, at_64);
    check_stage_2(&unpaged, at_unpaged);
    check_tables();
    check_context(&plain);
    check_context(&nested);
    check_context(&unpaged);
    check_context(&alone);
    say_records();
    return tap_end();
}
