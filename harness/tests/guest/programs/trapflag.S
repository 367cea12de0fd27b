/*
 * A program that single-steps itself: a SIGTRAP comes after most instructions
 * of a round, TRAPS in all. Its handler is two instructions, and the way back
 * two more. Exits with 0 when it got as many as expected; predict.py has the
 * number of instructions.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

        .globl  _start
        .text
_start:
        mov     $13, %eax               /* rt_sigaction(SIGTRAP) */
        mov     $5, %edi
        lea     action(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        mov     %ss, %ebx
        mov     $ROUNDS, %r12d          /* 8 so far */
round:
        lea     buffer(%rip), %rdi
        mov     $2, %ecx
        pushf
        orl     $0x100, (%rsp)
        popf                            /* sets the flag: no trap yet */
        nop                             /* trap 1 */
        add     $1, %eax                /* 2 */
        mov     %ebx, %ss               /* holds its trap back, for good */
        nop                             /* 3 */
        rep stosb                       /* two rounds, see predict.py */
        pushf                           /* trap */
        andl    $~0x100, (%rsp)         /* trap */
        popf                            /* clears the flag, traps still */
        int3                            /* a signal of its own */
        dec     %r12d
        jnz     round                   /* 16 a round */
        mov     $231, %eax
        mov     caught(%rip), %edi
        sub     $(ROUNDS * TRAPS), %edi
        syscall

handler:
        incl    caught(%rip)
        ret
restore:
        mov     $15, %eax
        syscall

        .bss
buffer: .skip   8

        .data
        .balign 8
action: .quad   handler, 0x04000000, restore, 0
caught: .long   0

        .section .note.GNU-stack, "", @progbits
