/*
 * Page faults: the first touch of a page in the middle of straight code, by
 * load, store, both, push, and an access that lies on two pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "raw.h"

#define PAGES 64

int program(void)
{
    char *pages = fresh_pages(PAGES);

    for (int i = 0; i + 6 < PAGES; i += 7) {
        char *page = pages + i * PAGE_SIZE;

        asm volatile("mov  $1, %%eax\n"
                     "mov  %%eax, (%0)\n"
                     "add  $1, %%eax\n"
                     "mov  4096(%0), %%eax\n"
                     "addl $3, 2 * 4096(%0)\n"
                     "lock addl $3, 3 * 4096(%0)\n"
                     "mov  %%rax, 5 * 4096 - 3(%0)\n"
                     "cmp  6 * 4096(%0), %%eax\n"
                     "setz 6 * 4096 + 1(%0)\n"
                     "xchg %%eax, 6 * 4096 + 8(%0)\n"
                     : : "r"(page) : "rax", "memory", "cc");
    }
    return 0;
}
