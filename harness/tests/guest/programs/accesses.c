/*
 * Memory by every road that TCG has to it: plain, locked, string, segment,
 * vector, x87, saved state; and instructions that name memory and make no
 * access. Each round meets pages that nobody has touched.
 *
 * Masks are never empty: nothing is accessed then, yet it counts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "raw.h"

#define ROUNDS 10
#define PAGES 16

void plain(void *pages);
void strings(void *pages);
void segments(void *pages);
void vectors(void *pages);
void x87(void *pages);
void states(void *pages);
void none(void *pages);

asm(".text\n"
    "plain:\n"
    "    mov   %rbx, %r8\n"
    "    cmpxchg %rcx, (%rdi)\n"
    "    cmpxchg %rcx, 4090(%rdi)\n"        /* on two pages */
    "    lock cmpxchg %ecx, 8(%rdi)\n"
    "    cmpxchg8b 16(%rdi)\n"
    "    lock cmpxchg8b 16(%rdi)\n"
    "    cmpxchg16b 32(%rdi)\n"
    "    lock cmpxchg16b 32(%rdi)\n"
    "    xadd  %rax, 64(%rdi)\n"
    "    lock xadd %rax, 64(%rdi)\n"
    "    xchg  %rax, 64(%rdi)\n"
    "    lock orl $1, 4092(%rdi)\n"
    "    lock orl $1, 4094(%rdi)\n"         /* a split lock */
    "    lock incl 4(%rdi)\n"
    "    lock negl 4(%rdi)\n"
    "    lock notl 4(%rdi)\n"
    "    mov   $70000, %eax\n"
    "    bts   %eax, (%rdi)\n"              /* on another page */
    "    bt    %eax, (%rdi)\n"
    "    lock btc %eax, (%rdi)\n"
    "    cmp   %eax, %eax\n"
    "    cmovne (%rdi), %eax\n"             /* loads, whatever comes of it */
    "    setne (%rdi)\n"
    "    movbe (%rdi), %eax\n"
    "    movbe %eax, (%rdi)\n"
    "    crc32l (%rdi), %eax\n"
    "    movnti %eax, (%rdi)\n"
    "    popcnt (%rdi), %eax\n"
    "    imul  $3, (%rdi), %eax\n"
    "    mull  (%rdi)\n"
    "    shldl $3, %eax, (%rdi)\n"
    "    rcll  $3, (%rdi)\n"
    "    testl $1, (%rdi)\n"
    "    cmpl  $1, (%rdi)\n"
    "    pushq (%rdi)\n"
    "    popq  8(%rdi)\n"
    "    pushf\n"
    "    popf\n"
    "    enter $16, $0\n"
    "    leave\n"
    "    enter $16, $2\n"                   /* loads, too */
    "    leave\n"
    "    lea   (%rdi), %rbx\n"
    "    xor   %eax, %eax\n"
    "    xlat\n"
    "    mov   %r8, %rbx\n"
    "    ret\n"

    "strings:\n"
    "    mov   %rdi, %rdx\n"
    "    lea   4096(%rdi), %rsi\n"
    "    movsb\n"
    "    cmpsb\n"
    "    lodsb\n"
    "    stosb\n"
    "    scasb\n"
    "    mov   $3, %ecx\n"
    "    rep lodsb\n"
    "    rep stosb\n"                       /* no rounds, as RCX is 0 now */
    "    rep movsb\n"
    "    repe cmpsb\n"
    "    repne scasb\n"
    "    rep lodsb\n"
    "    mov   $5000, %ecx\n"               /* over a page's end */
    "    rep movsb\n"
    "    mov   $10, %ecx\n"
    "    lea   1(%rdx), %rdi\n"
    "    cmp   %eax, %eax\n"
    "    repne cmpsb\n"
    "    ret\n"

    "segments:\n"
    "    mov   %ss, (%rdi)\n"
    "    mov   (%rdi), %ss\n"               /* a load, and a descriptor */
    "    mov   %ss, %eax\n"
    "    mov   %eax, %ss\n"                 /* a descriptor alone */
    "    mov   %eax, %es\n"
    "    lar   %eax, %ecx\n"
    "    lsl   %eax, %ecx\n"
    "    verr  %ax\n"
    "    verw  (%rdi)\n"
    "    lar   (%rdi), %ecx\n"
    "    movl  $0, 16(%rdi)\n"
    "    mov   %eax, 20(%rdi)\n"
    "    lss   16(%rdi), %ecx\n"
    "    xor   %eax, %eax\n"
    "    mov   %eax, %es\n"                 /* none: null */
    "    ret\n"

    "vectors:\n"
    "    vpcmpeqd %ymm1, %ymm1, %ymm1\n"
    "    vpxor %ymm2, %ymm2, %ymm2\n"
    "    movdqu 4088(%rdi), %xmm0\n"        /* on two pages */
    "    movdqu %xmm0, 8184(%rdi)\n"
    "    movntdq %xmm0, (%rdi)\n"
    "    movlps %xmm0, (%rdi)\n"
    "    movhps (%rdi), %xmm0\n"
    "    pinsrb $1, (%rdi), %xmm0\n"
    "    pextrb $1, %xmm0, (%rdi)\n"
    "    paddd (%rdi), %xmm0\n"
    "    cvtsi2sdl (%rdi), %xmm0\n"
    "    mov   %rdi, %rsi\n"
    "    movq  %rsi, %mm0\n"
    "    pcmpeqd %mm1, %mm1\n"
    "    maskmovq %mm1, %mm0\n"
    "    movntq %mm0, (%rdi)\n"
    "    emms\n"
    "    maskmovdqu %xmm1, %xmm0\n"
    "    vmovdqu %ymm0, 12280(%rdi)\n"
    "    vmovdqu 12280(%rdi), %ymm0\n"
    "    vbroadcastss (%rdi), %ymm0\n"
    "    vbroadcasti128 (%rdi), %ymm0\n"
    "    vinserti128 $1, (%rdi), %ymm0, %ymm0\n"
    "    vextracti128 $1, %ymm0, (%rdi)\n"
    "    vmaskmovps %ymm0, %ymm1, (%rdi)\n"
    "    vmaskmovps (%rdi), %ymm1, %ymm0\n"
    "    vpmaskmovq %ymm0, %ymm1, (%rdi)\n"
    "    vpmaskmovq (%rdi), %ymm1, %ymm0\n"
    "    vpgatherdd %ymm1, (%rdi,%ymm2,4), %ymm0\n"
    "    vpcmpeqd %ymm1, %ymm1, %ymm1\n"
    "    vgatherqpd %ymm1, (%rdi,%ymm2,8), %ymm0\n"
    "    vpmovzxbw (%rdi), %ymm0\n"
    "    vstmxcsr (%rdi)\n"
    "    vldmxcsr (%rdi)\n"
    "    vzeroupper\n"
    "    ret\n"

    "x87:\n"
    "    fninit\n"
    "    fildl (%rdi)\n"
    "    fistpl 4094(%rdi)\n"
    "    fildll (%rdi)\n"
    "    fsts  (%rdi)\n"
    "    fstpl 8(%rdi)\n"
    "    fldt  32(%rdi)\n"
    "    fstpt 8187(%rdi)\n"
    "    fbld  64(%rdi)\n"
    "    fbstp 80(%rdi)\n"
    "    flds  (%rdi)\n"
    "    fadds (%rdi)\n"
    "    fisttpl (%rdi)\n"
    "    fnstcw (%rdi)\n"
    "    fldcw (%rdi)\n"
    "    fnstsw (%rdi)\n"
    "    fnstsw %ax\n"
    "    fnstenv 12280(%rdi)\n"
    "    fldenv 12280(%rdi)\n"
    "    fnsave 16300(%rdi)\n"
    "    frstor 16300(%rdi)\n"
    "    ret\n"

    "states:\n"
    "    xor   %edx, %edx\n"
    "    mov   $7, %eax\n"
    "    fxsave 3840(%rdi)\n"
    "    fxrstor 3840(%rdi)\n"
    "    fxsave64 8192(%rdi)\n"
    "    fxrstor64 8192(%rdi)\n"
    "    xsave 12288(%rdi)\n"
    "    xrstor 12288(%rdi)\n"
    "    xsave64 12288(%rdi)\n"
    "    xrstor64 12288(%rdi)\n"
    "    xsaveopt 12288(%rdi)\n"
    "    ret\n"

    "none:\n"
    "    lea   (%rdi), %rax\n"
    "    nopl  (%rdi)\n"
    "    prefetcht0 (%rdi)\n"
    "    prefetchw (%rdi)\n"
    "    clflush (%rdi)\n"
    "    mfence\n"
    "    xor   %ecx, %ecx\n"
    "    xgetbv\n"
    "    rdtsc\n"
    "    ret\n");

int program(void)
{
    void (*const roads[])(void *) = {
        plain, strings, segments, vectors, x87, states, none,
    };

    for (int i = 0; i < ROUNDS; i++) {
        for (unsigned int n = 0; n < sizeof(roads) / sizeof(*roads); n++) {
            roads[n](fresh_pages(PAGES));
        }
    }
    return 0;
}
