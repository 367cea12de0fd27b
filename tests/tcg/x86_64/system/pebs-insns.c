/*
 * A precise sample never skids: a million of them, over every kind of
 * instruction that CPL 3 may execute
 *
 * Nothing here lists instructions.  Each opcode of each map is tried, with
 * every prefix that selects another instruction, every register field that
 * does, and operands in memory and in registers; what retires becomes part of
 * a long program, and what faults doesn't.  Of that program single-stepping,
 * with all counters off, tells which instructions are executed in which order:
 * at period P, sample k is on instruction k * P of those.
 *
 * Run with -cpu Icelake-Server,pebs=on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

/* Of what the tests share, this has no use for the sequences. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

#include "pmu-test.h"

#define SAMPLES         1000000
#define ENCODINGS_LEAST 15000   /* there are more, or a loop is broken */

/* Where there is nothing else in 128 MiB of RAM */
#define DATA_AT         0x1800000ull    /* what the instructions access */
#define DATA_SIZE       0x4000ull
#define TRIAL_AT        0x1900000ull
#define CODE_AT         0x2000000ull    /* the program */
#define CODE_SIZE       0x1000000ull
#define BUFFER_AT       0x4000000ull
#define BUFFER_SIZE     0x2000000ull

#define OPERAND_AT      (DATA_AT + 2048)
#define STACK_AT        (DATA_AT + 0x3800)

#define MAX_ENCODINGS   0x10000
#define MAX_RETIRED     0x100000

static uint8_t *const code = (uint8_t *)CODE_AT;
static unsigned code_size;

/* Where each encoding is in the program */
static struct {
    uint32_t start, end;
} encodings[MAX_ENCODINGS];
static unsigned encoding_count;

/* Where each instruction that retires begins, in order */
static uint32_t retired[MAX_RETIRED];
static unsigned retired_count;

/* ---- bytes of instructions ---- */

typedef struct Code {
    uint8_t byte[64];
    unsigned size;
} Code;

static void put(Code *c, uint8_t byte)
{
    c->byte[c->size++] = byte;
}

static void put_le(Code *c, uint64_t value, unsigned bytes)
{
    while (bytes--) {
        put(c, value);
        value >>= 8;
    }
}

static void put_all(Code *c, const Code *more)
{
    memcpy(c->byte + c->size, more->byte, more->size);
    c->size += more->size;
}

enum { AX, CX, DX, BX, SP, BP, SI, DI, GPRS };

/* What each register holds before each instruction */
static uint32_t gpr_value(unsigned reg)
{
    static const uint32_t values[GPRS] = {
        [AX] = 8, [CX] = 3, [DX] = 0, [BX] = DATA_AT + 0x400, [SP] = STACK_AT,
        [BP] = STACK_AT + 0x400, [SI] = DATA_AT + 0x1800,
        [DI] = DATA_AT + 0x2800,
    };

    return values[reg];
}

static void put_gpr(Code *c, unsigned reg)
{
    put(c, 0xb8 | reg);                 /* mov $value, %reg */
    put_le(c, gpr_value(reg), 4);
}

static uint32_t default_mxcsr = 0x1f80;

static void put_fpu_reset(Code *c)
{
    put_le(c, 0xe3db, 2);               /* fninit */
    put_le(c, 0x2514ae0f, 4);           /* ldmxcsr default_mxcsr */
    put_le(c, (uintptr_t)&default_mxcsr, 4);
}

/* ---- an encoding: prefixes, map, opcode, operand ---- */

enum { ONE_BYTE, MAP_0F, MAP_0F38, MAP_0F3A, MAPS };

static bool in(unsigned value, unsigned first, unsigned last)
{
    return value >= first && value <= last;
}

static bool is_prefix(unsigned op)
{
    return in(op, 0x40, 0x4f) || in(op, 0x64, 0x67) || op == 0x26 ||
           op == 0x2e || op == 0x36 || op == 0x3e || op == 0xf0 ||
           op == 0xf2 || op == 0xf3;
}

/*
 * What the loops leave out: what leads elsewhere, pushes TF, or suppresses a
 * trap.  The rest of the program has most of it.
 */
static bool is_apart(unsigned map, unsigned op)
{
    switch (map) {
    case ONE_BYTE:
        return is_prefix(op) || op == 0x0f || op == 0x62 || op == 0xc4 ||
               op == 0xc5 || in(op, 0x9c, 0x9d) || in(op, 0xc2, 0xc3) ||
               in(op, 0xca, 0xcb) || op == 0xcd || op == 0xcf || op == 0xf1;
    case MAP_0F:
        return op == 0x38 || op == 0x3a || op == 0xb2;
    default:
        return false;
    }
}

static bool has_modrm(unsigned map, unsigned op)
{
    switch (map) {
    case ONE_BYTE:
        return (op < 0x40 && (op & 7) < 4) || op == 0x63 || op == 0x69 ||
               op == 0x6b || in(op, 0x80, 0x8f) || in(op, 0xc0, 0xc1) ||
               in(op, 0xc6, 0xc7) || in(op, 0xd0, 0xd3) ||
               in(op, 0xd8, 0xdf) || in(op, 0xf6, 0xf7) || op >= 0xfe;
    case MAP_0F:
        return !(in(op, 0x04, 0x0c) || op == 0x0e || in(op, 0x30, 0x37) ||
                 op == 0x77 || in(op, 0x80, 0x8f) || in(op, 0xa0, 0xa2) ||
                 in(op, 0xa8, 0xaa) || in(op, 0xc8, 0xcf));
    default:
        return true;
    }
}

/* Whether the register field is part of the opcode */
static bool is_group(unsigned map, unsigned op)
{
    switch (map) {
    case ONE_BYTE:
        return in(op, 0x80, 0x83) || op == 0x8c || op == 0x8e || op == 0x8f ||
               in(op, 0xc0, 0xc1) || in(op, 0xc6, 0xc7) ||
               in(op, 0xd0, 0xd3) || in(op, 0xd8, 0xdf) ||
               in(op, 0xf6, 0xf7) || op >= 0xfe;
    case MAP_0F:
        return op <= 0x01 || op == 0x0d || in(op, 0x18, 0x1f) ||
               in(op, 0x71, 0x73) || op == 0xae || op == 0xba || op == 0xc7;
    case MAP_0F38:
        return op == 0xf3;
    default:
        return false;
    }
}

/* Whether the other register is, too */
static bool is_wide_group(unsigned map, unsigned op)
{
    return map == ONE_BYTE ? in(op, 0xd8, 0xdf) : map == MAP_0F && op == 0x01;
}

static bool is_indirect_branch(unsigned map, unsigned op, unsigned reg)
{
    return map == ONE_BYTE && op == 0xff && in(reg, 2, 5);
}

static bool loads_ss(unsigned map, unsigned op, unsigned reg)
{
    return map == ONE_BYTE && op == 0x8e && reg == 2;
}

static bool touches_fpu(unsigned map, unsigned op)
{
    return map == ONE_BYTE ? in(op, 0xd8, 0xdf) : map == MAP_0F && op == 0xae;
}

static bool is_gather(unsigned map, unsigned op)
{
    return map == MAP_0F38 && in(op, 0x90, 0x93);
}

/* ---- does it retire? ---- */

typedef enum Mode {
    TRIAL,          /* of one encoding */
    STEPPING,       /* the program, single-stepping */
    SAMPLING,       /* the program, as fast as it goes */
} Mode;

static Mode mode;
static uint64_t trial_at;
static unsigned trial_length;   /* 0: it faults, or leads elsewhere */
static unsigned trial_changed;  /* registers that it changed */

static void end_trial(Frame *f)
{
    f->rip = seq_end;
    f->rflags &= ~FLAG_TF;
}

static void judge_trial(Frame *f)
{
    uint64_t length = f->rip - trial_at;

    trial_length = length <= 15 ? length : 0;
    for (unsigned reg = 0; reg < GPRS; reg++) {
        if (f->regs[reg] != gpr_value(reg)) {
            trial_changed |= 1u << reg;
        }
    }
    end_trial(f);
}

static void step_trial(Frame *f)
{
    if (trace_last == trial_at && f->rip != trial_at) {
        judge_trial(f);
    }
    trace_last = f->rip;
}

static void retire(uint64_t ip)
{
    if (retired_count == MAX_RETIRED) {
        ml_printf("Bail out! the program is too long\n");
        quit(2);
    }
    retired[retired_count++] = ip - CODE_AT;
}

static void step_program(Frame *f)
{
    /* A round of a string instruction is no instruction. */
    if (f->rip != trace_last) {
        retire(trace_last);
    }
    trace_last = f->rip;
    if (f->rip == seq_end) {
        f->rflags &= ~FLAG_TF;
    }
}

static void on_debug(Frame *f)
{
    if (mode == TRIAL) {
        step_trial(f);
    } else if (mode == STEPPING) {
        step_program(f);
    }
}

static void on_breakpoint(Frame *f)
{
    if (mode == TRIAL) {
        judge_trial(f);
    } else if (mode == STEPPING) {
        retire(trace_last);
        trace_last = f->rip;
    }
}

static uint64_t behind_encoding(uint64_t ip)
{
    unsigned low = 0, high = encoding_count;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (CODE_AT + encodings[middle].end > ip) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low < encoding_count ? CODE_AT + encodings[low].end : 0;
}

static void on_fault(Frame *f)
{
    uint64_t behind = behind_encoding(f->rip);

    if (mode == TRIAL) {
        trial_length = 0;
        end_trial(f);
    } else if (f->rip < CODE_AT || !behind) {
        ml_printf("Bail out! vector %d at 0x%llx\n", (int)f->vector,
                  (unsigned long long)f->rip);
        quit(2);
    } else {
        f->rip = trace_last = behind;
    }
}

/* The same state for each run: x87, SSE, AVX and MPX, segments, memory */
static void clean_state(void)
{
    static uint8_t area[4096] __attribute__((aligned(64)));
    void *data = (void *)DATA_AT;
    size_t words = DATA_SIZE / 8;

    *(uint32_t *)(area + 24) = default_mxcsr;
    asm volatile("xrstor64 %0" : : "m"(area), "a"(-1), "d"(-1));
    asm volatile("mov %0, %%ds; mov %0, %%es; mov %1, %%fs; mov %1, %%gs"
                 : : "r"(USER_SS), "r"(0));
    asm volatile("rep stosq" : "+D"(data), "+c"(words)
                 : "a"(0x0303030303030303) : "memory");
    for (unsigned reg = 0; reg < GPRS; reg++) {
        seq_regs[reg] = gpr_value(reg);
    }
}

/* The registers that switching counters on needs */
static void put_start(Code *c)
{
    put_gpr(c, AX);
    put_gpr(c, CX);
    put_gpr(c, DX);
}

static const uint8_t exit_code[] = { 0xcd, 0x81 };      /* int $0x81 */

static bool try_encoding(const Code *before, const Code *c)
{
    static Code trial;
    const Sequence seq = { NULL, (void *)TRIAL_AT, (void *)(TRIAL_AT + 128) };

    trial.size = 0;
    put_start(&trial);
    put_all(&trial, before);
    trial_at = TRIAL_AT + trial.size;
    put_all(&trial, c);
    memset((void *)TRIAL_AT, 0, 128);
    memcpy((void *)TRIAL_AT, trial.byte, trial.size);
    memcpy(seq.end, exit_code, sizeof(exit_code));

    mode = TRIAL;
    trial_length = trial_changed = 0;
    trace_last = TRIAL_AT;
    seq_trace = 1;
    seq_mask = 0;
    seq_entry = TRIAL_AT;
    seq_go(&seq, true, FLAG_TF);
    return trial_length;
}

/* ---- the program ---- */

static void append(const Code *c, unsigned size)
{
    if (code_size + size > CODE_SIZE) {
        ml_printf("Bail out! the program is too large\n");
        quit(2);
    }
    memcpy(code + code_size, c->byte, size);
    code_size += size;
}

static bool is_repeated(const Code *c)
{
    static Code last;
    bool same = last.size == trial_length;

    for (unsigned i = 0; same && i < last.size; i++) {
        same = last.byte[i] == c->byte[i];
    }
    last = *c;
    last.size = trial_length;
    return same;
}

/* Let an encoding be part of the program, if it retires. */
static void add_encoding(unsigned map, unsigned op, const Code *c)
{
    Code before = { }, behind = { };

    if (is_gather(map, op)) {
        put_le(&before, 0xe4efddc5, 4);     /* vpxor %ymm4, %ymm4, %ymm4 */
    }
    if (!try_encoding(&before, c) || is_repeated(c)) {
        return;
    }
    for (unsigned reg = 0; reg < GPRS; reg++) {
        if (trial_changed & 1u << reg) {
            put_gpr(&behind, reg);
        }
    }
    if (touches_fpu(map, op)) {
        put_fpu_reset(&behind);
    }
    if (map == ONE_BYTE && op == 0xfd) {
        put(&behind, 0xfc);                 /* cld */
    }
    append(&before, before.size);
    encodings[encoding_count].start = code_size;
    append(c, trial_length);
    encodings[encoding_count++].end = code_size;
    append(&behind, behind.size);
}

static void add_in_memory(unsigned map, unsigned op, const Code *c,
                          unsigned reg)
{
    Code more = *c;

    put(&more, reg << 3 | 4);
    put(&more, 0x25);
    put_le(&more, OPERAND_AT, 4);
    if (map == MAP_0F && op == 0x0f) {      /* 3DNow!: the opcode comes last */
        for (unsigned suffix = 0; suffix < 256; suffix++) {
            more.byte[more.size] = suffix;
            add_encoding(map, op, &more);
        }
        return;
    }
    add_encoding(map, op, &more);
}

static void add_in_register(unsigned map, unsigned op, const Code *c,
                            unsigned reg, unsigned rm)
{
    Code more = *c;

    put(&more, 0xc0 | reg << 3 | rm);
    add_encoding(map, op, &more);
}

/* An opcode with its prefixes: with all its operands */
static void add_opcode(unsigned map, unsigned op, const Code *c)
{
    /* An index must not be the destination of a gather. */
    unsigned first = is_gather(map, op) ? 1 : 0;
    unsigned last = is_group(map, op) ? 7 : first;

    if (!has_modrm(map, op)) {
        Code more = *c;

        if (map == ONE_BYTE && in(op, 0xa0, 0xa3)) {
            put_le(&more, OPERAND_AT, 8);
        }
        add_encoding(map, op, &more);
        return;
    }
    for (unsigned reg = first; reg <= last; reg++) {
        if (is_indirect_branch(map, op, reg) || loads_ss(map, op, reg)) {
            continue;
        }
        add_in_memory(map, op, c, reg);
        if (!is_wide_group(map, op)) {
            add_in_register(map, op, c, reg, CX);
            continue;
        }
        for (unsigned rm = 0; rm < 8; rm++) {
            add_in_register(map, op, c, reg, rm);
        }
    }
}

static void put_escape(Code *c, unsigned map)
{
    static const uint8_t second[MAPS] = { [MAP_0F38] = 0x38,
                                          [MAP_0F3A] = 0x3a };

    if (map != ONE_BYTE) {
        put(c, 0x0f);
    }
    if (second[map]) {
        put(c, second[map]);
    }
}

static void add_legacy(void)
{
    static const uint8_t prefixes[][3] = {
        { }, { 0x66 }, { 0xf3 }, { 0xf2 }, { 0xf0 }, { 0x48 }, { 0x66, 0x48 },
        { 0xf3, 0x48 }, { 0xf2, 0x48 }, { 0xf0, 0x48 }, { 0x66, 0xf3 },
        { 0x66, 0xf2 }, { 0x67 }, { 0x64 },
    };

    for (unsigned i = 0; i < sizeof(prefixes) / 3; i++) {
        for (unsigned map = 0; map < MAPS; map++) {
            for (unsigned op = 0; op < 256; op++) {
                Code c = { };

                for (unsigned k = 0; prefixes[i][k]; k++) {
                    put(&c, prefixes[i][k]);
                }
                put_escape(&c, map);
                put(&c, op);
                if (!is_apart(map, op)) {
                    add_opcode(map, op, &c);
                }
            }
        }
    }
}

static void add_vex(void)
{
    for (unsigned map = MAP_0F; map < MAPS; map++) {
        for (unsigned i = 0; i < 4 * 2 * 2 * 256; i++) {
            unsigned op = i & 255, pp = i >> 8 & 3, l = i >> 10 & 1;
            Code c = { };

            put(&c, 0xc4);
            put(&c, 0xe0 | map);
            put(&c, i >> 11 << 7 | 0x78 | l << 2 | pp);
            put(&c, op);
            add_opcode(map, op, &c);
        }
    }
}

/* Both once ended QEMU: VROUNDSS with VEX.L retires, VPINSRW without 66 not. */
static const uint8_t vroundss_l[] = { 0xc4, 0xe3, 0x7d, 0x0a, 0xc1, 0 };
static const uint8_t vpinsrw_no_66[] = { 0xc4, 0xe1, 0x78, 0xc4, 0xc1, 0 };

/* What raises #UD is part of the program, too: no counter may count it. */
static void add_undefined(void)
{
    Code c = { .size = sizeof(vpinsrw_no_66) };

    memcpy(c.byte, vpinsrw_no_66, c.size);
    encodings[encoding_count].start = code_size;
    append(&c, c.size);
    encodings[encoding_count++].end = code_size;
}

/* What leads elsewhere, and what undoes what its partner has stored */
asm("   .text\n"
    "apart:\n"
    "   pushf\n"
    "   popf\n"
    "   movq $0, -8(%rsp)\n"
    "   call 1f\n"
    "   jmp 2f\n"
    "1: ret\n"
    "2: push $7\n"
    "   call 1f\n"
    "   jmp 2f\n"
    "1: ret $8\n"
    "2: lea 1f(%rip), %rax\n"
    "   jmp *%rax\n"
    "1: lea 1f(%rip), %rax\n"
    "   call *%rax\n"
    "1: lea 1f(%rip), %rax\n"
    "   mov %rax, (%rsp)\n"
    "   jmp *(%rsp)\n"
    "1: lea 1f(%rip), %rax\n"
    "   mov %rax, (%rsp)\n"
    "   call *(%rsp)\n"
    "1: pop %rax\n"
    "   push $" STRING(USER_CS) "\n"
    "   lea 1f(%rip), %rax\n"
    "   push %rax\n"
    "   lretq\n"
    "1: push $" STRING(USER_CS) "\n"
    "   lea 1f(%rip), %rax\n"
    "   push %rax\n"
    "   lretq $8\n"
    "1: lea 1f(%rip), %rax\n"
    "   mov %eax, -32(%rsp)\n"
    "   movl $" STRING(USER_CS) ", -28(%rsp)\n"
    "   ljmp *-32(%rsp)\n"
    "1: lea 1f(%rip), %rax\n"
    "   mov %eax, -32(%rsp)\n"
    "   movl $" STRING(USER_CS) ", -28(%rsp)\n"
    "   lcall *-32(%rsp)\n"
    "   jmp 2f\n"
    "1: lretl\n"
    "2: mov %rsp, %rax\n"
    "   push $" STRING(USER_SS) "\n"
    "   push %rax\n"
    "   pushf\n"
    "   push $" STRING(USER_CS) "\n"
    "   lea 1f(%rip), %rax\n"
    "   push %rax\n"
    "   iretq\n"
    "1: movq $0, -24(%rsp)\n"
    "   mov $-1, %eax\n"
    "   mov %eax, %edx\n"
    "   fxsave64 (%rsi)\n"
    "   fxrstor64 (%rsi)\n"
    "   fxsave (%rsi)\n"
    "   fxrstor (%rsi)\n"
    "   xor %ecx, %ecx\n"
    "   movq %rcx, 512(%rsi)\n"
    "   movq %rcx, 520(%rsi)\n"
    "   movq %rcx, 528(%rsi)\n"
    "   xsave64 (%rsi)\n"
    "   xrstor64 (%rsi)\n"
    "   xsaveopt (%rsi)\n"
    "   xrstor (%rsi)\n"
    "   xgetbv\n"
    "   stmxcsr (%rsi)\n"
    "   ldmxcsr (%rsi)\n"
    "   vstmxcsr (%rsi)\n"
    "   vldmxcsr (%rsi)\n"
    "   fnstenv (%rsi)\n"
    "   fldenv (%rsi)\n"
    "   fnsave (%rsi)\n"
    "   frstor (%rsi)\n"
    "   fnstcw (%rsi)\n"
    "   fldcw (%rsi)\n"
    "   rdfsbase %rax\n"
    "   wrfsbase %rax\n"
    "   rdgsbase %eax\n"
    "   wrgsbase %eax\n"
    "   mov $8, %eax\n"
    "   xor %edx, %edx\n"
    "   movl $3, (%rsi)\n"
    "   divl (%rsi)\n"
    "   xor %edx, %edx\n"
    "   idivl (%rsi)\n"
    "   movq $0x40003, (%rsi)\n"
    "   mov $8, %eax\n"
    "   xor %edx, %edx\n"
    "   divw (%rsi)\n"
    "   idivb (%rsi)\n"
    "apart_end:\n");
ASM_LABEL(apart);
ASM_LABEL(apart_end);

static void add_apart(void)
{
    for (const uint8_t *at = apart; at < apart_end; at++) {
        Code byte = { { *at }, 1 };

        append(&byte, 1);
    }
}

static Sequence program = { NULL, (void *)CODE_AT, NULL };

static void make_program(void)
{
    Code start = { }, end = { };

    put_start(&start);
    append(&start, start.size);
    add_legacy();
    add_vex();
    add_undefined();
    add_apart();
    program.end = code + code_size;
    put_all(&end, &(Code) { { 0xcd, 0x81 }, 2 });
    append(&end, end.size);
}

static void find_retired(void)
{
    mode = STEPPING;
    trace_last = CODE_AT;
    seq_trace = 1;
    seq_mask = 0;
    seq_entry = CODE_AT;
    seq_go(&program, true, FLAG_TF);
    seq_trace = 0;
    retire((uintptr_t)program.end);
}

/* How many of the encodings retire where they stand in the program */
static unsigned encodings_retired(void)
{
    unsigned found = 0;

    for (unsigned i = 0, k = 0; i < encoding_count; i++) {
        while (k < retired_count && retired[k] < encodings[i].start) {
            k++;
        }
        found += k < retired_count && retired[k] == encodings[i].start;
    }
    return found;
}

static bool is_retired(uint32_t start)
{
    for (unsigned k = 0; k < retired_count; k++) {
        if (retired[k] == start) {
            return true;
        }
    }
    return false;
}

/* How often an encoding is in the program; each time it retires, or never. */
static unsigned count_encoding(const uint8_t *bytes, unsigned size,
                               bool retires)
{
    unsigned found = 0;

    for (unsigned i = 0; i < encoding_count; i++) {
        const uint8_t *at = code + encodings[i].start;
        bool same = encodings[i].end - encodings[i].start == size;

        for (unsigned k = 0; same && k < size; k++) {
            same = at[k] == bytes[k];
        }
        if (same) {
            check_equal("it retires", is_retired(encodings[i].start), retires);
            found++;
        }
    }
    return found;
}

/* ---- samples ---- */

static uint64_t ds_area[64] __attribute__((aligned(4096)));

enum { DS_BASE = 4, DS_INDEX, DS_MAXIMUM, DS_THRESHOLD, DS_RESET };

#define BASIC_SIZE  32
#define GPR_SIZE    144

/* A way to sample: counter @bit, and what else is counted beside it */
typedef struct Way {
    const char *name;
    unsigned bit;
    bool gprs;                  /* records have the registers */
    struct {
        unsigned event;
        uint64_t privs;
    } others[7];
} Way;

static const Way ways[] = {
    { "a counter alone", 0 },
    { "fixed counter 0", 32 },
    { "records with registers", 0, .gprs = true },
    { "beside loads and stores", 1, .others = {
        { EV_LOADS, SEL_USR }, { EV_STORES, SEL_USR } } },
    { "beside events of every kind", 0, .others = {
        { 4, SEL_USR }, { 5, SEL_USR }, { 6, SEL_USR }, { EV_TAKEN, SEL_USR },
        { EV_FAR, SEL_USR }, { EV_LOADS, SEL_USR }, { EV_MEM, SEL_USR } } },
    { "beside what CPL 0 counts", 2, .others = {
        { EV_INSN, SEL_OS }, { EV_MEM, SEL_BOTH }, { EV_TAKEN, SEL_OS } } },
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

static const unsigned periods[] = { 1, 2, 3, 4, 5, 7, 11, 13, 64 };

static unsigned record_size(const Way *w)
{
    return BASIC_SIZE + (w->gprs ? GPR_SIZE : 0);
}

static void set_sampling(const Way *w, unsigned period)
{
    uint64_t value = -(uint64_t)period & COUNTER_MASK;

    if (w->bit < 32) {
        set_counter(w->bit, &events[EV_INSN],
                    SEL_USR | (w->gprs ? SEL_ADAPT : 0), value);
    } else {
        wrmsr(MSR_FIXED_CTRL, 2 << (w->bit - 32) * 4);
        wrmsr(MSR_FIXED0 + w->bit - 32, value);
    }
    ds_area[DS_RESET + (w->bit < 32 ? w->bit : 8 + w->bit - 32)] = value;
}

/* The counters of what else is counted, as a mask */
static uint64_t set_others(const Way *w)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < 7 && w->others[i].privs; i++) {
        unsigned counter = i < w->bit ? i : i + 1;

        set_counter(counter, &events[w->others[i].event], w->others[i].privs,
                    0);
        mask |= 1ull << counter;
    }
    return mask;
}

static void ds_init(void)
{
    memset(ds_area, 0, sizeof(ds_area));
    ds_area[DS_BASE] = ds_area[DS_INDEX] = BUFFER_AT;
    ds_area[DS_MAXIMUM] = BUFFER_AT + BUFFER_SIZE;
    ds_area[DS_THRESHOLD] = BUFFER_AT + BUFFER_SIZE + 1;
    wrmsr(MSR_DS_AREA, (uintptr_t)ds_area);
}

static void complain(unsigned sample, uint64_t got, uint64_t expected)
{
    const uint8_t *at = (const uint8_t *)expected;

    check_fail("sample %d is at 0x%llx, not at 0x%llx: %02x %02x %02x %02x "
               "%02x %02x %02x %02x", sample + 1, (unsigned long long)got,
               (unsigned long long)expected, at[0], at[1], at[2], at[3],
               at[4], at[5], at[6], at[7]);
}

static void check_records(const Way *w, unsigned period)
{
    unsigned count = retired_count / period;

    check_equal("samples", (ds_area[DS_INDEX] - BUFFER_AT) / record_size(w),
                count);
    for (unsigned i = 0; i < count; i++) {
        const uint64_t *r = (void *)(BUFFER_AT + i * record_size(w));
        unsigned index = (i + 1) * period - 1;

        if (r[1] != CODE_AT + retired[index]) {
            complain(i, r[1], CODE_AT + retired[index]);
        }
    }
}

/* One run of the program; returns how many samples it gave. */
static unsigned sample(const Way *w, unsigned period)
{
    uint64_t counter = w->bit < 32 ? MSR_PMC0 + w->bit
                                   : MSR_FIXED0 + w->bit - 32;

    ds_init();
    wrmsr(MSR_PEBS_DATA_CFG, w->gprs ? 2 : 0);
    wrmsr(MSR_PEBS_ENABLE, 1ull << w->bit);
    set_sampling(w, period);
    mode = SAMPLING;
    seq_run(&program, true, 1ull << w->bit | set_others(w));
    check_records(w, period);
    check_equal("the counter", rdmsr(counter) | ~COUNTER_MASK,
                -(uint64_t)(period - retired_count % period));
    pmu_clear();
    return retired_count / period;
}

static unsigned check_way(const Way *w)
{
    unsigned count = 0;

    check_begin();
    for (unsigned i = 0; i < sizeof(periods) / sizeof(periods[0]); i++) {
        bool good = tap_good;

        count += sample(w, periods[i]);
        if (good && !tap_good) {
            ml_printf("# (period %d)\n", periods[i]);
        }
    }
    check_end("%s: %d samples, each on its instruction", w->name, count);
    return count;
}

static void init(void)
{
    pmu_test_init();
    /* FSGSBASE, OSXSAVE */
    write_cr(4, read_cr(4) | 0x50000);
    asm volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
    for (unsigned vector = 0; vector < 32; vector++) {
        handlers[vector] = on_fault;
    }
    handlers[1] = on_debug;
    handlers[2] = NULL;
    handlers[3] = on_breakpoint;
    set_gate(3, vectors + 3 * 16, 3);
    before_run = clean_state;
}

asm("   .text\n"
    "back_at_once:\n"
    "   sysretq\n");
ASM_LABEL(back_at_once);

int main(void)
{
    unsigned samples = 0;

    init();
    if (!has_pmu()) {
        ml_printf("1..0 # SKIP no PMU: run with -cpu Icelake-Server,pebs=on\n");
        return 0;
    }
    wrmsr(MSR_LSTAR, (uintptr_t)back_at_once);
    wrmsr(MSR_SFMASK, FLAG_TF | FLAG_IF);
    pmu_clear();

    check_begin();
    make_program();
    find_retired();
    check_equal("there are enough", encodings_retired() >= ENCODINGS_LEAST, 1);
    check_equal("VROUNDSS with VEX.L",
                count_encoding(vroundss_l, sizeof(vroundss_l), true), 1);
    check_equal("VPINSRW without 66",
                count_encoding(vpinsrw_no_66, sizeof(vpinsrw_no_66), false), 1);
    check_end("%d encodings, of which %d retire; %d instructions",
              encoding_count, encodings_retired(), retired_count);

    for (unsigned i = 0; i < WAYS || samples < SAMPLES; i++) {
        samples += check_way(&ways[i % WAYS]);
    }
    check_begin();
    check_equal("a million", samples >= SAMPLES, 1);
    check_end("%d samples in all", samples);
    return tap_end();
}
