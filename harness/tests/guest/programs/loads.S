/*
 * ROUNDS loads, from the quadwords of a table one after the other, and as
 * many stores into a second table; the addresses follow from the number.
 * With LOCKED the loads are part of a locked XADD.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

        .globl  _start, table, results, load, store
        .text
_start:
        mov     $ROUNDS, %rdi
        lea     table(%rip), %rsi
        lea     results(%rip), %rbx
        xor     %ecx, %ecx
#ifdef LOCKED
load:   lock xadd %rax, (%rsi,%rcx,8)
#else
load:   mov     (%rsi,%rcx,8), %rax
#endif
        add     $7, %rax
store:  mov     %rax, (%rbx,%rcx,8)
        inc     %rcx
        and     $(TABLE - 1), %rcx
        dec     %rdi
        jnz     load
        mov     $231, %eax
        xor     %edi, %edi
        syscall

        .bss
        .balign 4096
table:   .skip  8 * TABLE
results: .skip  8 * TABLE

        .section .note.GNU-stack, "", @progbits
