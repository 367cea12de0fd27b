/*
 * Ways into the kernel and back: SYSCALL and INT 0x80
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "raw.h"

#define ROUNDS 500
#define GETPID_32 20

static long getpid_by_int80(void)
{
    long result;

    asm volatile("int $0x80" : "=a"(result) : "0"(GETPID_32)
                 : "r8", "r9", "r10", "r11", "memory");
    return result;
}

int program(void)
{
    int wrong = 0;

    for (int i = 0; i < ROUNDS; i++) {
        wrong += raw_syscall(__NR_getpid, 0, 0, 0, 0) != getpid_by_int80();
        raw_syscall(__NR_sched_yield, 0, 0, 0, 0);
    }
    return wrong;
}
