/*
 * Code that changes itself: a routine rewritten between two calls, and an
 * instruction rewritten by the one before it, in the same straight run
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "raw.h"

#define ROUNDS 300

static void write_routine(unsigned char *code, int nops)
{
    int i = 0;

    while (i < nops) {
        code[i++] = 0x90;       /* nop */
    }
    code[i] = 0xc3;             /* ret */
}

int program(void)
{
    unsigned char *code = fresh_pages(1);
    int nops_done = 0;

    raw_syscall(__NR_mprotect, (long)code, PAGE_SIZE,
                PROT_READ | PROT_WRITE | PROT_EXEC, 0);
    for (int i = 0; i < ROUNDS; i++) {
        write_routine(code, i % 7);
        ((void (*)(void))code)();
        nops_done += i % 7;
    }

    /* movb $0xc3, next(%rip); next: nop; ret: the first run returns early */
    code[0] = 0xc6, code[1] = 0x05;
    *(int *)(code + 2) = 0;
    code[6] = 0xc3;
    code[7] = 0x90, code[8] = 0x90, code[9] = 0xc3;
    for (int i = 0; i < ROUNDS; i++) {
        code[7] = 0x90;
        ((void (*)(void))code)();
    }
    return nops_done == 0;
}
