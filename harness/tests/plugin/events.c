/*
 * Tells branches by their bytes: 64-bit code, as the SDM's opcode maps have it
 *
 * A decoder of its own: what it is compared with follows from QEMU's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stdbool.h>

#include "events.h"

#define ANY             (-1)

#define CONDITIONAL     { JUMPING, EVENT(BRANCH) | EVENT(COND) }
#define NEAR(also)      { JUMPING, EVENT(BRANCH) | EVENT(NEAR_TAKEN) | (also) }
#define FAR(flow)       { flow, EVENT(BRANCH) | EVENT(FAR_BRANCH) }

typedef struct Opcode {
    uint8_t first, last;
    int digit;          /* of ModRM, where that decides */
    Class class;
} Opcode;

/* These are string instructions only with a REP prefix: see classify() */
static const Opcode one_byte[] = {
    { 0x6c, 0x6f, ANY, { REPEATED, 0 } },           /* INS, OUTS */
    { 0x70, 0x7f, ANY, CONDITIONAL },               /* Jcc */
    { 0xa4, 0xa7, ANY, { REPEATED, 0 } },           /* MOVS, CMPS */
    { 0xaa, 0xaf, ANY, { REPEATED, 0 } },           /* STOS, LODS, SCAS */
    { 0xc2, 0xc3, ANY, NEAR(EVENT(NEAR_RETURN)) },
    { 0xca, 0xcb, ANY, FAR(JUMPING) },              /* far RET */
    { 0xcc, 0xcd, ANY, FAR(TRAPPING) },             /* INT3, INT */
    { 0xcf, 0xcf, ANY, FAR(JUMPING) },              /* IRET */
    { 0xe0, 0xe3, ANY, CONDITIONAL },               /* LOOP, JRCXZ */
    { 0xe8, 0xe8, ANY, NEAR(EVENT(NEAR_CALL)) },
    { 0xe9, 0xe9, ANY, NEAR(0) },                   /* JMP */
    { 0xeb, 0xeb, ANY, NEAR(0) },
    { 0xf1, 0xf1, ANY, FAR(TRAPPING) },             /* INT1 */
    { 0xff, 0xff, 2, NEAR(EVENT(NEAR_CALL) | EVENT(INDIRECT)) },
    { 0xff, 0xff, 3, FAR(JUMPING) },                /* far CALL */
    { 0xff, 0xff, 4, NEAR(EVENT(INDIRECT)) },       /* JMP */
    { 0xff, 0xff, 5, FAR(JUMPING) },                /* far JMP */
    { }
};

/* behind 0x0f */
static const Opcode two_byte[] = {
    { 0x05, 0x05, ANY, FAR(JUMPING) },              /* SYSCALL */
    { 0x07, 0x07, ANY, FAR(JUMPING) },              /* SYSRET */
    { 0x34, 0x35, ANY, FAR(JUMPING) },              /* SYSENTER, SYSEXIT */
    { 0x80, 0x8f, ANY, CONDITIONAL },               /* Jcc */
    { }
};

static bool is_rep(uint8_t byte)
{
    return byte == 0xf2 || byte == 0xf3;
}

static bool is_prefix(uint8_t byte)
{
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64 ... 0x67: case 0xf0:
    case 0x40 ... 0x4f:
        return true;
    default:
        return is_rep(byte);
    }
}

static Class look_up(const Opcode *map, uint8_t opcode, uint8_t modrm)
{
    for (; map->last; map++) {
        if (opcode >= map->first && opcode <= map->last &&
            (map->digit == ANY || map->digit == (modrm >> 3 & 7))) {
            return map->class;
        }
    }
    return (Class) { PLAIN, 0 };
}

Class classify(const uint8_t *code, size_t size)
{
    const Opcode *map = one_byte;
    bool rep = false;
    size_t i = 0;
    Class class;

    while (i + 1 < size && is_prefix(code[i])) {
        rep |= is_rep(code[i++]);
    }
    if (code[i] == 0x0f && i + 1 < size) {
        map = two_byte;
        i++;
    }
    class = look_up(map, code[i], i + 1 < size ? code[i + 1] : 0);
    if (class.flow == REPEATED && !rep) {
        class.flow = PLAIN;
    }
    class.events |= EVENT(INSTRUCTION);
    return class;
}
