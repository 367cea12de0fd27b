/*
 * What a program needs to live without a C library
 *
 * Every instruction that such a program runs is its own, the same in every
 * run. A program defines `int program(void)`, its exit status.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RAW_H
#define RAW_H

#include <asm/unistd.h>
#include <linux/mman.h>
#include <linux/signal.h>
#include <asm/sigcontext.h>
#include <asm/ucontext.h>

#define PAGE_SIZE 4096

int program(void);

asm(".globl _start\n"
    "_start:\n"
    "    xor   %ebp, %ebp\n"
    "    call  program\n"
    "    mov   %eax, %edi\n"
    "    mov   $231, %eax\n"            /* exit_group */
    "    syscall\n"
    "restore_signal:\n"
    "    mov   $15, %eax\n"             /* rt_sigreturn */
    "    syscall\n");

void restore_signal(void);

static inline long raw_syscall(long number, long a, long b, long c, long d)
{
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = -1;    /* mmap's: no file */
    register long r9 asm("r9") = 0;
    long result;

    asm volatile("syscall" : "=a"(result)
                 : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8),
                   "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

/* Pages that nobody has touched. */
static inline void *fresh_pages(unsigned long count)
{
    return (void *)raw_syscall(__NR_mmap, 0, count * PAGE_SIZE,
                               PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS);
}

static inline void protect_page(void *page, int protection)
{
    raw_syscall(__NR_mprotect, (long)page, PAGE_SIZE, protection, 0);
}

typedef void SignalHandler(int number, siginfo_t *info, struct ucontext *uc);

/* The kernel's struct sigaction, with the handler as it is called. */
typedef struct SignalAction {
    SignalHandler *handler;
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
} SignalAction;

#define SIGNAL_HAS_RESTORER 0x04000000

static inline void on_signal(int number, SignalHandler *handler)
{
    SignalAction action = {
        .handler = handler,
        .flags = SA_SIGINFO | SA_NODEFER | SIGNAL_HAS_RESTORER,
        .restorer = restore_signal,
    };

    raw_syscall(__NR_rt_sigaction, number, (long)&action, 0,
                sizeof(action.mask));
}

#endif
