/*
 * Counts what the instructions are that chosen user programs retire
 *
 *     -plugin libretired.so,out=FILE[,base=ADDRESS][,stride=BYTES]
 *
 * A program is chosen by where it is linked: number N has its first
 * instruction in the N-th stride from the base, where nothing else in the
 * guest is. From then on its address space is counted, whatever it executes.
 * When it ends with exit or exit_group, a line with its number and its counts
 * is written; that system call counts. The file's first line names the counts.
 *
 * The plugin API tells of each attempt to execute an instruction. What it
 * counts as is added at once, and taken back if it turns out not to retire:
 *   - an instruction whose fault is delivered: the delivery's address is its
 *     own. One that traps (INT n, INT3, INT1) has retired there, unless its
 *     own exception has raised another.
 *   - a string instruction that is not finished: its next pass, or what
 *     interrupts it, has its own address again. What it has accessed stays
 *     with it, as its last pass needn't access anything.
 *   - one that is started over without anything in between: after a write into
 *     its own block, a split lock, an access to a device. A branch may be its
 *     own successor, so it is never taken back this way.
 *
 * A conditional branch is taken if what comes next isn't what lies behind it.
 * Loads and stores are those that the API tells of, but for the kernel's
 * memory: there the CPU reads descriptors, which no user program can.
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

#include "events.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define USER_LIMIT      0x800000000000ull
#define CR3_TABLE       0x000ffffffffff000ull
#define ACCESSES        (EVENT(LOAD) | EVENT(STORE) | EVENT(MEMORY))
#define MAX_PROGRAMS    64
#define NR_EXIT         60
#define NR_EXIT_GROUP   231

static const char *const names[EVENTS] = {
    [INSTRUCTION] = "instruction",
    [BRANCH] = "branch",
    [COND] = "cond",
    [COND_TAKEN] = "cond-taken",
    [COND_NTAKEN] = "cond-ntaken",
    [NEAR_TAKEN] = "near-taken",
    [NEAR_CALL] = "near-call",
    [NEAR_RETURN] = "near-return",
    [FAR_BRANCH] = "far-branch",
    [INDIRECT] = "indirect",
    [LOAD] = "load",
    [STORE] = "store",
    [MEMORY] = "memory",
};

typedef struct Insn {
    uint64_t pc;
    uint64_t behind;        /* the address of what follows it in memory */
    Class class;
} Insn;

typedef struct Program {
    uint64_t cr3;           /* 0: does not run */
    int64_t counts[EVENTS];

    /* A string instruction that was interrupted, and its accesses so far */
    uint64_t interrupted;
    uint32_t accesses;
} Program;

typedef struct VCPU {
    /* read by generated code */
    uint64_t stale;         /* CR3 was written since `program` was found */
    uint64_t counted;       /* `program` is one of ours */

    Program *program;
    const Insn *last;       /* attempted, and nothing known of its end */
    uint32_t added;         /* the events that it has been counted as */
    unsigned int raised;    /* exceptions since */
    struct qemu_plugin_register *cr3, *rax;
} VCPU;

static struct qemu_plugin_scoreboard *vcpus;
static qemu_plugin_u64 stale, counted;
static Program programs[MAX_PROGRAMS];
static uint64_t base = 0x60000000, stride = 0x1000000;
static FILE *out;
static GMutex lock;         /* of the programs, and of the file */
static GHashTable *insns;   /* a set: blocks come and go */

/* ---- what an instruction is ---- */

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

/* Taken or not, it goes to what lies behind it: nobody can tell. */
static bool hides_its_way(const uint8_t *code, size_t size, Class class)
{
    static const uint8_t nowhere[4];
    size_t length = size >= 6 ? 4 : 1;

    return (class.events & EVENT(COND)) &&
           !memcmp(code + size - length, nowhere, length);
}

static guint insn_hash(gconstpointer key)
{
    const Insn *insn = key;

    return g_int64_hash(&insn->pc);
}

static gboolean insn_equal(gconstpointer one, gconstpointer other)
{
    const Insn *a = one, *b = other;

    return a->pc == b->pc && a->behind == b->behind &&
           a->class.flow == b->class.flow &&
           a->class.events == b->class.events;
}

/* The same object for the same instruction, for good. */
static const Insn *intern(const Insn *wanted)
{
    Insn *insn;

    g_mutex_lock(&lock);
    insn = g_hash_table_lookup(insns, wanted);
    if (!insn) {
        insn = g_new(Insn, 1);
        *insn = *wanted;
        g_hash_table_add(insns, insn);
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

static void add(Program *program, uint32_t events, int64_t number)
{
    for (int event = 0; event < EVENTS; event++) {
        if (events & EVENT(event)) {
            __atomic_fetch_add(&program->counts[event], number,
                               __ATOMIC_RELAXED);
        }
    }
}

/* The last instruction is that, if it retires; once however often it is. */
static void counts_as(VCPU *vcpu, uint32_t events)
{
    add(vcpu->program, events & ~vcpu->added, 1);
    vcpu->added |= events;
}

static void take_back(VCPU *vcpu)
{
    add(vcpu->program, vcpu->added, -1);
    vcpu->added = 0;
}

/* The last instruction has retired, and @next is executed next. */
static void retire(VCPU *vcpu, uint64_t next)
{
    if (!(vcpu->last->class.events & EVENT(COND))) {
        return;
    }
    counts_as(vcpu, next == vcpu->last->behind ? EVENT(COND_NTAKEN)
                    : EVENT(COND_TAKEN) | EVENT(NEAR_TAKEN));
}

/* A string instruction goes on later with what it has accessed. */
static void interrupt_string(VCPU *vcpu)
{
    vcpu->program->interrupted = vcpu->last->pc;
    vcpu->program->accesses = vcpu->added & ACCESSES;
}

static void resume_string(VCPU *vcpu)
{
    if (vcpu->program->interrupted == vcpu->last->pc) {
        counts_as(vcpu, vcpu->program->accesses);
        vcpu->program->interrupted = 0;
    }
}

static void begin(VCPU *vcpu, const Insn *insn)
{
    vcpu->last = insn;
    vcpu->added = 0;
    counts_as(vcpu, insn->class.events);
    if (insn->class.flow == REPEATED) {
        resume_string(vcpu);
    }
}

static void attempt(unsigned int index, void *userdata)
{
    VCPU *vcpu = qemu_plugin_scoreboard_find(vcpus, index);
    const Insn *insn = userdata, *last = vcpu->last;
    bool again = last && last->pc == insn->pc && insn->class.flow != JUMPING;

    vcpu->raised = 0;
    if (again && last == insn && insn->class.flow == REPEATED) {
        return;                             /* its next pass */
    }
    if (again) {
        take_back(vcpu);
    } else if (last) {
        retire(vcpu, insn->pc);
    }
    begin(vcpu, insn);
}

static void accessed(unsigned int index, qemu_plugin_meminfo_t info,
                     uint64_t address, void *userdata)
{
    VCPU *vcpu = qemu_plugin_scoreboard_find(vcpus, index);

    if (vcpu->last && address < USER_LIMIT) {
        counts_as(vcpu, EVENT(MEMORY) | (qemu_plugin_mem_is_store(info)
                                         ? EVENT(STORE) : EVENT(LOAD)));
    }
}

static void give_up(unsigned int index, void *userdata)
{
    const Insn *insn = userdata;

    fprintf(stderr, "retired: whether the branch at %#" PRIx64
            " is taken can't be told\n", insn->pc);
    exit(1);
}

static void write_names(void)
{
    fprintf(out, "program");
    for (int event = 0; event < EVENTS; event++) {
        fprintf(out, " %s", names[event]);
    }
    fprintf(out, "\n");
    fflush(out);
}

static void write_counts(const Program *program)
{
    fprintf(out, "%td", program - programs);
    for (int event = 0; event < EVENTS; event++) {
        fprintf(out, " %" PRId64, program->counts[event]);
    }
    fprintf(out, "\n");
    fflush(out);
}

static void end_program(unsigned int index, void *userdata)
{
    VCPU *vcpu = qemu_plugin_scoreboard_find(vcpus, index);
    uint64_t number = read_register(vcpu->rax);

    if (number != NR_EXIT && number != NR_EXIT_GROUP) {
        return;
    }
    g_mutex_lock(&lock);
    write_counts(vcpu->program);
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

    vcpu->raised++;
}

/* Whether a delivery at @from keeps the last instruction from retiring. */
static bool is_unfinished(const VCPU *vcpu, uint64_t from)
{
    if (vcpu->last->pc != from) {
        return false;
    }
    switch (vcpu->last->class.flow) {
    case TRAPPING:
        return vcpu->raised > 1;
    case JUMPING:
        return vcpu->raised;
    default:
        return true;
    }
}

static void delivered(unsigned int index, enum qemu_plugin_discon_type type,
                      uint64_t from, uint64_t to, void *userdata)
{
    VCPU *vcpu = qemu_plugin_scoreboard_find(vcpus, index);

    if (!vcpu->last) {
        return;
    }
    if (!is_unfinished(vcpu, from)) {
        retire(vcpu, from);
    } else {
        if (vcpu->last->class.flow == REPEATED) {
            interrupt_string(vcpu);
        }
        take_back(vcpu);
    }
    vcpu->last = NULL;
}

/* ---- instrumenting ---- */

static void instrument_user(struct qemu_plugin_insn *insn, uint64_t pc,
                            const uint8_t *code, size_t size)
{
    Class class = classify(code, size);
    void *data = (void *)intern(&(Insn) {
        .pc = pc, .behind = pc + size, .class = class,
    });

    qemu_plugin_register_vcpu_insn_exec_cond_cb(
        insn, look_up, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_COND_NE, stale, 0,
        data);
    qemu_plugin_register_vcpu_insn_exec_cond_cb(
        insn, attempt, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_COND_NE, counted, 0,
        data);
    qemu_plugin_register_vcpu_mem_cb(insn, accessed, QEMU_PLUGIN_CB_NO_REGS,
                                     QEMU_PLUGIN_MEM_RW, NULL);
    if (hides_its_way(code, size, class)) {
        qemu_plugin_register_vcpu_insn_exec_cond_cb(
            insn, give_up, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_COND_NE,
            counted, 0, data);
    }
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
    write_names();
    insns = g_hash_table_new(insn_hash, insn_equal);
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
