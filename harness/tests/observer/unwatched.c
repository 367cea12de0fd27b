/*
 * What a BPF program does for a thread that its maps don't know
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "unwatched.h"

struct value {
    enum { ANY, NUMBER, MAP, CONTEXT, STACK } kind;
    __s64 number;
};

struct follower {
    const struct bpf_insn *insn;
    struct value regs[MAX_BPF_REG];
    struct unwatched_path *path;
    __u32 map;
};

static void follow_call(struct follower *f)
{
    bool lookup = f->regs[BPF_REG_1].kind == MAP;

    f->path->lookups += lookup;
    f->path->others += !lookup;
    f->regs[BPF_REG_0] = (struct value) { lookup ? NUMBER : ANY, 0 };
    for (int i = BPF_REG_1; i <= BPF_REG_5; i++) {
        f->regs[i].kind = ANY;
    }
}

static bool follow_condition(struct follower *f)
{
    const struct bpf_insn *insn = f->insn;
    const struct value *value = &f->regs[insn->dst_reg];
    __u8 op = BPF_OP(insn->code);
    bool equal = value->number == insn->imm;

    if (value->kind != NUMBER || BPF_SRC(insn->code) != BPF_K ||
        (op != BPF_JEQ && op != BPF_JNE)) {
        return false;
    }
    f->insn += equal == (op == BPF_JEQ) ? insn->off : 0;
    return insn->off >= 0;
}

static bool follow_jump(struct follower *f)
{
    const struct bpf_insn *insn = f->insn;

    switch (insn->code) {
    case BPF_JMP | BPF_CALL:
        follow_call(f);
        return true;
    case BPF_JMP | BPF_JA:
        f->insn += insn->off;
        return insn->off >= 0;
    default:
        return follow_condition(f);
    }
}

static void follow_arithmetic(struct follower *f)
{
    const struct bpf_insn *insn = f->insn;
    struct value *value = &f->regs[insn->dst_reg];
    bool immediate = BPF_SRC(insn->code) == BPF_K;

    if (BPF_OP(insn->code) == BPF_MOV) {
        *value = immediate ? (struct value) { NUMBER, insn->imm } :
                             f->regs[insn->src_reg];
    } else if (value->kind != STACK || !immediate) {
        value->kind = ANY;
    }
}

static void follow_access(struct follower *f, __u8 base)
{
    f->path->elsewhere += f->regs[base].kind != CONTEXT &&
                          f->regs[base].kind != STACK;
}

/* The only instruction that has a second one behind it */
static void follow_wide(struct follower *f)
{
    const struct bpf_insn *insn = f->insn++;
    bool ours = insn->src_reg == BPF_PSEUDO_MAP_FD &&
                (__u32)insn->imm == f->map;

    f->regs[insn->dst_reg].kind = ours ? MAP : ANY;
}

static bool follow_one(struct follower *f)
{
    const struct bpf_insn *insn = f->insn;

    switch (BPF_CLASS(insn->code)) {
    case BPF_LD:
        follow_wide(f);
        return insn->code == (BPF_LD | BPF_IMM | BPF_DW);
    case BPF_LDX:
        follow_access(f, insn->src_reg);
        f->regs[insn->dst_reg].kind = ANY;
        return true;
    case BPF_ST:
    case BPF_STX:
        follow_access(f, insn->dst_reg);
        return true;
    case BPF_ALU:
    case BPF_ALU64:
        follow_arithmetic(f);
        return true;
    default:
        return follow_jump(f);
    }
}

bool unwatched_follow(const struct bpf_insn *program, unsigned length,
                      __u32 map, struct unwatched_path *path)
{
    struct follower f = { .insn = program, .path = path, .map = map };

    *path = (struct unwatched_path) {};
    f.regs[BPF_REG_1].kind = CONTEXT;
    f.regs[BPF_REG_10].kind = STACK;
    while (f.insn < program + length) {
        path->instructions++;
        if (f.insn->code == (BPF_JMP | BPF_EXIT)) {
            return true;
        }
        if (!follow_one(&f)) {
            return false;
        }
        f.insn++;
    }
    return false;
}
