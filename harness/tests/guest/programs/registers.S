/*
 * Every register holds a value of its own while the loop runs; RAX counts the
 * rounds down, RCX and R15 are changed in the loop's middle. XMM register N
 * holds XMM_BASE + N, twice.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

        .globl  _start
        .text
_start:
        mov     $XMM_BASE, %rax
        .irp    number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movq    %rax, %xmm\number
        punpcklqdq %xmm\number, %xmm\number
        inc     %rax
        .endr
        mov     $ROUNDS, %rax
        mov     $0x1111111111111111, %rbx
        mov     $0x2222222222222222, %rdx
        mov     $0x3333333333333333, %rsi
        mov     $0x4444444444444444, %rdi
        mov     $0x5555555555555555, %rbp
        mov     $0x8888888888888888, %r8
        mov     $0x9999999999999999, %r9
        mov     $0xaaaaaaaaaaaaaaaa, %r10
        mov     $0xbbbbbbbbbbbbbbbb, %r11
        mov     $0xcccccccccccccccc, %r12
        mov     $0xdddddddddddddddd, %r13
        mov     $0xeeeeeeeeeeeeeeee, %r14
        mov     $0xffffffffffffffff, %r15
round:  mov     %rax, %rcx
        not     %rcx
        push    %rcx
        pop     %r15
        xor     %rbx, %r15
        dec     %rax
        jnz     round
        mov     $231, %eax
        xor     %edi, %edi
        syscall

        .section .note.GNU-stack, "", @progbits
