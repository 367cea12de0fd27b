/*
 * Firmware that has every vCPU run in a loop for good.
 *
 * 64 KiB, for QEMU's -bios: the boot CPU starts at the end of it, and the
 * others at a copy of the loop where a SIPI sends them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

        .code16
        .text
start:
        cli
        lgdtl   %cs:gdt_pointer
        mov     %cr0, %eax              /* to reach the APIC: flat 4 GiB in DS */
        or      $1, %al
        mov     %eax, %cr0
        mov     $8, %bx
        mov     %bx, %ds
        and     $0xfe, %al
        mov     %eax, %cr0

        movl    $0x90feebfa, 0x1000     /* cli; jmp . */
        mov     $0xfee00300, %ebx       /* interrupt command register */
        movl    $0x000c4500, (%ebx)     /* INIT, to all but this one */
        mov     $0x10000, %ecx
delay:  addr32 loop delay
        movl    $0x000c4601, (%ebx)     /* SIPI to 0x1000 */
spin:   jmp     spin

        .balign 8
gdt:    .quad   0
        .quad   0x00cf92000000ffff      /* data, base 0, 4 GiB */
gdt_pointer:
        .word   . - gdt - 1
        .long   0xf0000 + gdt

        .org    0xfff0
        ljmp    $0xf000, $start
        .org    0x10000

        .section .note.GNU-stack, "", @progbits
