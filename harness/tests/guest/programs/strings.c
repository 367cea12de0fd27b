/*
 * REP instructions: over page boundaries, into pages not there yet, with no
 * rounds at all, with an early end, with more than 65536 rounds, backwards
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "raw.h"

#define LONG_RUN 70000

static void stos(void *to, unsigned long count)
{
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"('x') : "memory");
}

static void movs(void *to, const void *from, unsigned long count)
{
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static void movs_backwards(void *to, const void *from, unsigned long count)
{
    asm volatile("std\n rep movsb\n cld"
                 : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static unsigned long compare(const void *one, const void *other,
                             unsigned long count)
{
    asm volatile("repe cmpsb" : "+D"(one), "+S"(other), "+c"(count)
                 : : "memory", "cc");
    return count;
}

static unsigned long scan(const void *where, unsigned long count)
{
    asm volatile("repne scasb" : "+D"(where), "+c"(count) : "a"('y')
                 : "memory", "cc");
    return count;
}

int program(void)
{
    char *from = fresh_pages(24), *to = fresh_pages(24);
    unsigned long left;

    stos(from, 0);
    stos(from + 4000, 300);
    stos(from + PAGE_SIZE, LONG_RUN);
    movs(to + 20, from + 4000, 1200);
    movs(to + 8 * PAGE_SIZE, from, 0);
    movs_backwards(to + 3 * PAGE_SIZE + 50, from + 2 * PAGE_SIZE + 50, 200);
    from[6 * PAGE_SIZE] = 'y';
    left = compare(from + PAGE_SIZE, from + 2 * PAGE_SIZE, 5 * PAGE_SIZE);
    left += scan(from + 5 * PAGE_SIZE, 3 * PAGE_SIZE);
    /* both have stopped at the one byte that differs */
    return left != PAGE_SIZE - 1 + 2 * PAGE_SIZE - 1;
}
