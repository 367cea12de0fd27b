/*
 * The emulated PMU at translation time
 *
 * A block settles what it will retire once, on entry.  The code that does so
 * is generated last, when the block is known, and put in first.  Whatever
 * leaves a block early gives back what it didn't retire: an instruction that
 * faults by the block's unwind data, a conditional branch by code on the edge
 * that isn't counted, a string instruction that isn't finished likewise.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "cpu.h"
#include "tcg/tcg-op.h"
#include "tcg/tcg-temp-internal.h"
#include "exec/helper-proto.h"
#include "exec/helper-gen.h"
#include "tcg/pmu.h"
#include "tcg/pmu-gen.h"

static intptr_t budget_offset(const PMUGen *pmu, unsigned word)
{
    if (pmu->set == 0 && word == 0) {
        return (intptr_t)offsetof(CPUState, neg.retire_budget) -
               (intptr_t)sizeof(CPUState);
    }
    return offsetof(CPUX86State, pmu.left[pmu->set][word]);
}

/* Whether the instruction translated last ends a final block. */
static bool is_final(const DisasContextBase *db)
{
    return pmu_is_final(tb_cflags(db->tb), db->num_insns);
}

/*
 * Nothing of a block has been done where the look for an exit request leaves
 * it, and budget code goes there: before icount's store, if there is one.
 */
void pmu_gen_tb_start(DisasContextBase *db, PMUGen *pmu)
{
    pmu->level = pmu_flags_level(db->tb->flags);
    pmu->set = pmu_flags_set(db->tb->flags);
    pmu->entry = tcg_last_op();

    if (tb_cflags(db->tb) & CF_USE_ICOUNT) {
        tcg_debug_assert(pmu->entry->opc == INDEX_op_st16);
        pmu->entry = QTAILQ_PREV(pmu->entry, link);
    }
}

void pmu_gen_insn_start(DisasContextBase *db, PMUGen *pmu)
{
    pmu->pc = db->pc_next;
    pmu->faults = false;
    pmu->locked = false;
    pmu->branch_kinds = 0;
    pmu->edge_kinds = 0;
}

/*
 * Helpers that access the guest's data, by the start of their names.  What
 * they read to look up descriptors isn't counted: no load of the program's.
 */
static const struct {
    const char *name;
    uint16_t kinds;
    /* The first argument after env is the address; else the helper notes it. */
    bool has_address;
} memory_helpers[] = {
    { "atomic_",          BIT(PMU_LOAD) | BIT(PMU_STORE), true },
    { "nonatomic_",       BIT(PMU_LOAD) | BIT(PMU_STORE), true },
    { "ld_i128",          BIT(PMU_LOAD), true },
    { "st_i128",          BIT(PMU_STORE), true },
    { "fldt_ST0",         BIT(PMU_LOAD), true },
    { "fstt_ST0",         BIT(PMU_STORE), true },
    { "fbld_ST0",         BIT(PMU_LOAD), true },
    { "fbst_ST0",         BIT(PMU_STORE), true },
    { "fldenv",           BIT(PMU_LOAD), true },
    { "fstenv",           BIT(PMU_STORE), true },
    { "frstor",           BIT(PMU_LOAD), true },
    { "fsave",            BIT(PMU_STORE), true },
    { "fxrstor",          BIT(PMU_LOAD), true },
    { "fxsave",           BIT(PMU_STORE), true },
    { "xrstor",           BIT(PMU_LOAD), true },
    { "xsave",            BIT(PMU_LOAD) | BIT(PMU_STORE), true },
    { "bound",            BIT(PMU_LOAD), true },
    { "bndldx",           BIT(PMU_LOAD), true },
    { "bndstx",           BIT(PMU_STORE), true },
    { "maskmov",          BIT(PMU_STORE), false },
    { "vpmaskmovd_st",    BIT(PMU_STORE), false },
    { "vpmaskmovq_st",    BIT(PMU_STORE), false },
    { "vpgather",         BIT(PMU_LOAD), false },
    { "lcall_",           BIT(PMU_STORE), false },
    { "lret_",            BIT(PMU_LOAD), false },
    { "iret_",            BIT(PMU_LOAD), false },
};

/* Generate, before @op, that what may overflow accesses @address. */
static void gen_note_address(TCGOp *op, TCGArg address, uint16_t kinds)
{
    TCGv_i64 value = temp_tcgv_i64(arg_temp(address));

    tcg_ctx->emit_before_op = op;
    if (kinds & BIT(PMU_LOAD)) {
        tcg_gen_st_i64(value, tcg_env,
                       offsetof(CPUX86State, pmu.load_address));
    }
    if (kinds & BIT(PMU_STORE)) {
        tcg_gen_st_i64(value, tcg_env,
                       offsetof(CPUX86State, pmu.store_address));
    }
    tcg_ctx->emit_before_op = NULL;
}

static uint16_t call_kinds(TCGOp *op, TCGArg *address)
{
    const char *name = tcg_call_info(op)->name;

    for (int i = 0; i < ARRAY_SIZE(memory_helpers); i++) {
        if (g_str_has_prefix(name, memory_helpers[i].name)) {
            if (memory_helpers[i].has_address) {
                *address = op->args[TCGOP_CALLO(op) + 1];
            }
            return memory_helpers[i].kinds;
        }
    }
    return 0;
}

/* The kinds that @op makes an instruction; sets @address if it is known. */
static uint16_t op_kinds(TCGOp *op, TCGArg *address)
{
    const TCGOpDef *def = &tcg_op_defs[op->opc];

    switch (op->opc) {
    case INDEX_op_qemu_ld:
    case INDEX_op_qemu_ld2:
        *address = op->args[def->nb_oargs + def->nb_iargs - 1];
        return BIT(PMU_LOAD);
    case INDEX_op_qemu_st:
    case INDEX_op_qemu_st2:
        *address = op->args[def->nb_iargs - 1];
        return BIT(PMU_STORE);
    case INDEX_op_call:
        return call_kinds(op, address);
    default:
        return 0;
    }
}

uint16_t pmu_gen_memory_kinds(DisasContextBase *db, PMUGen *pmu)
{
    uint16_t kinds = 0;

    if (!pmu_gen_counts_memory(pmu)) {
        return 0;
    }
    for (TCGOp *op = db->insn_start; op; op = QTAILQ_NEXT(op, link)) {
        TCGArg address = 0;

        kinds |= op_kinds(op, &address);
    }
    return kinds ? kinds | BIT(PMU_MEM) : 0;
}

static void gen_start_noting(DisasContextBase *db, const PMUGen *pmu)
{
    tcg_ctx->emit_before_op = QTAILQ_NEXT(db->insn_start, link);
    tcg_gen_st8_i32(tcg_constant_i32(pmu->locked), tcg_env,
                    offsetof(CPUX86State, pmu.locked));
    tcg_gen_st8_i32(tcg_constant_i32(true), tcg_env,
                    offsetof(CPUX86State, pmu.noting));
    tcg_ctx->emit_before_op = NULL;
}

/*
 * An access of many bytes may be several operations, of which the first has
 * the address.  A label begins another round of a string instruction.
 */
static void gen_note_addresses(DisasContextBase *db, const PMUGen *pmu)
{
    uint16_t noted = 0;

    for (TCGOp *op = db->insn_start; op; op = QTAILQ_NEXT(op, link)) {
        TCGArg address = 0;
        uint16_t kinds = op_kinds(op, &address);

        if (op->opc == INDEX_op_set_label) {
            noted = 0;
        } else if (address) {
            gen_note_address(op, address, kinds & ~noted);
            noted |= kinds;
        }
    }
    gen_start_noting(db, pmu);
}

static uint64_t kinds_packed(uint16_t kinds)
{
    uint64_t packed = 0;

    for (; kinds; kinds &= kinds - 1) {
        packed += pmu_packed_one(ctz32(kinds));
    }
    return packed;
}

void pmu_gen_insn_end(DisasContextBase *db, PMUGen *pmu)
{
    uint16_t kinds;

    if (pmu->level == PMU_LEVEL_NONE || pmu->faults) {
        return;
    }
    kinds = BIT(PMU_INSN) | pmu->branch_kinds | pmu_gen_memory_kinds(db, pmu);
    tcg_set_insn_start_param(db->insn_start, 2, kinds_packed(kinds));
    if (pmu_gen_counts_memory(pmu) && is_final(db)) {
        gen_note_addresses(db, pmu);
    }
}

void pmu_gen_give_back(PMUGen *pmu, uint16_t kinds)
{
    uint64_t packed = kinds_packed(kinds);

    for (unsigned word = 0; word < PMU_WORDS; word++) {
        int64_t value = pmu_packed_word(packed, word, pmu->level);

        if (value) {
            TCGv_i64 left = tcg_temp_ebb_new_i64();

            tcg_gen_ld_i64(left, tcg_env, budget_offset(pmu, word));
            tcg_gen_addi_i64(left, left, value);
            tcg_gen_st_i64(left, tcg_env, budget_offset(pmu, word));
        }
    }
}

void pmu_gen_jump(PMUGen *pmu)
{
    pmu_gen_give_back(pmu, pmu->edge_kinds);
    pmu->edge_kinds = 0;
}

/*
 * Returns what the whole block retires, and has each instruction's unwind
 * data, which tells what it retires, tell what it and those behind it do.
 */
static uint64_t settle_unwind_data(void)
{
    uint64_t rest = 0;
    TCGOp *op;

    QTAILQ_FOREACH_REVERSE(op, &tcg_ctx->ops, link) {
        if (op->opc == INDEX_op_insn_start) {
            rest += tcg_get_insn_start_param(op, 2);
            tcg_set_insn_start_param(op, 2, rest);
        }
    }
    return rest;
}

/* The guard bits of all lanes that @packed has something in. */
static uint64_t packed_guards(uint64_t packed, PMULevel level)
{
    uint64_t guards = 0;

    for (unsigned kind = 0; kind < pmu_level_kinds(level); kind++) {
        if (pmu_packed_count(packed, kind)) {
            guards |= (pmu_kind_max(kind) + 1ull) << pmu_kind_shift(kind);
        }
    }
    return guards;
}

/*
 * Where a block exits to the main loop before it has begun.  Few of the blocks
 * in a boot run often, so that no code is spent on this but a branch.
 */
static TCGLabel *exit_label(void)
{
    if (!tcg_ctx->exitreq_label) {
        tcg_ctx->exitreq_label = gen_new_label();
    }
    return tcg_ctx->exitreq_label;
}

/*
 * Subtract @total, or exit with nothing stored if a budget is too small for it,
 * to x86_pmu_budget_exit().  Whether it covers @last, a part of @total, is left
 * to x86_pmu_retire_event().  One test serves all words, as their guard bits
 * are in the same places.
 */
static void gen_settle(const PMUGen *pmu, uint64_t total, uint64_t last)
{
    TCGv_i64 left[PMU_WORDS] = { }, guards = NULL;

    for (unsigned word = 0; word < PMU_WORDS; word++) {
        int64_t checked = pmu_packed_word(total - last, word, pmu->level);

        if (!pmu_packed_word(total, word, pmu->level)) {
            continue;
        }
        left[word] = tcg_temp_ebb_new_i64();
        tcg_gen_ld_i64(left[word], tcg_env, budget_offset(pmu, word));
        if (!checked) {
            continue;
        }
        tcg_gen_subi_i64(left[word], left[word], checked);
        if (!guards) {
            guards = left[word];
        } else {
            TCGv_i64 both = tcg_temp_ebb_new_i64();

            tcg_gen_or_i64(both, guards, left[word]);
            guards = both;
        }
    }
    if (guards) {
        tcg_gen_brcondi_i64(TCG_COND_TSTNE, guards,
                            packed_guards(total - last, pmu->level),
                            exit_label());
    }
    for (unsigned word = 0; word < PMU_WORDS; word++) {
        if (left[word]) {
            tcg_gen_subi_i64(left[word], left[word],
                             pmu_packed_word(last, word, pmu->level));
            tcg_gen_st_i64(left[word], tcg_env, budget_offset(pmu, word));
        }
    }
}

void pmu_gen_tb_stop(DisasContextBase *db, PMUGen *pmu)
{
    uint64_t total, last;

    if (pmu->level == PMU_LEVEL_NONE) {
        return;
    }

    /* EIP is up to date at the start of a block, which pmu.c relies on. */
    tcg_debug_assert(tb_cflags(db->tb) & CF_PCREL);

    last = is_final(db) ? tcg_get_insn_start_param(db->insn_start, 2) : 0;
    total = settle_unwind_data();

    tcg_ctx->emit_before_op = pmu->entry ? QTAILQ_NEXT(pmu->entry, link)
                                         : QTAILQ_FIRST(&tcg_ctx->ops);
    gen_settle(pmu, total, last);
    if (is_final(db)) {
        gen_helper_pmu_final(tcg_env,
                             tcg_constant_i32(pmu->pc - db->pc_first));
    }
    tcg_ctx->emit_before_op = NULL;
}
