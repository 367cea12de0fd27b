/*
 * Several processes at once, each the same work
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "raw.h"

#define CHILDREN 4
#define ROUNDS 3000000

static void work(void)
{
    unsigned long rounds = ROUNDS;

    asm volatile("1: dec %0\n"
                 "   jnz 1b\n" : "+r"(rounds) : : "cc");
}

int program(void)
{
    int status, failed = 0;

    for (int i = 0; i < CHILDREN; i++) {
        if (!raw_syscall(__NR_fork, 0, 0, 0, 0)) {
            work();
            return 0;
        }
    }
    for (int i = 0; i < CHILDREN; i++) {
        failed += raw_syscall(__NR_wait4, -1, (long)&status, 0, 0) <= 0;
    }
    return failed;
}
