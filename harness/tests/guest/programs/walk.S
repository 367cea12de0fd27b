/*
 * A walk whose every step is known: a prologue, ROUNDS rounds of a loop, an
 * epilogue. predict.py holds the same in numbers; keep both alike.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

        .globl  _start
        .text
_start:
        mov     $ROUNDS, %rdi
        lea     buffer(%rip), %rsi
        xor     %eax, %eax
round:
        add     $1, %rax                /* 1 */
        mov     (%rsi), %rdx            /* 2  load */
        test    %rax, %rax              /* 3 */
        jz      never                   /* 4  conditional, not taken */
        mov     %rax, 8(%rsi)           /* 5  store */
        call    leaf                    /* 6  call, store */
        jmp     1f                      /* 9  branch, taken */
        ud2
1:      addq    $1, 16(%rsi)            /* 10 load, store */
        cmp     %rax, %rax              /* 11 */
        je      2f                      /* 12 conditional, taken */
        ud2
2:      lea     3f(%rip), %rcx          /* 13 */
        jmp     *%rcx                   /* 14 indirect, taken */
        ud2
3:      nop                             /* 15 */
        dec     %rdi                    /* 16 */
        jnz     round                   /* 17 conditional, taken but at last */
        mov     $231, %eax
        xor     %edi, %edi
        syscall
leaf:   lea     1(%rdx), %rdx           /* 7 */
        ret                             /* 8  return, load */
never:  ud2

        .bss
        .balign 64
buffer: .skip   64

        .section .note.GNU-stack, "", @progbits
