/*
 * Faults that become signals: a handler repairs each and returns
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "raw.h"

#define ROUNDS 20

static volatile int seen;

/* The instruction is skipped: the handler knows its length. */
static void skip_two_bytes(int number, siginfo_t *info, struct ucontext *uc)
{
    (void)number, (void)info;
    uc->uc_mcontext.rip += 2;
    seen++;
}

/* The instruction is done again. */
static void open_page(int number, siginfo_t *info, struct ucontext *uc)
{
    (void)number, (void)uc;
    protect_page((void *)((long)info->si_addr & -PAGE_SIZE),
                 PROT_READ | PROT_WRITE);
    seen++;
}

static void carry_on(int number, siginfo_t *info, struct ucontext *uc)
{
    (void)number, (void)info, (void)uc;
    seen++;
}

static void one_round(char *page)
{
    asm volatile("xor  %%edx, %%edx\n"
                 "xor  %%ecx, %%ecx\n"
                 "mov  $5, %%eax\n"
                 "div  %%ecx\n"                 /* SIGFPE, two bytes */
                 "nop\n"
                 "ud2\n"                        /* SIGILL */
                 "int3\n"                       /* SIGTRAP, after it */
                 "nop\n"
                 : : : "rax", "rcx", "rdx", "cc");
    protect_page(page, PROT_NONE);
    asm volatile("mov  $7, %%eax\n"
                 "mov  %%eax, 16(%0)\n"         /* SIGSEGV, done again */
                 "inc  %%eax\n"
                 : : "r"(page) : "rax", "memory", "cc");
    protect_page(page, PROT_READ);
    asm volatile("addl $1, 16(%0)\n"            /* faults on its store */
                 : : "r"(page) : "memory", "cc");
}

int program(void)
{
    char *page = fresh_pages(1);

    on_signal(SIGFPE, skip_two_bytes);
    on_signal(SIGILL, skip_two_bytes);
    on_signal(SIGTRAP, carry_on);
    on_signal(SIGSEGV, open_page);
    for (int i = 0; i < ROUNDS; i++) {
        one_round(page);
    }
    return seen != 5 * ROUNDS;
}
