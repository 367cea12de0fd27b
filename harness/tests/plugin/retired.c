/*
 * Counts the user instructions that chosen programs retire
 *
 *     -plugin libretired.so,out=FILE[,base=ADDRESS][,stride=BYTES]
 *
 * A program is chosen by where it is linked: number N has its first
 * instruction in the N-th stride from the base, where nothing else in the
 * guest is. From then on its address space is counted, whatever it executes.
 * When it ends with exit or exit_group, a line "N INSTRUCTIONS" is written;
 * that system call counts.
 *
 * The plugin API tells of each attempt to execute an instruction. What is
 * taken back:
 *   - an instruction whose fault is delivered: the delivery's address is its
 *     own. One that traps (INT n, INT3, INT1) has retired there.
 *   - a string instruction that is not finished: its next pass, or what
 *     interrupts it, has its own address again.
 *   - one that is started over without anything in between: after a write into
 *     its own block, a split lock, an access to a device. A branch may be its
 *     own successor, so it is never taken back this way.
 *
 * The API's callback for exceptions names an address that need not be up to
 * date; the one for interrupts is called again at each delivery, of exceptions
 * too, when the address is. So the first only tells faults from interrupts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define USER_LIMIT      0x800000000000ull
#define CR3_TABLE       0x000ffffffffff000ull
#define MAX_PROGRAMS    64
#define NR_EXIT         60
#define NR_EXIT_GROUP   231

typedef enum Kind {
    PLAIN,
    STRING,         /* with a REP prefix: executed once per pass */
    BRANCH,         /* may be its own successor */
    TRAP,           /* delivers an exception, and has retired */
} Kind;

typedef struct Insn {
    uint64_t pc;
    Kind kind;
} Insn;

typedef struct Program {
    uint64_t cr3;           /* 0: does not run */
    int64_t count;
} Program;

typedef struct VCPU {
    /* read by generated code */
    uint64_t stale;         /* CR3 was written since `program` was found */
    uint64_t counted;       /* `program` is one of ours */

    Program *program;
    const Insn *last;       /* attempted, and nothing known of its end */
    bool raised;            /* an exception was raised since */
    struct qemu_plugin_register *cr3, *rax;
} VCPU;

static struct qemu_plugin_scoreboard *vcpus;
static qemu_plugin_u64 stale, counted;
static Program programs[MAX_PROGRAMS];
static uint64_t base = 0x60000000, stride = 0x1000000;
static FILE *out;
static GMutex lock;         /* of the programs, and of the file */
static GHashTable *insns;   /* by address and kind: blocks come and go */

/* ---- what an instruction is ---- */

static bool is_prefix(uint8_t byte, bool *rep)
{
    switch (byte) {
    case 0xf2:
    case 0xf3:
        *rep = true;
        return true;
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64 ... 0x67: case 0xf0:
    case 0x40 ... 0x4f:
        return true;
    default:
        return false;
    }
}

static Kind two_byte_kind(uint8_t opcode)
{
    switch (opcode) {
    case 0x05: case 0x07:                   /* SYSCALL, SYSRET */
    case 0x34: case 0x35:                   /* SYSENTER, SYSEXIT */
    case 0x80 ... 0x8f:                     /* Jcc */
        return BRANCH;
    default:
        return PLAIN;
    }
}

static Kind kind_of(const uint8_t *code, size_t size)
{
    bool rep = false;
    size_t i = 0;

    while (i + 1 < size && is_prefix(code[i], &rep)) {
        i++;
    }
    switch (code[i]) {
    case 0x0f:
        return i + 1 < size ? two_byte_kind(code[i + 1]) : PLAIN;
    case 0x6c ... 0x6f: case 0xa4 ... 0xa7: case 0xaa ... 0xaf:
        return rep ? STRING : PLAIN;
    case 0x70 ... 0x7f:                     /* Jcc */
    case 0xc2: case 0xc3: case 0xca: case 0xcb: case 0xcf:  /* returns */
    case 0xe0 ... 0xe3:                     /* LOOP, JRCXZ */
    case 0xe8: case 0xe9: case 0xeb:        /* CALL, JMP */
        return BRANCH;
    case 0xff:                              /* CALL and JMP, groups 2 to 5 */
        return i + 1 < size && (code[i + 1] >> 3 & 7) >= 2 &&
               (code[i + 1] >> 3 & 7) <= 5 ? BRANCH : PLAIN;
    case 0xcc: case 0xcd: case 0xf1:
        return TRAP;
    default:
        return PLAIN;
    }
}

static bool is_syscall(const uint8_t *code, size_t size)
{
    return size == 2 && code[0] == 0x0f && code[1] == 0x05;
}

/* MOV to CR3 */
static bool writes_cr3(const uint8_t *code, size_t size)
{
    return size >= 3 && code[size - 3] == 0x0f && code[size - 2] == 0x22 &&
           (code[size - 1] >> 3 & 7) == 3;
}

/* The same object for the same instruction, for good. */
static const Insn *intern(uint64_t pc, Kind kind)
{
    uint64_t key = pc << 2 | kind;
    Insn *insn;

    g_mutex_lock(&lock);
    insn = g_hash_table_lookup(insns, &key);
    if (!insn) {
        uint64_t *copy = g_new(uint64_t, 1);

        *copy = key;
        insn = g_new(Insn, 1);
        *insn = (Insn) { .pc = pc, .kind = kind };
        g_hash_table_insert(insns, copy, insn);
    }
    g_mutex_unlock(&lock);
    return insn;
}

/* ---- which program runs ---- */

static uint64_t read_register(struct qemu_plugin_register *handle)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    uint64_t value = 0;

    /* The first register has the handle NULL. */
    if (!qemu_plugin_read_register(handle, bytes)) {
        fprintf(stderr, "retired: a register can't be read\n");
        exit(1);
    }
    memcpy(&value, bytes->data, MIN(bytes->len, sizeof(value)));
    return value;
}

static Program *find_program(uint64_t cr3, uint64_t pc)
{
    for (int i = 0; i < MAX_PROGRAMS; i++) {
        if (programs[i].cr3 == cr3) {
            return &programs[i];
        }
    }
    if (pc >= base && (pc - base) / stride < MAX_PROGRAMS) {
        Program *program = &programs[(pc - base) / stride];

        *program = (Program) { .cr3 = cr3 };
        return program;
    }
    return NULL;
}

/* The first user instruction since CR3 was written. */
static void look_up(unsigned int index, void *userdata)
{
    VCPU *vcpu = qemu_plugin_scoreboard_find(vcpus, index);
    const Insn *insn = userdata;

    g_mutex_lock(&lock);
    vcpu->program = find_program(read_register(vcpu->cr3) & CR3_TABLE,
                                 insn->pc);
    g_mutex_unlock(&lock);
    vcpu->counted = vcpu->program != NULL;
    vcpu->stale = false;
    vcpu->last = NULL;
}

/* ---- counting ---- */

static void add(VCPU *vcpu, int64_t number)
{
    __atomic_fetch_add(&vcpu->program->count, number, __ATOMIC_RELAXED);
}

static void attempt(unsigned int index, void *userdata)
{
    VCPU *vcpu = qemu_plugin_scoreboard_find(vcpus, index);
    const Insn *insn = userdata;

    if (vcpu->last && vcpu->last->pc == insn->pc && insn->kind != BRANCH) {
        add(vcpu, -1);
    }
    add(vcpu, 1);
    vcpu->last = insn;
    vcpu->raised = false;
}

static void end_program(unsigned int index, void *userdata)
{
    VCPU *vcpu = qemu_plugin_scoreboard_find(vcpus, index);
    uint64_t number = read_register(vcpu->rax);

    if (number != NR_EXIT && number != NR_EXIT_GROUP) {
        return;
    }
    g_mutex_lock(&lock);
    fprintf(out, "%td %" PRId64 "\n", vcpu->program - programs,
            vcpu->program->count);
    fflush(out);
    vcpu->program->cr3 = 0;
    vcpu->program = NULL;
    vcpu->counted = false;
    vcpu->last = NULL;
    g_mutex_unlock(&lock);
}

static void raised(unsigned int index, enum qemu_plugin_discon_type type,
                   uint64_t from, uint64_t to, void *userdata)
{
    VCPU *vcpu = qemu_plugin_scoreboard_find(vcpus, index);

    vcpu->raised = true;
}

static void delivered(unsigned int index, enum qemu_plugin_discon_type type,
                      uint64_t from, uint64_t to, void *userdata)
{
    VCPU *vcpu = qemu_plugin_scoreboard_find(vcpus, index);
    const Insn *last = vcpu->last;

    vcpu->last = NULL;
    if (!last || last->pc != from || last->kind == TRAP ||
        (last->kind == BRANCH && !vcpu->raised)) {
        return;
    }
    add(vcpu, -1);
}

/* ---- instrumenting ---- */

static void instrument_user(struct qemu_plugin_insn *insn, uint64_t pc,
                            const uint8_t *code, size_t size)
{
    void *data = (void *)intern(pc, kind_of(code, size));

    qemu_plugin_register_vcpu_insn_exec_cond_cb(
        insn, look_up, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_COND_NE, stale, 0,
        data);
    qemu_plugin_register_vcpu_insn_exec_cond_cb(
        insn, attempt, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_COND_NE, counted, 0,
        data);
    if (is_syscall(code, size)) {
        qemu_plugin_register_vcpu_insn_exec_cond_cb(
            insn, end_program, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_COND_NE,
            counted, 0, data);
    }
}

static void translated(struct qemu_plugin_tb *tb, void *userdata)
{
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t pc = qemu_plugin_insn_vaddr(insn);
        uint8_t code[16];
        size_t size = qemu_plugin_insn_data(insn, code, sizeof(code));

        if (pc < USER_LIMIT) {
            instrument_user(insn, pc, code, size);
        } else if (writes_cr3(code, size)) {
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
                insn, QEMU_PLUGIN_INLINE_STORE_U64, stale, 1);
        }
    }
}

static void started(unsigned int index, void *userdata)
{
    VCPU *vcpu = qemu_plugin_scoreboard_find(vcpus, index);
    g_autoptr(GArray) registers = qemu_plugin_get_registers();

    for (guint i = 0; i < registers->len; i++) {
        qemu_plugin_reg_descriptor *reg =
            &g_array_index(registers, qemu_plugin_reg_descriptor, i);

        if (!strcmp(reg->name, "cr3")) {
            vcpu->cr3 = reg->handle;
        } else if (!strcmp(reg->name, "rax")) {
            vcpu->rax = reg->handle;
        }
    }
}

static bool parse(const char *option)
{
    if (g_str_has_prefix(option, "out=")) {
        out = fopen(option + 4, "w");
        return out;
    }
    if (g_str_has_prefix(option, "base=")) {
        base = strtoull(option + 5, NULL, 0);
        return true;
    }
    if (g_str_has_prefix(option, "stride=")) {
        stride = strtoull(option + 7, NULL, 0);
        return stride;
    }
    return false;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id,
                                           const qemu_info_t *info,
                                           int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (!parse(argv[i])) {
            fprintf(stderr, "retired: bad option: %s\n", argv[i]);
            return -1;
        }
    }
    if (!out || !info->system_emulation) {
        fprintf(stderr, "retired: needs out=FILE, and a whole machine\n");
        return -1;
    }
    insns = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    vcpus = qemu_plugin_scoreboard_new(sizeof(VCPU));
    stale = qemu_plugin_scoreboard_u64_in_struct(vcpus, VCPU, stale);
    counted = qemu_plugin_scoreboard_u64_in_struct(vcpus, VCPU, counted);
    qemu_plugin_register_vcpu_init_cb(id, started, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
    qemu_plugin_register_vcpu_discon_cb(id, QEMU_PLUGIN_DISCON_EXCEPTION,
                                        raised, NULL);
    qemu_plugin_register_vcpu_discon_cb(id, QEMU_PLUGIN_DISCON_INTERRUPT,
                                        delivered, NULL);
    return 0;
}
