/*
 * Every VEX form runs or raises an exception, and never ends QEMU
 *
 * Nothing here lists instructions.  Each opcode of the maps 0F, 0F38 and 0F3A
 * is tried in a VEX prefix of two bytes and of three, with each pp, L and W,
 * with vvvv that names no register and another, and with each register field;
 * the other operand is in memory or in a register.  The legacy forms are tried
 * where the decoder has them in the same tables, and what no instruction has:
 * the other maps, and prefixes that may not stand before VEX.  All of it is
 * tried in 64-bit mode and in compatibility mode.
 *
 * What became of each is printed, a line for each opcode, for a decoder that
 * QEMU has no part in to say whether that is right:
 *
 *     # MODE SPACE MAP OPCODE VERDICTS
 *
 * A verdict is the length of the instruction in hexadecimal if it retired, "-"
 * for #UD and, for another exception, the letter whose place in the alphabet
 * is its vector.  Verdicts come in the order of the loops in try_opcode().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

/* Of what the tests share, this has no use for the sequences. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

#include "pmu-test.h"

/* Where there is nothing else in 128 MiB of RAM */
#define DATA_AT         0x1800000       /* what the instructions access */
#define DATA_SIZE       0x1000
#define OPERAND_AT      (DATA_AT + 2048)
#define TRIAL_AT        0x1900000

#define UNDEFINED       6
#define DEBUG           1

/* ---- one trial ---- */

static const uint32_t mxcsr_default __attribute__((used)) = 0x1f80;

static struct {
    uint64_t rip, cs, rflags, rsp, ss;
} trial_frame __attribute__((used)) = {
    .rip = TRIAL_AT, .rflags = FLAG_TF | 2, .ss = USER_SS,
    .rsp = DATA_AT + DATA_SIZE - 64,
};
static uint64_t trial_rsp __attribute__((used));
static char verdict;

/* What vector registers 0 and 1 hold before, and 0 afterwards */
static uint64_t vector_before[4] __attribute__((used));
static uint64_t vector_after[4] __attribute__((used));

/*
 * Usually the instruction finds all vector registers cleared, so that a gather
 * or a masked store accesses nothing but its operand; and RDI at the operand,
 * for MASKMOVDQU.
 */
asm("   .text\n"
    "trial_enter:\n"
    "   push %rbx\n"
    "   push %rbp\n"
    "   push %r12\n"
    "   push %r13\n"
    "   push %r14\n"
    "   push %r15\n"
    "   mov %rsp, trial_rsp(%rip)\n"
    "   fninit\n"
    "   ldmxcsr mxcsr_default(%rip)\n"
    "   vzeroall\n"
    "   vmovups vector_before(%rip), %ymm0\n"
    "   vmovups vector_before(%rip), %ymm1\n"
    "   mov $8, %eax\n"
    "   mov $3, %ecx\n"
    "   xor %edx, %edx\n"
    "   mov $5, %ebx\n"
    "   mov $6, %ebp\n"
    "   mov $" STRING(OPERAND_AT) ", %esi\n"
    "   mov %esi, %edi\n"
    "   lea trial_frame(%rip), %rsp\n"
    "   iretq\n"
    "trial_leave:\n"
    "   vmovups %ymm0, vector_after(%rip)\n"
    "   pop %r15\n"
    "   pop %r14\n"
    "   pop %r13\n"
    "   pop %r12\n"
    "   pop %rbp\n"
    "   pop %rbx\n"
    "   ret\n");

ASM_LABEL(trial_enter);
ASM_LABEL(trial_leave);

static char judge(const Frame *f)
{
    uint64_t length = f->rip - TRIAL_AT;

    if (f->vector == UNDEFINED) {
        return '-';
    }
    if (f->vector != DEBUG) {
        return 'A' + f->vector - 1;
    }
    return length && length <= 15 ? "0123456789abcdef"[length] : '?';
}

static void end_trial(Frame *f)
{
    verdict = judge(f);
    f->rip = (uintptr_t)trial_leave;
    f->cs = KERNEL_CS;
    f->ss = KERNEL_SS;
    f->rsp = trial_rsp;
    f->rflags = 2;
}

/* ---- an encoding ---- */

typedef struct Code {
    uint8_t byte[16];
    unsigned size;
} Code;

static void put(Code *c, uint8_t byte)
{
    c->byte[c->size++] = byte;
}

/* An operand in memory is at OPERAND_AT, in a register it is number 1. */
static void put_operand(Code *c, bool in_register, unsigned reg)
{
    if (in_register) {
        put(c, 0xc1 | reg << 3);
        return;
    }
    put(c, reg << 3 | 4);
    put(c, 0x25);       /* no base; no index, or vector register 4 */
    for (unsigned shift = 0; shift < 32; shift += 8) {
        put(c, OPERAND_AT >> shift);
    }
}

static char try_code(const Code *c)
{
    memset((void *)DATA_AT, 0, DATA_SIZE);
    *(uint32_t *)OPERAND_AT = mxcsr_default;
    memset((void *)TRIAL_AT, 0, sizeof(c->byte));   /* immediates */
    memcpy((void *)TRIAL_AT, c->byte, c->size);
    ((void (*)(void))trial_enter)();
    return verdict;
}

/* ---- all of them ---- */

/* What is tried: each combination of a prefix, map, opcode and what is below */
typedef struct Space {
    const char *name;
    uint8_t vex;                /* the first byte of VEX, or 0: legacy */
    uint8_t before[6][3];       /* prefixes before VEX or the opcode */
    unsigned prefixes;
    unsigned first_map, last_map;
    unsigned pps, ls, ws, vs;   /* how many of each field's values */
    unsigned regs;
} Space;

static const Space spaces[] = {
    { "vex3", 0xc4, { }, 1, 1, 3, 4, 2, 2, 2, 8 },
    { "vex2", 0xc5, { }, 1, 1, 1, 4, 2, 1, 2, 8 },
    { "map0", 0xc4, { }, 1, 0, 0, 4, 2, 2, 1, 1 },
    { "maps", 0xc4, { }, 1, 4, 31, 4, 1, 1, 1, 1 },
    { "before-vex", 0xc4, { { 0x66 }, { 0xf3 }, { 0xf2 }, { 0xf0 } }, 4,
      1, 3, 4, 1, 1, 1, 1 },
    { "legacy", 0,
      { { }, { 0x66 }, { 0xf3 }, { 0xf2 }, { 0x66, 0xf3 }, { 0x66, 0xf2 } }, 6,
      1, 3, 1, 1, 1, 1, 8 },
};

/* In 64-bit mode only: elsewhere REX is an instruction. */
static const Space rex_spaces[] = {
    { "rex-vex", 0xc4, { { 0x40 }, { 0x48 } }, 2, 1, 3, 4, 1, 1, 1, 1 },
    { "rex-legacy", 0,
      { { 0x48 }, { 0x66, 0x48 }, { 0xf3, 0x48 }, { 0xf2, 0x48 } }, 4,
      1, 3, 1, 1, 1, 1, 8 },
};

#define SPACES      (sizeof(spaces) / sizeof(spaces[0]))
#define REX_SPACES  (sizeof(rex_spaces) / sizeof(rex_spaces[0]))

static bool in(unsigned value, unsigned first, unsigned last)
{
    return value >= first && value <= last;
}

/* Whether a legacy opcode is that of a vector instruction */
static bool is_vector(unsigned map, unsigned op)
{
    return map != 1 || in(op, 0x10, 0x17) || in(op, 0x28, 0x2f) ||
           in(op, 0x50, 0x7f) || op == 0xc2 || in(op, 0xc4, 0xc6) ||
           in(op, 0xd0, 0xfe);
}

static void put_vex(Code *c, const Space *s, unsigned map, unsigned fields)
{
    unsigned pp = fields / (s->vs * s->ws * s->ls);
    unsigned l = fields / (s->vs * s->ws) % s->ls;
    unsigned w = fields / s->vs % s->ws;
    unsigned v = fields % s->vs ? 0xa : 0xf;

    put(c, s->vex);
    if (s->vex == 0xc5) {
        put(c, 0x80 | v << 3 | l << 2 | pp);
    } else {
        put(c, 0xe0 | map);
        put(c, w << 7 | v << 3 | l << 2 | pp);
    }
}

static void put_escape(Code *c, unsigned map)
{
    put(c, 0x0f);
    if (map > 1) {
        put(c, map == 2 ? 0x38 : 0x3a);
    }
}

static unsigned forms_tried, forms_retired, forms_strange;

static void count(char v)
{
    forms_tried++;
    forms_retired += in(v, '1', '9') || in(v, 'a', 'f');
    forms_strange += v == '?';
}

static void try_opcode(const char *bits, const Space *s, unsigned map,
                       unsigned op)
{
    static char verdicts[1024];
    unsigned n = 0;

    for (unsigned prefix = 0; prefix < s->prefixes; prefix++) {
        for (unsigned f = 0; f < s->pps * s->ls * s->ws * s->vs; f++) {
            for (unsigned i = 0; i < 2 * s->regs; i++) {
                Code c = { };

                for (unsigned k = 0; s->before[prefix][k]; k++) {
                    put(&c, s->before[prefix][k]);
                }
                if (s->vex) {
                    put_vex(&c, s, map, f);
                } else {
                    put_escape(&c, map);
                }
                put(&c, op);
                put_operand(&c, i >= s->regs, i % s->regs);
                verdicts[n] = try_code(&c);
                count(verdicts[n++]);
            }
        }
    }
    verdicts[n] = 0;
    ml_printf("# %s %s %x %x %s\n", bits, s->name, map, op, verdicts);
}

static void try_space(const char *bits, const Space *s)
{
    forms_tried = forms_retired = forms_strange = 0;
    check_begin();
    for (unsigned map = s->first_map; map <= s->last_map; map++) {
        for (unsigned op = 0; op < 256; op++) {
            if (s->vex || is_vector(map, op)) {
                try_opcode(bits, s, map, op);
            }
        }
    }
    check_equal("ended elsewhere", forms_strange, 0);
    check_end("%s-bit, %s: of %d forms %d retire", bits, s->name, forms_tried,
              forms_retired);
}

/* ---- what scalar instructions do with VEX.L ---- */

static const struct {
    uint8_t map, op, pp;
} scalars[] = {
    { 1, 0x10, 2 }, { 1, 0x10, 3 },     /* VMOVSS, VMOVSD */
    { 1, 0x2a, 2 }, { 1, 0x51, 3 },     /* VCVTSI2SS, VSQRTSD */
    { 1, 0x53, 2 }, { 1, 0x58, 2 },     /* VRCPSS, VADDSS */
    { 1, 0x5a, 3 }, { 1, 0xc2, 3 },     /* VCVTSD2SS, VCMPSD */
    { 2, 0x99, 1 }, { 2, 0xbb, 1 },     /* VFMADD132SS, VFMSUB231SS */
    { 3, 0x0a, 1 }, { 3, 0x0b, 1 },     /* VROUNDSS, VROUNDSD */
};

static void check_scalar(unsigned i, bool in_register)
{
    uint64_t expected[4];

    for (unsigned l = 0; l < 2; l++) {
        Code c = { { 0xc4, 0xe0 | scalars[i].map,
                     0x78 | l << 2 | scalars[i].pp, scalars[i].op }, 4 };

        put_operand(&c, in_register, 0);
        check_equal("it retires", in(try_code(&c), '1', 'f'), true);
        if (!l) {
            memcpy(expected, vector_after, sizeof(expected));
        }
    }
    for (unsigned k = 0; k < 4; k++) {
        check_equal("part of the result", vector_after[k], expected[k]);
    }
    check_equal("bits 191:128", vector_after[2], 0);
    check_equal("bits 255:192", vector_after[3], 0);
}

static void check_scalars(void)
{
    check_begin();
    for (unsigned k = 0; k < 4; k++) {
        vector_before[k] = 0x3ff8000040400000ull;
    }
    for (unsigned i = 0; i < sizeof(scalars) / sizeof(scalars[0]); i++) {
        bool good = tap_good;

        check_scalar(i, false);
        check_scalar(i, true);
        if (good && !tap_good) {
            ml_printf("# (map %d, opcode %x)\n", scalars[i].map,
                      scalars[i].op);
        }
    }
    memset(vector_before, 0, sizeof(vector_before));
    check_end("scalar instructions ignore VEX.L");
}

static void init(void)
{
    pmu_test_init();
    init_sysenter_segments();
    /* FSGSBASE, OSXSAVE */
    write_cr(4, read_cr(4) | 0x50000);
    asm volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
    for (unsigned vector = 0; vector < 32; vector++) {
        handlers[vector] = end_trial;
    }
    handlers[2] = NULL;
}

static bool has_avx(void)
{
    uint32_t r[4];

    cpuid(1, 0, r);
    return r[2] & 1u << 28;
}

/* Which features there are, as the leaves of CPUID have them */
static void print_features(void)
{
    uint32_t one[4], seven[4], seven_1[4], extended[4];

    cpuid(1, 0, one);
    cpuid(7, 0, seven);
    cpuid(7, 1, seven_1);
    cpuid(0x80000001, 0, extended);
    ml_printf("# CPUID %x %x %x %x %x %x %x %x %x\n", one[2], one[3], seven[1],
              seven[2], seven[3], seven_1[0], seven_1[3], extended[2],
              extended[3]);
}

int main(void)
{
    if (!has_avx()) {
        ml_printf("1..0 # SKIP no AVX: run with -cpu max\n");
        return 0;
    }
    init();
    print_features();

    trial_frame.cs = USER_CS;
    for (unsigned i = 0; i < SPACES; i++) {
        try_space("64", &spaces[i]);
    }
    for (unsigned i = 0; i < REX_SPACES; i++) {
        try_space("64", &rex_spaces[i]);
    }
    check_scalars();
    trial_frame.cs = SYSENTER_USER_CS32;
    for (unsigned i = 0; i < SPACES; i++) {
        try_space("32", &spaces[i]);
    }
    return tap_end();
}
