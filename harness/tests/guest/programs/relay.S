/*
 * ROUNDS rounds of a loop, a line on standard output that says so, and as
 * many rounds again: its reader knows that it is in the middle of its work.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

        .globl  _start
        .text
_start:
        mov     $1, %eax
        mov     $(ROUNDS), %rcx
first:  add     %rcx, %rdx
        xor     $5, %edx
        dec     %rcx
        jnz     first
        mov     $1, %eax                /* write */
        mov     $1, %edi
        lea     half(%rip), %rsi
        mov     $5, %edx
        syscall
        mov     $(ROUNDS), %rcx
second: add     %rcx, %rdx
        lea     1(%rdx), %rdx
        nop
        dec     %rcx
        jnz     second
        mov     $231, %eax
        xor     %edi, %edi
        syscall

        .data
half:   .ascii  "half\n"

        .section .note.GNU-stack, "", @progbits
