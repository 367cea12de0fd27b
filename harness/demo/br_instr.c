/*
 * Loops of branches whose every instruction is known, to be sampled.
 *
 *     br_instr LOOP [ROUNDS]
 *
 * LOOP  instructions a round  what it does
 *  a            13            branches taken and not taken
 *  b            11            calls and returns
 *  c             8            loads and stores
 *  d            12            branches, every fourth instruction
 *
 * A round always takes the same path, so the address of the N-th instruction
 * follows from N. The loops are between the symbols loop_X and loop_X_end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_ROUNDS 40000000

void loop_a(unsigned long rounds);
void loop_b(unsigned long rounds);
void loop_c(unsigned long rounds);
void loop_d(unsigned long rounds);

asm(
    ".text\n"
    ".balign 64\n"
    ".globl loop_a\n"
    ".type loop_a, @function\n"
    "loop_a:\n"
    "    add   $3, %rax\n"
    "    or    $1, %rax\n"
    "    jz    2f\n"                /* never taken */
    "    test  %rax, %rax\n"
    "    jnz   1f\n"                /* always taken */
    "    ud2\n"
    "1:  lea   (%rax, %rdi), %rdx\n"
    "    jmp   3f\n"
    "2:  ud2\n"
    "3:  cmp   %rdx, %rdx\n"
    "    jne   2b\n"                /* never taken */
    "    je    4f\n"                /* always taken */
    "    ud2\n"
    "4:  xor   %rdi, %rdx\n"
    "    dec   %rdi\n"
    "    jnz   loop_a\n"
    "loop_a_end:\n"
    "    ret\n"
    ".size loop_a, . - loop_a\n"

    ".balign 64\n"
    ".globl loop_b\n"
    ".type loop_b, @function\n"
    "loop_b:\n"
    "    call  5f\n"
    "    call  6f\n"
    "    add   $1, %rax\n"
    "    dec   %rdi\n"
    "    jnz   loop_b\n"
    "    ret\n"
    "5:  lea   1(%rax), %rdx\n"
    "    ret\n"
    "6:  call  5b\n"
    "    ret\n"
    "loop_b_end:\n"
    ".size loop_b, . - loop_b\n"

    ".balign 64\n"
    ".globl loop_c\n"
    ".type loop_c, @function\n"
    "loop_c:\n"
    "    mov   -8(%rsp), %rax\n"
    "    add   $1, %rax\n"
    "    mov   %rax, -8(%rsp)\n"
    "    addq  $1, -16(%rsp)\n"     /* a load and a store */
    "    push  %rax\n"
    "    pop   %rdx\n"
    "    dec   %rdi\n"
    "    jnz   loop_c\n"
    "loop_c_end:\n"
    "    ret\n"
    ".size loop_c, . - loop_c\n"

    ".balign 64\n"
    ".globl loop_d\n"
    ".type loop_d, @function\n"
    "loop_d:\n"
    "    add   $3, %rax\n"
    "    xor   %rdi, %rdx\n"
    "    or    $1, %rax\n"
    "    jz    7f\n"                /* never taken */
    "    lea   (%rax, %rdi), %rcx\n"
    "    add   %rcx, %rdx\n"
    "    test  %rax, %rax\n"
    "    jnz   8f\n"                /* always taken */
    "7:  ud2\n"
    "8:  xor   %rcx, %rax\n"
    "    add   $5, %rdx\n"
    "    dec   %rdi\n"
    "    jnz   loop_d\n"
    "loop_d_end:\n"
    "    ret\n"
    ".size loop_d, . - loop_d\n"
);

static const struct {
    const char *name;
    void (*run)(unsigned long rounds);
} loops[] = {
    { "a", loop_a },
    { "b", loop_b },
    { "c", loop_c },
    { "d", loop_d },
};

int main(int argc, char **argv)
{
    unsigned long rounds = argc > 2 ? strtoul(argv[2], NULL, 0)
                                    : DEFAULT_ROUNDS;

    for (size_t i = 0; argc > 1 && i < sizeof(loops) / sizeof(*loops); i++) {
        if (!strcmp(argv[1], loops[i].name) && rounds) {
            loops[i].run(rounds);
            return 0;
        }
    }
    fprintf(stderr, "usage: br_instr a|b|c|d [ROUNDS, at least 1]\n");
    return 2;
}
