/*
 * Counting and PEBS in a context of the processor: what is run in each, and
 * what has to come of it
 *
 * The same few instructions are run in each context.  They are single-stepped
 * first, with all counters off, by a handler of that context: what has to be
 * counted and to be in a record follows from that.
 *
 * The DS area and its buffer lie in a window of eight linear pages.  Behind it
 * each kind of paging has pages of its own, and those where the others would
 * take them, or an address that is cut, have to stay as they are.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PEBS_CONTEXTS_H
#define PEBS_CONTEXTS_H

/* Much of what the tests share is for sequences, which aren't needed here. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

#include "pebs-test.h"

#define PAGE_LARGE      0x80ull

/* ---- what is run everywhere ---- */

/* As many instructions of it are executed. */
#define BODY_STEPS      29

#define BODY(data, push, pop)                                   \
    N("mov $0x1001, %eax")                                      \
    N("mov $0x1002, %ecx")                                      \
    N("mov $0x1003, %edx")                                      \
    N("nop")                                                    \
    L("mov " data ", %ebx")                                     \
    N("add %eax, %ebx")                                         \
    S("mov %ebx, 4+" data)                                      \
    LS("incl 8+" data)                                          \
    S(push)                                                     \
    L(pop)                                                      \
    N("mov $3, %esi")                                           \
    "1:\n"                                                      \
    N("dec %esi")                                               \
    COND("jnz 1b")                                              \
    CALL("call 2f")                                             \
    N("nop")                                                    \
    JMP("jmp 3f")                                               \
    "2:\n"                                                      \
    RET("ret")                                                  \
    "3:\n"                                                      \
    N("xor %edi, %edi")                                         \
    COND("jnz 1b")                                              \
    S("movl $5, 12+" data)                                      \
    N("stc")                                                    \
    N("adc $6, %edi")                                           \
    N("lea 4(%esi), %edx")                                      \
    N("nop")                                                    \
    N("nop")

#define SWITCH_OFF                                              \
    N("mov $0x38f, %ecx")                                       \
    N("xor %eax, %eax")                                         \
    N("xor %edx, %edx")                                         \
    "   wrmsr\n"

/* The legacy ones; R8 to R15 aren't looked at. */
#define SET_REGISTERS                                           \
    "   mov $0x03030303, %ebx\n"                                \
    "   mov $0x05050505, %ebp\n"                                \
    "   mov $0x06060606, %esi\n"                                \
    "   mov $0x07070707, %edi\n"                                \
    "   mov $0x38f, %ecx\n"

/* One single step, as the handlers store it */
typedef struct Trace {
    uint32_t ip, flags, sp;
    uint32_t regs[8];           /* as PUSHA pushes them */
} Trace;

static Trace trace[128] __attribute__((used));
static uint32_t trace_at __attribute__((used));
static uint32_t ctx_data[8] __attribute__((used));
static uint32_t ctx_end __attribute__((used));
static uint32_t nmi_ip __attribute__((used));
static uint32_t nmi_count __attribute__((used));

/* ---- handlers ---- */

/* Segments, known to the code in assembly */
#define CODE32          0x40
#define CODE32_BASED    0x48    /* EIP isn't the linear address */
#define CODE_BASE       0x10000

/* PMIs, and single steps in 32-bit code */
asm("   .text\n"
    "nmi64:\n"
    S("push %rax")
    L("mov 8(%rsp), %rax")
    S("mov %eax, nmi_ip(%rip)")
    LS("incl nmi_count(%rip)")
    L("pop %rax")
    IRET("iretq")
    "nmi64_end:\n"

    "   .code32\n"
    "debug32:\n"
    "   push %ds\n"
    "   pushal\n"
    "   mov $0x10, %eax\n"
    "   mov %eax, %ds\n"
    "   mov %eax, %es\n"
    "   mov trace_at, %edi\n"
    "   mov 36(%esp), %eax\n"
    "   stosl\n"
    "   mov 44(%esp), %eax\n"
    "   stosl\n"
    "   test $0x20000, %eax\n"
    "   lea 48(%esp), %eax\n"
    "   jz 1f\n"
    "   mov (%eax), %eax\n"
    "1: stosl\n"
    "   mov %esp, %esi\n"
    "   mov $8, %ecx\n"
    "   rep movsl\n"
    "   mov %edi, trace_at\n"
    "   mov 36(%esp), %eax\n"
    "   cmp ctx_end, %eax\n"
    "   jne 2f\n"
    "   andl $~0x100, 44(%esp)\n"
    "2: popal\n"
    "   pop %ds\n"
    "   iretl\n"

    "nmi32:\n"
    S("push %eax")
    L("mov 4(%esp), %eax")
    S("mov %eax, %ss:nmi_ip")
    LS("incl %ss:nmi_count")
    L("pop %eax")
    IRET("iretl")
    "nmi32_end:\n"
    "lost32:\n"
    "   mov $0x20, %eax\n"
    "   out %eax, $0xf4\n"
    "   .code64\n");

ASM_LABEL(nmi64);
ASM_LABEL(nmi64_end);
ASM_LABEL(debug32);
ASM_LABEL(nmi32);
ASM_LABEL(nmi32_end);
ASM_LABEL(lost32);

static uint64_t idt32[256];

static uint64_t gate32(const uint8_t *handler, unsigned dpl)
{
    uint64_t offset = (uintptr_t)handler - CODE_BASE;

    return (offset & 0xffff) | CODE32_BASED << 16 | 0x8e0000000000ull |
           (uint64_t)dpl << 45 | (offset >> 16) << 48;
}

static uint64_t segment(uint64_t base, uint64_t flags)
{
    return flags | (base & 0xffffff) << 16;
}

/* What 32-bit code needs; other exceptions end the test. */
static void init_code32(void)
{
    gdt[CODE32 / 8] = 0x00cf9b000000ffff;
    gdt[CODE32_BASED / 8] = segment(CODE_BASE, 0x00cf9b000000ffff);
    for (unsigned i = 0; i < 256; i++) {
        idt32[i] = gate32(lost32, 0);
    }
    idt32[1] = gate32(debug32, 0);
    idt32[2] = gate32(nmi32, 0);
}

/* ---- the window ---- */

/* Eight pages, across a border of large pages of 2 and 4 MiB */
#define WINDOW          0x63fc000ull
#define WINDOW_PAGES    8
#define UPPER_HALF      4       /* the first page behind that border */
#define HIGH            0x400000000ull  /* added for 64-bit addresses */

#define DS_OFFSET       0x100
#define BUFFER_OFFSET   (UPPER_HALF * PAGE - 40)    /* across the border */
#define BUFFER_SIZE     (3 * PAGE)

#define RECORD_CFG      CFG_GPR
#define RECORD_SIZE     (BASIC_SIZE + GPR_SIZE)

#define AT_DEVICE       0xfec00000ull   /* the I/O APIC */
#define AT_NOTHING      0x30000000ull
#define AT_ROM          0xfffff000ull

/* Paging structures with entries of 64 bits; CR3 is up to who uses them. */
typedef struct Tables {
    uint64_t pml4[512], pdp[512], pd[512], pt[2][512];
} Tables;

#define TABLE_FLAGS     (PAGE_P | PAGE_W | PAGE_U | PAGE_AD)

static uint64_t table_entry(const void *table)
{
    return (uintptr_t)table | TABLE_FLAGS;
}

static void map_tables(Tables *t, unsigned page, uint64_t entry)
{
    if (page < UPPER_HALF) {
        t->pt[0][512 - UPPER_HALF + page] = entry;
    } else {
        t->pt[1][page - UPPER_HALF] = entry;
    }
}

static uint64_t at_identity(unsigned page)
{
    return WINDOW + page * PAGE;
}

static void init_tables_of(Tables *t)
{
    t->pml4[0] = table_entry(t->pdp);
    t->pdp[HIGH >> 30] = table_entry(t->pd);
    t->pd[WINDOW >> 21] = table_entry(t->pt[0]);
    t->pd[(WINDOW >> 21) + 1] = table_entry(t->pt[1]);
}

/* ---- contexts ---- */

typedef struct Mode Mode;       /* the program's own */

typedef struct Context {
    const char *name;
    /*
     * Go there, to @start, with @flags in the body and the counters of @mask
     * if the WRMSR is run; come back.
     */
    void (*go)(const uint8_t *start, uint32_t flags, uint64_t mask);
    const Mode *mode;
    const uint8_t *wrmsr;       /* switches the counters on */
    const uint8_t *enter;       /* instructions between it and the body */
    unsigned enter_count;
    const uint8_t *body, *end;
    const uint8_t *off;         /* from the end to what switches them off */
    unsigned off_count;
    bool late_trap;             /* what enters sets TF for the body */
    bool user;                  /* the body is at CPL 3 */
    bool delivered;             /* it is left by an INT that works */
    uint64_t base, body_base;   /* added to EIP: where code is linked */
    const uint32_t *data;       /* the body's */
    const uint8_t *nmi, *nmi_end;
    void (*map)(unsigned page, uint64_t entry);
    bool large;                 /* a page for each half of the window */
    uint64_t (*place)(unsigned page);
    uint64_t (*host_place)(unsigned page);  /* outside of the guest */
    uint64_t linear;            /* added to that of the window */
    bool sets_ds_area;          /* going there does that */
} Context;

/* Each program's own: saves what C needs, goes there and comes back */
void context_switch(void);

static const Context *ctx;      /* the one that is tested */
static bool write_protect = true;

/* EIP of what is linked at @at */
static uint64_t ip_of(uint64_t at)
{
    bool in_body = at >= (uintptr_t)ctx->body && at <= (uintptr_t)ctx->end;

    return at - (in_body ? ctx->body_base : ctx->base);
}

/* Supervisor's pages, all there and writable */
static void map_window(const Context *c)
{
    for (unsigned page = 0; c->map && page < WINDOW_PAGES; page++) {
        c->map(page, c->place(page) | PAGE_P | PAGE_W | PAGE_AD);
    }
}

static void trace_handler(Frame *f)
{
    Trace *t = (Trace *)(uintptr_t)trace_at;

    t->ip = f->rip;
    t->flags = f->rflags;
    t->sp = f->rsp;
    for (unsigned i = 0; i < 8; i++) {
        t->regs[i] = f->regs[7 - i];
    }
    trace_at += sizeof(*t);
    if (f->rip == ctx_end) {
        f->rflags &= ~FLAG_TF;
    }
}

static void reset_ctx_data(void *at)
{
    memset(at, 0, sizeof(ctx_data));
    *(uint32_t *)at = 0x12345678;
    ((uint32_t *)at)[2] = 0x7fffffff;
}

/* Instruction @ip has led to @t. */
static void add_traced(uint64_t ip, const Trace *t, uint64_t next)
{
    const Insn *insn = find_insn(ip);
    Step *s = add_step((void *)ip, (void *)next, insn->kinds, ctx->user);

    s->fall_through = next == insn->end;
    s->has_regs = true;
    s->rflags = t->flags & ~(FLAG_TF | FLAG_RF);
    for (unsigned i = 0; i < 8; i++) {
        s->regs[i] = t->regs[7 - i];
    }
    s->regs[4] = t->sp;
}

static void trace_body(void)
{
    const Trace *t = trace;
    uint64_t ip, next;

    memset(trace, 0, sizeof(trace));
    trace_at = (uintptr_t)trace;
    ctx_end = ip_of((uintptr_t)ctx->end);
    handlers[1] = trace_handler;
    ctx->go(ctx->enter ?: ctx->body, FLAG_TF, 0);
    /* Else the jump to the body is trapped, too. */
    ip = ctx->late_trap ? (uintptr_t)ctx->body : (t++)->ip + ctx->body_base;
    for (; ip != (uintptr_t)ctx->end; ip = next, t++) {
        next = t->ip + ctx->body_base;
        add_traced(ip, t, next);
    }
}

static void add_listed(const uint8_t *start, unsigned count)
{
    const Insn *insn = find_insn((uintptr_t)start);

    for (unsigned i = 0; i < count; i++) {
        add_step((void *)insn[i].start, (void *)insn[i].end, insn[i].kinds,
                 false);
    }
}

/* What is executed from the WRMSR on that switches on, that included */
static void find_context_steps(void)
{
    unsigned first;

    step_count = 0;
    add_listed(ctx->wrmsr, 1);
    if (ctx->enter) {
        add_listed(ctx->enter, ctx->enter_count);
        steps[step_count - 1].next = (uintptr_t)ctx->body;
    }
    first = step_count;
    trace_body();
    check_equal("instructions", step_count - first, BODY_STEPS);
    if (ctx->delivered) {
        add_step(ctx->end, ctx->off, K_INT, true);
    }
    add_listed(ctx->off, ctx->off_count);
}

static void run_context(uint64_t mask)
{
    nmi_count = 0;
    ctx->go(ctx->wrmsr, 0, mask);
    check_equal("the program's own data", ctx->data[3], 5);
}

/* ---- what memory has to look like ---- */

static unsigned records_made, records_dropped;

static uint64_t (*places[12])(unsigned page);
static unsigned place_count;

/* Eight pages that only a record may change, and only where it belongs */
static void watch_place(uint64_t (*place)(unsigned page))
{
    places[place_count++] = place;
    for (unsigned page = 0; page < WINDOW_PAGES; page++) {
        fill((void *)place(page), PAGE);
    }
}

static bool is_filled_fast(const void *at, size_t n)
{
    bool equal;

    n /= 8;
    asm volatile("repe scasq" : "=@ccz"(equal), "+D"(at), "+c"(n)
                 : "a"(0xeeeeeeeeeeeeeeeeull) : "memory");
    return equal;
}

static void expect_filled(void)
{
    for (unsigned i = 0; i < place_count; i++) {
        for (unsigned page = 0; page < WINDOW_PAGES; page++) {
            uint64_t at = places[i](page);

            if (!is_filled_fast((void *)at, PAGE)) {
                check_fail("the page at 0x%llx has changed",
                           (unsigned long long)at);
                fill((void *)at, PAGE);
            }
        }
    }
}

/* What is behind the window where the next record is due */
static uint64_t (*window_place)(unsigned page);

/* The record of an instruction that enters a guest is written there. */
static void choose_place(const Step *s)
{
    bool in_guest = s->next >= (uintptr_t)ctx->body &&
                    s->next <= (uintptr_t)ctx->end;

    window_place = in_guest || !ctx->host_place ? ctx->place
                                                : ctx->host_place;
}

static uint8_t *behind(uint64_t offset)
{
    return (uint8_t *)(window_place(offset / PAGE) + offset % PAGE);
}

static uint64_t *the_ds(void)
{
    return (uint64_t *)behind(DS_OFFSET);
}

/* The DS area has to be as it was; with it gone all is to be empty. */
static void expect_rest(const uint64_t *ds)
{
    check_equal("the DS area is as it was",
                equal_bytes(the_ds(), ds, DS_SIZE), true);
    fill(the_ds(), DS_SIZE);
    expect_filled();
}

/* Where it is taken from is empty again. */
static void take_record(uint8_t *record)
{
    for (unsigned i = 0; i < RECORD_SIZE; i++) {
        record[i] = *behind(BUFFER_OFFSET + i);
        fill(behind(BUFFER_OFFSET + i), 1);
    }
}

/* A record of step @s */
static void expect_step(const uint8_t *r, const Step *s)
{
    check_equal("format", q(r), RECORD_CFG | (uint64_t)RECORD_SIZE << 48);
    check_equal("IP", q(r + 8), ip_of(s->ip));
    check_equal("applicable counters", q(r + 16), 1);
    r += BASIC_SIZE;
    check_equal("IP behind the instruction", q(r + 8), ip_of(s->next));
    if (!s->has_regs) {
        return;
    }
    check_equal("flags", q(r) & ~(FLAG_TF | FLAG_RF), s->rflags);
    for (unsigned i = 0; i < 8; i++) {
        /* Three instructions set what differs while single-stepping. */
        if (i < 3 && s - steps < ctx->enter_count + 4) {
            continue;
        }
        if (q(r + 16 + i * 8) != s->regs[i]) {
            check_fail("register %d is 0x%llx, expected 0x%llx", i,
                       (unsigned long long)q(r + 16 + i * 8),
                       (unsigned long long)s->regs[i]);
        }
    }
}

/* ---- samples ---- */

/* Counter 0 is to sample @e at its @n-th event, into an empty buffer. */
static void prepare(const Event *e, uint64_t privs, unsigned n)
{
    uint64_t at = ctx->linear + WINDOW;

    choose_place(nth_step(e, privs, n));
    pmu_clear();
    ds_init(the_ds(), at + BUFFER_OFFSET, BUFFER_SIZE);
    wrmsr(MSR_PEBS_DATA_CFG, RECORD_CFG);
    wrmsr(MSR_PEBS_ENABLE, 1);
    if (!ctx->sets_ds_area) {
        wrmsr(MSR_DS_AREA, at + DS_OFFSET);
    }
    set_counter(0, e, privs | SEL_ADAPT | SEL_INT, -(uint64_t)n);
    apic_write(APIC_LVTPC, APIC_NMI);
}

/* @ds: the DS area before the record */
static void sample_and_expect(const Event *e, uint64_t privs, unsigned n,
                              uint64_t *ds)
{
    const Step *s = nth_step(e, privs, n);
    uint8_t record[RECORD_SIZE];
    bool good = tap_good;

    ds[DS_INDEX] += RECORD_SIZE;
    run_context(1);
    take_record(record);
    expect_step(record, s);
    expect_rest(ds);
    records_made++;
    if (good && !tap_good) {
        ml_printf("# (event %d of %s, at 0x%llx)\n", n, e->name,
                  (unsigned long long)s->ip);
    }
}

static void check_sample(const Event *e, uint64_t privs, unsigned n)
{
    uint64_t ds[DS_SIZE / 8];

    prepare(e, privs, n);
    memcpy(ds, the_ds(), DS_SIZE);
    sample_and_expect(e, privs, n, ds);
    check_equal("interrupts", nmi_count, 0);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), 0);
    check_equal("counter", rdmsr(MSR_PMC0),
                FAR_AWAY + expected_count(e, privs) - n);
}

static void check_samples(uint64_t privs)
{
    static const unsigned kinds[] = {
        EV_INSN, EV_BRANCHES, EV_TAKEN, EV_FAR, EV_LOADS, EV_STORES,
    };

    check_begin();
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const Event *e = &events[kinds[i]];

        for (unsigned n = 1; n <= expected_count(e, privs); n++) {
            check_sample(e, privs, n);
        }
    }
    pmu_clear();
    check_end("%s: a record at each instruction, %s", ctx->name,
              priv_name(privs));
}

/* The handler of a PMI is counted, if CPL 0 is. */
static unsigned handler_steps(void)
{
    unsigned n = 0;

    for (const Insn *i = insn_table; i < insn_table_end; i++) {
        n += i->start >= (uintptr_t)ctx->nmi &&
             i->start < (uintptr_t)ctx->nmi_end;
    }
    return n;
}

static void check_pmi(uint64_t privs)
{
    const Event *e = &events[EV_INSN];
    unsigned count = expected_count(e, privs);

    check_begin();
    for (unsigned n = 1; n <= count; n++) {
        const Step *s = nth_step(e, privs, n);
        uint64_t ds[DS_SIZE / 8];

        prepare(e, privs, n);
        the_ds()[DS_THRESHOLD] = the_ds()[DS_BASE] + RECORD_SIZE;
        memcpy(ds, the_ds(), DS_SIZE);
        sample_and_expect(e, privs, n, ds);
        check_equal("interrupts", nmi_count, 1);
        check_equal("return address", nmi_ip, ip_of(s->next));
        check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), OVF_BUF);
        check_equal("counter", rdmsr(MSR_PMC0), FAR_AWAY + count - n +
                    (privs & SEL_OS ? handler_steps() : 0));
    }
    pmu_clear();
    check_end("%s: threshold, a PMI behind each instruction, %s", ctx->name,
              priv_name(privs));
}

/* ---- counts ---- */

static void check_counts(uint64_t privs)
{
    check_begin();
    for (unsigned first = 0; first < EVENTS; first += config.gp) {
        pmu_clear();
        for (unsigned i = 0; i < config.gp && first + i < EVENTS; i++) {
            set_counter(i, &events[first + i], privs, 0);
        }
        wrmsr(MSR_FIXED_CTRL, (privs >> 16 & 1) * 0x222 +
                              (privs >> 17 & 1) * 0x111);
        run_context(config.counters);
        for (unsigned i = 0; i < config.gp && first + i < EVENTS; i++) {
            const Event *e = &events[first + i];

            check_equal(e->name, rdmsr(MSR_PMC0 + i),
                        expected_count(e, privs));
        }
        for (unsigned i = 0; i < 3; i++) {
            check_equal("fixed counter", rdmsr(MSR_FIXED0 + i),
                        expected_count(&events[EV_INSN], privs));
        }
    }
    pmu_clear();
    check_end("%s: counts, %s", ctx->name, priv_name(privs));
}

/* ---- what can't be written ---- */

#define DROP_AT     9
#define NO_FAULT    0x13579000  /* in CR2 */

/* The record is lost, and nothing else; @ds is how it is to stay. */
static void expect_dropped(uint64_t privs, bool reloaded)
{
    uint64_t ds[DS_SIZE / 8];

    memcpy(ds, the_ds(), DS_SIZE);
    write_cr(2, NO_FAULT);
    run_context(1);
    check_equal("CR2", read_cr(2), NO_FAULT);
    expect_rest(ds);
    records_dropped++;
    check_equal("interrupts", nmi_count, 0);
    check_equal("GLOBAL_STATUS", rdmsr(MSR_STATUS), 0);
    check_equal("counter", rdmsr(MSR_PMC0),
                (reloaded ? FAR_AWAY : 0) +
                expected_count(&events[EV_INSN], privs) - DROP_AT);
}

static void drop_with_page(uint64_t privs, unsigned page, uint64_t entry,
                           bool reloaded)
{
    prepare(&events[EV_INSN], privs, DROP_AT);
    the_ds()[DS_THRESHOLD] = the_ds()[DS_BASE] + RECORD_SIZE;
    ctx->map(page, entry);
    expect_dropped(privs, reloaded);
    map_window(ctx);
}

static void check_dropped(uint64_t privs)
{
    const uint64_t there = PAGE_P | PAGE_AD, writable = there | PAGE_W;
    uint64_t lower = ctx->place(UPPER_HALF - 1);
    uint64_t upper = ctx->place(UPPER_HALF), ds_page = ctx->place(0);

    check_begin();
    drop_with_page(privs, UPPER_HALF, upper, true);
    if (!ctx->large) {      /* or the DS area is there */
        drop_with_page(privs, UPPER_HALF - 1, lower, true);
    }
    drop_with_page(privs, 0, ds_page, false);
    check_end("%s: a page isn't present", ctx->name);

    check_begin();
    drop_with_page(privs, UPPER_HALF, upper | there, true);
    drop_with_page(privs, UPPER_HALF - 1, lower | there, true);
    drop_with_page(privs, 0, ds_page | there, true);
    check_end("%s: a page is read-only", ctx->name);

    check_begin();
    drop_with_page(privs, UPPER_HALF, AT_DEVICE | writable, true);
    drop_with_page(privs, 0, AT_DEVICE | writable, false);
    drop_with_page(privs, UPPER_HALF, AT_NOTHING | writable, true);
    drop_with_page(privs, 0, AT_NOTHING | writable, false);
    check_end("%s: a page is a device, or nothing", ctx->name);

    check_begin();
    write_protect = false;
    ctx->map(UPPER_HALF, upper | there);
    check_sample(&events[EV_INSN], privs, DROP_AT);
    map_window(ctx);
    write_protect = true;
    pmu_clear();
    check_end("%s: a page is read-only, but CR0.WP clear", ctx->name);
}

static void check_dropped_unpaged(uint64_t privs)
{
    static const uint64_t bad[] = { AT_DEVICE + 0x10, AT_NOTHING, AT_ROM };
    uint8_t rom[RECORD_SIZE];

    memcpy(rom, (void *)AT_ROM, sizeof(rom));
    check_begin();
    for (unsigned i = 0; i < 3; i++) {
        prepare(&events[EV_INSN], privs, DROP_AT);
        ds_init(the_ds(), bad[i], BUFFER_SIZE);
        the_ds()[DS_THRESHOLD] = bad[i] + RECORD_SIZE;
        expect_dropped(privs, true);
    }
    for (unsigned i = 0; i < 2; i++) {
        prepare(&events[EV_INSN], privs, DROP_AT);
        wrmsr(MSR_DS_AREA, bad[i]);
        expect_dropped(privs, false);
    }
    check_equal("ROM", equal_bytes(rom, (void *)AT_ROM, sizeof(rom)), true);
    pmu_clear();
    check_end("%s: the buffer is in a device, ROM or nothing", ctx->name);
}

/* ---- all of it ---- */

static void check_context(const Context *c)
{
    uint64_t privs = c->user ? SEL_USR : SEL_OS;

    ctx = c;
    map_window(c);
    check_begin();
    find_context_steps();
    check_end("%s: there and back, single-stepping", c->name);
    if (c->map) {
        check_dropped(privs);
    } else {
        check_dropped_unpaged(privs);
    }
    check_counts(SEL_BOTH);
    check_counts(SEL_OS);
    check_counts(SEL_USR);
    check_samples(privs);
    check_samples(SEL_BOTH);
    check_pmi(privs);
}

static void say_records(void)
{
    ml_printf("# %d records, %d dropped\n", records_made, records_dropped);
    let_look();
}

#endif
