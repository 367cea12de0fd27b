/*
 * Every kind of branch that a user program can execute: near, far, through
 * memory, to itself, over the end of a page; into faults that are repaired,
 * and, once more, under the trap flag
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "raw.h"

#define ROUNDS 20

/* Linux's selectors, which far branches name */
#define STRING_(x) #x
#define STRING(x) STRING_(x)
#define USER_CS STRING(0x33)
#define USER_DS STRING(0x2b)

#define REPAIRED 4          /* a round: int $0x21, lret, call, jmp */
#define TRAPS 4             /* int3 twice, int1, and one of the trap flag */

static volatile int repaired, trapped;

/* @page begins with an address, and is accessible once that has faulted */
void near_branches(void);
void far_branches(void);
void faulting_branches(void *page);
void stepped_branches(void);
void back(void);

/*
 * Far calls have 64-bit operands: for others TCG, stock QEMU's as well, takes
 * only half of RSP.
 */
asm(".text\n"
    "near_branches:\n"
    "    xor   %ecx, %ecx\n"
    "    jrcxz 1f\n"
    "    ud2\n"
    "1:  jecxz 2f\n"                    /* has a prefix */
    "    ud2\n"
    "2:  mov   $3, %ecx\n"
    "    jrcxz 9f\n"                    /* not taken, like those to 9 below */
    "3:  loop  3b\n"                    /* its own successor */
    "    mov   $3, %ecx\n"
    "4:  cmp   %eax, %eax\n"
    "    loope 4b\n"
    "    mov   $3, %ecx\n"
    "    cmp   %eax, %eax\n"
    "    loopne 9f\n"
    "    jne   9f\n"
    "    {disp32} jne 9f\n"             /* two bytes of opcode */
    "    {disp32} je 5f\n"
    "    ud2\n"
    "5:  jmp   6f\n"
    "    ud2\n"
    "6:  {disp32} jmp 7f\n"
    "    ud2\n"
    "7:  call  leaf\n"
    "    bnd call leaf\n"
    "    lea   leaf(%rip), %rax\n"
    "    call  *%rax\n"
    "    call  *to_leaf(%rip)\n"
    "    push  %rax\n"
    "    call  leaf_pops\n"
    "    lea   8f(%rip), %rax\n"
    "    notrack jmp *%rax\n"
    "    ud2\n"
    "8:  cmp   %eax, %eax\n"
    "    call  over_page_end\n"         /* taken */
    "    test  %esp, %esp\n"
    "    call  over_page_end\n"         /* not taken */
    "    jmp   *to_back(%rip)\n"
    "9:  ud2\n"
    "leaf: ret\n"
    "leaf_pops: ret $8\n"
    "back: ret\n"

    /* The first byte of the branch is the last of its page. */
    "    .balign 4096\n"
    "    .skip 4095, 0x90\n"
    "over_page_end:\n"
    "    je    1f\n"
    "    nop\n"
    "1:  ret\n"

    "far_branches:\n"
    "    rex.w ljmp *far_jump(%rip)\n"
    "    ud2\n"
    "far_landed:\n"
    "    rex.w lcall *far_call(%rip)\n"
    "    push  $" USER_CS "\n"
    "    lea   2f(%rip), %rax\n"
    "    push  %rax\n"
    "    lretq\n"
    "    ud2\n"
    "2:  mov   %rsp, %rax\n"
    "    push  $" USER_DS "\n"
    "    push  %rax\n"
    "    pushf\n"
    "    push  $" USER_CS "\n"
    "    lea   3f(%rip), %rax\n"
    "    push  %rax\n"
    "    iretq\n"
    "    ud2\n"
    "3:  int3\n"
    "    int   $3\n"
    "    int1\n"
    "    ret\n"
    "far_leaf: lretq\n"

    "faulting_branches:\n"
    "    push  %rbx\n"
    "    push  %rbp\n"
    "    mov   %rdi, %rbx\n"
    "    int   $0x21\n"                 /* #GP, two bytes */
    "    push  $0\n"
    "    push  $0\n"
    "    lretq\n"                       /* #GP, two bytes: it has loaded */
    "    pop   %rax\n"
    "    pop   %rax\n"
    "    call  *(%rbx)\n"               /* done again */
    "    mov   $10, %eax\n"             /* mprotect(PROT_NONE) */
    "    mov   $4096, %esi\n"
    "    xor   %edx, %edx\n"
    "    syscall\n"
    "    push  %rbx\n"
    "    push  %rbx\n"
    "    call  jump_through\n"
    "    pop   %rax\n"
    "    pop   %rax\n"
    "    mov   %rsp, %rbp\n"
    "    lea   8192(%rbx), %rsp\n"      /* nobody has touched that page */
    "    call  leaf\n"
    "    mov   %rbp, %rsp\n"
    "    pop   %rbp\n"
    "    pop   %rbx\n"
    "    ret\n"
    "jump_through:\n"
    "    jmp   *(%rbx)\n"               /* done again */

    "stepped_branches:\n"
    "    xor   %ecx, %ecx\n"
    "    pushf\n"
    "    orl   $0x100, (%rsp)\n"
    "    popf\n"
    "    jrcxz 1f\n"
    "    ud2\n"
    "1:  inc   %ecx\n"
    "    jrcxz 2f\n"
    "    call  leaf\n"
    "    call  *to_leaf(%rip)\n"
    "    rex.w lcall *far_call(%rip)\n"
    "    pushf\n"
    "    andl  $~0x100, (%rsp)\n"
    "    popf\n"
    "2:  ret\n"

    ".data\n"
    "to_leaf:  .quad leaf\n"
    "to_back:  .quad back\n"
    "far_jump: .quad far_landed, " USER_CS "\n"
    "far_call: .quad far_leaf, " USER_CS "\n"
    ".text\n");

/* A general protection has no address: its instruction is skipped. */
static void repair(int number, siginfo_t *info, struct ucontext *uc)
{
    (void)number;
    if (info->si_code == SI_KERNEL) {
        uc->uc_mcontext.rip += 2;
    } else {
        protect_page((void *)((long)info->si_addr & -PAGE_SIZE),
                     PROT_READ | PROT_WRITE);
    }
    repaired++;
}

static void carry_on(int number, siginfo_t *info, struct ucontext *uc)
{
    (void)number, (void)info, (void)uc;
    trapped++;
}

static void one_round(void **pages)
{
    near_branches();
    far_branches();
    *pages = back;
    protect_page(pages, PROT_NONE);
    faulting_branches(pages);
    stepped_branches();
}

int program(void)
{
    char *pages = fresh_pages(2 * ROUNDS);

    on_signal(SIGSEGV, repair);
    on_signal(SIGTRAP, carry_on);
    for (int i = 0; i < ROUNDS; i++) {
        one_round((void **)(pages + 2 * i * PAGE_SIZE));
    }
    return repaired != REPAIRED * ROUNDS || trapped < TRAPS * ROUNDS;
}
