/*
 * Bare-metal tests of the emulated PMU: what is executed and counted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PMU_SEQUENCES_H
#define PMU_SEQUENCES_H

#include "pmu-test.h"

/* ---- handlers whose instructions are known ---- */

asm("   .text\n"
    "just_iret:\n"
    IRET("iretq")
    "skip_2:\n"                 /* the instruction that faults, of 2 bytes */
    LS("addq $2, (%rsp)")
    IRET("iretq")
    "skip_2_error:\n"           /* the same, with an error code */
    N("add $8, %rsp")
    LS("addq $2, (%rsp)")
    IRET("iretq")
    "map_and_retry:\n"          /* a page fault in the second page */
    N("add $8, %rsp")
    LS("orl $7, page_table+8(%rip)")
    IRET("iretq")
    "resume:\n"                 /* an instruction breakpoint */
    LS("orl $0x10000, 16(%rsp)")
    IRET("iretq")
    "just_sysret:\n"
    FAR("sysretq")
    "just_sysexit:\n"
    FAR("sysexitq")
    "just_sysexit_32:\n"
    FAR("sysexitl")
    "just_lret:\n"
    K(K_BRANCH | K_FAR | K_LOAD, "lretq")
    "eoi_iret:\n"               /* an interrupt of the local APIC */
    S("push %rax")
    N("mov $0xfee000b0, %eax")
    S("movl $0, (%rax)")
    L("pop %rax")
    IRET("iretq")
    "tick:\n"                  /* the same, and it counts */
    LS("incl ticks(%rip)")
    JMP("jmp eoi_iret"));

extern uint8_t just_iret[], skip_2[], skip_2_error[], map_and_retry[];
extern uint8_t resume[], just_sysret[], just_sysexit[], just_sysexit_32[];
extern uint8_t just_lret[], eoi_iret[], tick[];

static uint32_t ticks __attribute__((used));

/* ---- sequences that can be single-stepped ---- */

SEQUENCE(alu,
    N("add %rax, %rbx")
    N("nop")
    N("lea 8(%rdi, %rsi, 2), %r8")
    N("imul %rax, %r9")
    N("shl %cl, %r10")
    N("cmp %eax, %eax")
    N("cmovz %rcx, %r11")
    N("setc %bl")
    N("xchg %rax, %rbp")
    N("pause")
    N("stc")
    N("adc $0, %rdx")
    K(K_NOREG, "rdtsc")
    K(K_NOREG, "xor %eax, %eax")
    N("xor %edx, %edx")
    N("lfence")
    N("movq %xmm1, %rax")
    N("paddd %xmm1, %xmm2")
    N("movq %r8, %xmm15")
    N("mov $77, %eax")
    N("xor %edx, %edx")
    N("mov $5, %ecx")
    N("div %ecx")
    N("xor %eax, %eax")
    N("cpuid")
    N("std")
    N("cld")
    N("bswap %r12")
    N("pause")
    N("fninit")
    N("fld1")
    N("fstp %st(0)")
    N("mov %rsp, %r13")
    N("sub $16, %rsp")
    N("mov %r13, %rsp"));

SEQUENCE(branches,
    N("mov $3, %ecx")
    "1:\n"
    N("dec %ecx")
    COND("jnz 1b")
    COND("jnz 2f")
    COND("jz 2f")
    "   ud2\n"
    "2:\n"
    JMP("jmp 3f")
    "   ud2\n"
    "3:\n"
    N("lea 4f(%rip), %rax")
    K(K_BRANCH | K_NEAR | K_INDIRECT, "jmp *%rax")
    "   ud2\n"
    "4:\n"
    N("lea 5f(%rip), %rax")
    S("mov %rax, -16(%rsp)")
    K(K_BRANCH | K_NEAR | K_INDIRECT | K_LOAD, "jmp *-16(%rsp)")
    "   ud2\n"
    "5:\n"
    CALL("call 8f")
    N("lea 8f(%rip), %rax")
    K(K_BRANCH | K_NEAR | K_INDIRECT | K_CALL | K_STORE, "call *%rax")
    S("mov %rax, -32(%rsp)")
    K(K_BRANCH | K_NEAR | K_INDIRECT | K_CALL | K_STORE | K_LOAD,
      "call *-32(%rsp)")
    S("push $0x77")
    CALL("call 7f")
    N("xor %ecx, %ecx")
    COND("jrcxz 6f")
    "   ud2\n"
    "6:\n"
    N("inc %ecx")
    COND("jrcxz 6b")
    N("mov $2, %ecx")
    "1:\n"
    N("nop")
    COND("loop 1b")
    N("mov $5, %ecx")
    "1:\n"
    N("cmp $3, %ecx")
    COND("loopne 1b")
    N("mov $2, %ecx")
    "1:\n"
    N("cmp $2, %ecx")
    COND("loope 1b")
    N("cmp $1, %ecx")
    N("cmovz %rsp, %r14")
    COND("jo 6b")
    COND("jno 9f")
    "   ud2\n"
    "7:\n"
    N("nop")
    RET("ret $8")
    "8:\n"
    RET("rep; ret")
    "9:\n");

SEQUENCE(memory,
    L("mov (%rdi), %rax")
    S("mov %rax, 8(%rdi)")
    LS("add %rax, 16(%rdi)")
    L("add 24(%rdi), %rax")
    L("cmp %rax, (%rsi)")
    L("test %eax, (%rsi)")
    S("push %rax")
    L("pop %rbx")
    LS("push (%rsi)")
    LS("pop 32(%rdi)")
    N("lea 32(%rdi), %rcx")
    LS("xchg %rax, (%rdi)")
    LS("lock addq $3, (%rdi)")
    LS("lock xadd %rax, 8(%rdi)")
    LS("lock incl 40(%rdi)")
    LS("lock cmpxchg %rcx, (%rdi)")
    LS("cmpxchg8b 48(%rdi)")
    LS("lock cmpxchg16b 64(%rdi)")
    /* across a page: with more than one vCPU a step of its own */
    LS("lock addq $5, 2044(%rdi)")
    N("mfence")
    L("movdqu (%rdi), %xmm3")
    S("movdqu %xmm3, 96(%rdi)")
    L("paddd 16(%rdi), %xmm4")
    N("pcmpeqd %xmm5, %xmm5")
    S("maskmovdqu %xmm5, %xmm4")
    S("movnti %eax, 112(%rdi)")
    S("movlpd %xmm2, 120(%rdi)")
    N("fninit")
    L("fildl (%rdi)")
    S("fstpl 128(%rdi)")
    N("fld1")
    S("fstpt 128(%rdi)")
    L("fldt 128(%rdi)")
    S("fnstcw 144(%rdi)")
    L("fldcw 144(%rdi)")
    S("fxsave64 512(%rdi)")
    L("fxrstor64 512(%rdi)")
    S("enter $32, $0")
    L("leave")
    N("mov %rdi, %rbx")
    N("mov $9, %eax")
    L("xlat")
    L("btq $3, (%rdi)")
    LS("btsq $3, (%rdi)")
    S("setz (%rdi)")
    N("cmp %eax, %eax")
    L("cmovz (%rdi), %rdx")
    L("cmovnz (%rdi), %rdx")
    LS("notq (%rdi)")
    LS("incb 3(%rdi)")
    LS("shlq $2, (%rdi)")
    L("movsbl (%rdi), %eax")
    L("movswq 1(%rdi), %r8")
    L("bsf (%rdi), %r9")
    L("imul $3, (%rdi), %r10")
    L("movbe (%rdi), %r11")
    S("movbe %r11, 8(%rdi)")
    L("lodsb")
    S("stosq")
    LS("movsl")
    L("scasw")
    L("cmpsb")
    S("pushfq")
    N("lea 8(%rsp), %rsp")
    N("nopl (%rdi)"));

SEQUENCE(strings,
    N("mov $5, %ecx")
    LS("rep movsb")
    N("rep movsb")
    N("mov $4, %ecx")
    S("rep stosq")
    N("rep stosq")
    N("mov $3, %ecx")
    L("rep lodsl")
    N("rep lodsl")
    N("lea 256(%rdi), %r8")
    N("mov %rsi, %rdi")
    N("mov $9, %ecx")
    L("mov 3(%rdi), %al")
    L("repne scasb")
    N("mov %rsi, %rdi")
    N("mov $6, %ecx")
    L("repe cmpsb")
    N("xor %ecx, %ecx")
    N("repe cmpsb")
    N("mov %r8, %rdi")
    N("mov $1, %ecx")
    LS("rep movsq")
    N("std")
    N("mov $2, %ecx")
    S("rep stosb")
    N("cld")
    N("nop"));

/* At CPL 0 only */
SEQUENCE(privileged,
    N("cli")
    S("sgdt (%rdi)")
    L("lgdt (%rdi)")
    S("sidt 16(%rdi)")
    L("lidt 16(%rdi)")
    N("mov %cr3, %rax")
    N("mov %rax, %cr3")
    N("invlpg (%rdi)")
    N("mov %cr4, %rax")
    N("mov %rax, %cr4")
    N("mov $0xc0000103, %ecx")
    N("mov $7, %eax")
    N("xor %edx, %edx")
    N("wrmsr")
    N("mov $9, %eax")
    N("rdmsr")
    N("mov $0x390, %ecx")       /* an MSR of the PMU */
    N("xor %eax, %eax")
    N("wrmsr")
    N("wrmsr")
    N("rdmsr")
    N("xor %ecx, %ecx")
    K(K_NOREG, "rdpmc")
    K(K_NOREG, "xor %eax, %eax")
    N("xor %edx, %edx")
    N("mov $0xfee00000, %ecx")  /* a device */
    L("mov 0x20(%rcx), %eax")
    N("nop")
    S("movl $0, 0x80(%rcx)")
    N("nop")
    N("mov $0xe9, %edx")        /* ports */
    N("in (%dx), %al")
    N("out %al, $0x80")
    N("mov $0x80, %edx")
    L("outsb")
    N("mov $3, %ecx")
    L("rep outsb")
    N("rep outsb")
    N("mov $0xe9, %edx")
    S("insb")
    N("mov $2, %ecx")
    S("rep insb")
    N("clts")
    N("swapgs")
    N("swapgs")
    N("mov %dr7, %rax")
    N("wbinvd")
    N("str %eax")
    N("mov $0x10, %eax")
    N("mov %eax, %ds")
    N("lar %eax, %edx")
    N("cmp %eax, %eax")
    S("push $8")
    N("lea 1f(%rip), %rax")
    S("push %rax")
    K(K_BRANCH | K_FAR | K_LOAD, "lretq")
    "   ud2\n"
    "1:\n"
    S("pushfq")
    L("popfq")
    N("nop"));

/* Self-modifying: the instruction before, the next, one further on */
SEQUENCE(self_modifying,
    N("nop")
    K(K_NOREG, ".byte 0xbe\n patch_1: .long 0")
    K(K_NOREG | K_LOAD | K_STORE, "incl patch_1(%rip)")
    K(K_NOREG | K_LOAD | K_STORE, "incl patch_2(%rip)")
    K(K_NOREG, ".byte 0xbe\n patch_2: .long 0")
    K(K_NOREG | K_LOAD | K_STORE, "incl patch_3(%rip)")
    K(K_NOREG, "nop")
    K(K_NOREG, "nop")
    K(K_NOREG, ".byte 0xbe\n patch_3: .long 0")
    N("xor %esi, %esi")
    N("nop"));

/* An instruction that lies in two pages */
asm("   .text\n"
    "   .balign 4096\n"
    "   .skip 4096 - 35\n"
    SEQUENCE_BODY("page_crossing",
    N("nop")
    N("nop")
    L("mov (%rdi), %rbx")
    N("movabs $0x1122334455667788, %rax")
    N("movabs $0x1122334455667799, %rbx")
    N("add %rax, %rbx")
    S("mov %rbx, (%rdi)")
    N("nop")));
extern uint8_t page_crossing[], page_crossing_enter[], page_crossing_end[];

/* Rounds of which a block may do only so many at a time */
SEQUENCE(long_strings,
    N("mov $0x100000, %esi")
    N("mov $65600, %ecx")
    L("rep lodsb")
    K(K_NOREG, "xor %eax, %eax")
    N("nop"));

/* ---- sequences that can't: each has a list of what is executed ---- */

#define BODY    AT_BODY
#define KERNEL  AT_KERNEL
#define OFF     AT_OFF
#define TRAP    AT_TRAP

#define STOP(base, index, count, at)  ((Stop) { base, index, count, at })

#define IRET_STOPS          STOP(just_iret, 0, 1, KERNEL)
#define SKIP_STOPS          STOP(skip_2, 0, 2, KERNEL)
#define SKIP_ERROR_STOPS    STOP(skip_2_error, 0, 3, KERNEL)
#define RETRY_STOPS         STOP(map_and_retry, 0, 3, KERNEL)
#define RESUME_STOPS        STOP(resume, 0, 2, KERNEL)
#define EOI_STOPS           STOP(eoi_iret, 0, 5, KERNEL)

SEQUENCE(syscalls,
    N("mov $3, %ebx")
    "1:\n"
    FAR("syscall")
    N("dec %ebx")
    COND("jnz 1b")
    N("nop"));

static const Stop syscalls_list[] = {
    STOP(syscalls, 3, 2, BODY),
    STOP(just_sysret, 0, 1, KERNEL),
    STOP(syscalls, 5, 2, BODY),
    STOP(syscalls, 4, 1, BODY),
    STOP(just_sysret, 0, 1, KERNEL),
    STOP(syscalls, 5, 2, BODY),
    STOP(syscalls, 4, 1, BODY),
    STOP(just_sysret, 0, 1, KERNEL),
    STOP(syscalls, 5, 3, BODY), { }
};

static void syscalls_setup(void)
{
    wrmsr(MSR_LSTAR, (uintptr_t)just_sysret);
}

/* With segments of its own: see init_sysenter_segments() */
SEQUENCE(sysenter,
    N("mov %rsp, %rcx")
    N("lea 1f(%rip), %rdx")
    FAR("sysenter")
    "1:\n"
    N("nop")
    L("mov (%rdi), %rax"));

static const Stop sysenter_list[] = {
    STOP(sysenter, 3, 3, BODY),
    STOP(just_sysexit, 0, 1, KERNEL),
    STOP(sysenter, 6, 2, BODY), { }
};

static void sysenter_setup(void)
{
    init_sysenter_segments();
    wrmsr(MSR_SYSENTER_ESP, ist_top(IST_FAULT));
    wrmsr(MSR_SYSENTER_EIP, (uintptr_t)just_sysexit);
}

/* 32-bit code, and its ways into the kernel */
SEQUENCE(compatibility,
    S("push $" STRING(SYSENTER_USER_CS32))
    N("lea 1f(%rip), %rax")
    S("push %rax")
    K(K_BRANCH | K_FAR | K_LOAD, "lretq")
    "   .code32\n"
    "1:\n"
    N("nop")
    N("mov %esp, %ecx")
    N("mov $1f, %edx")
    FAR("sysenter")
    "1:\n"
    FAR("int $0x82")
    N("mov $0x7fffffff, %eax")
    N("inc %eax")
    FAR("into")                 /* overflow: it traps */
    N("xor %eax, %eax")
    N("into")                   /* none: it is no branch */
    S("push %eax")
    L("pop %edx")
    CALL("call 2f")
    JMP("jmp 3f")
    "2:\n"
    RET("ret")
    "3:\n"
    FAR("ljmp $" STRING(SYSENTER_USER_CS) ", $1f")
    "   .code64\n"
    "1:\n"
    N("nop"));

static const Stop compatibility_list[] = {
    STOP(compatibility, 3, 8, BODY),
    STOP(just_sysexit_32, 0, 1, KERNEL),
    STOP(compatibility, 11, 1, BODY), IRET_STOPS,
    STOP(compatibility, 12, 3, BODY), IRET_STOPS,
    STOP(compatibility, 15, 5, BODY),
    STOP(compatibility, 21, 1, BODY),
    STOP(compatibility, 20, 1, BODY),
    STOP(compatibility, 22, 2, BODY), { }
};

static void compatibility_setup(void)
{
    init_sysenter_segments();
    wrmsr(MSR_SYSENTER_ESP, ist_top(IST_FAULT));
    wrmsr(MSR_SYSENTER_EIP, (uintptr_t)just_sysexit_32);
    set_gate(4, just_iret, 3);
    set_gate(0x82, just_iret, 3);
}

SEQUENCE(call_gate,
    S("movl $0, (%rdi)")
    S("movl $" STRING(GATE_SELECTOR) ", 4(%rdi)")
    K(K_BRANCH | K_FAR | K_LOAD | K_STORE, "lcall *(%rdi)")
    N("nop"));

static const Stop call_gate_list[] = {
    STOP(call_gate, 3, 3, BODY),
    STOP(just_lret, 0, 1, KERNEL),
    STOP(call_gate, 6, 1, BODY), { }
};

static void call_gate_setup(void)
{
    set_call_gate(just_lret);
}

/* INT1, INT3 and INT n; one through a gate that CPL 3 may not use */
SEQUENCE(interrupts,
    N("nop")
    FAR("int $0x82")
    N("nop")
    FAR("int3")
    FAR(".byte 0xcd, 0x03")
    FAR("int1")
    N("nop")
    FAR("int $0x83")
    N("nop")
    FAR("int $0x82"));

static const Stop user_interrupts_list[] = {
    STOP(interrupts, 3, 2, BODY), IRET_STOPS,
    STOP(interrupts, 5, 2, BODY), IRET_STOPS,
    STOP(interrupts, 7, 1, BODY), IRET_STOPS,
    STOP(interrupts, 8, 1, TRAP), IRET_STOPS,
    STOP(interrupts, 9, 1, BODY),
    STOP(interrupts, 10, 1, OFF), SKIP_ERROR_STOPS,
    STOP(interrupts, 11, 2, BODY), IRET_STOPS, { }
};
static const Stop kernel_interrupts_list[] = {
    STOP(interrupts, 3, 2, BODY), IRET_STOPS,
    STOP(interrupts, 5, 2, BODY), IRET_STOPS,
    STOP(interrupts, 7, 1, BODY), IRET_STOPS,
    STOP(interrupts, 8, 1, TRAP), IRET_STOPS,
    STOP(interrupts, 9, 2, BODY), IRET_STOPS,
    STOP(interrupts, 11, 2, BODY), IRET_STOPS, { }
};

static void interrupts_setup(void)
{
    set_gate(1, just_iret, 0);
    set_gate(3, just_iret, 3);
    set_gate(0x82, just_iret, 3);
    set_gate(0x83, just_iret, 0);
    set_gate(13, skip_2_error, 0);
}

/* Faults, each of an instruction of two bytes */
SEQUENCE(faults,
    N("mov $0x40003000, %esi")
    N("movabs $0x800000000000, %rbx")
    L("mov (%rdi), %eax")
    N("ud2")
    S("mov %eax, (%rdi)")
    N("xor %ecx, %ecx")
    N("div %ecx")
    N("mov (%rsi), %ecx")
    N("mov %ecx, (%rsi)")
    N("add %eax, (%rsi)")
    N("pop (%rsi)")
    N("call *(%rsi)")
    N("jmp *(%rsi)")
    N("nop")
    N("mov (%rbx), %ecx")
    N("ud2")
    N("ud2")
    N("nop"));

static const Stop faults_list[] = {
    STOP(faults, 3, 3, BODY),
    STOP(faults, 6, 1, OFF), SKIP_STOPS,
    STOP(faults, 7, 2, BODY),
    STOP(faults, 9, 1, OFF), SKIP_STOPS,
    STOP(faults, 10, 1, OFF), SKIP_ERROR_STOPS,
    STOP(faults, 11, 1, OFF), SKIP_ERROR_STOPS,
    STOP(faults, 12, 1, OFF), SKIP_ERROR_STOPS,
    STOP(faults, 13, 1, OFF), SKIP_ERROR_STOPS,
    STOP(faults, 14, 1, OFF), SKIP_ERROR_STOPS,
    STOP(faults, 15, 1, OFF), SKIP_ERROR_STOPS,
    STOP(faults, 16, 1, BODY),
    STOP(faults, 17, 1, OFF), SKIP_ERROR_STOPS,
    STOP(faults, 18, 1, OFF), SKIP_STOPS,
    STOP(faults, 19, 1, OFF), SKIP_STOPS,
    STOP(faults, 20, 1, BODY), { }
};

/* What CPL 3 may not do */
SEQUENCE(user_faults,
    N("nop")
    N("wrmsr")
    N("rdmsr")
    N("nop")
    N("clts")
    N("in $0x80, %al")
    N("out %al, $0x80")
    N("cli\n nop")
    L("mov (%rdi), %eax")
    N("hlt\n nop")
    N("mov %eax, %ebx"));

static const Stop user_faults_list[] = {
    STOP(user_faults, 3, 1, BODY),
    STOP(user_faults, 4, 1, OFF), SKIP_ERROR_STOPS,
    STOP(user_faults, 5, 1, OFF), SKIP_ERROR_STOPS,
    STOP(user_faults, 6, 1, BODY),
    STOP(user_faults, 7, 1, OFF), SKIP_ERROR_STOPS,
    STOP(user_faults, 8, 1, OFF), SKIP_ERROR_STOPS,
    STOP(user_faults, 9, 1, OFF), SKIP_ERROR_STOPS,
    STOP(user_faults, 10, 1, OFF), SKIP_ERROR_STOPS,
    STOP(user_faults, 11, 1, BODY),
    STOP(user_faults, 12, 1, OFF), SKIP_ERROR_STOPS,
    STOP(user_faults, 13, 1, BODY), { }
};

static void faults_setup(void)
{
    set_gate(0, skip_2, 0);
    set_gate(6, skip_2, 0);
    set_gate(13, skip_2_error, 0);
    set_gate(14, skip_2_error, 0);
}

/* Page faults after which the instruction succeeds */
SEQUENCE(retry_load,
    N("mov $" STRING(PAGES_AT) "+0xffc, %ebx")
    L("mov (%rbx), %rax")
    N("nop"));
SEQUENCE(retry_update,
    N("mov $" STRING(PAGES_AT) "+0x1008, %ebx")
    LS("add %rax, (%rbx)")
    N("nop"));
SEQUENCE(retry_call,
    N("mov %rsp, %r13")
    N("mov $" STRING(PAGES_AT) "+0x1010, %esp")
    CALL("call 1f")
    "   ud2\n"
    "1:\n"
    N("mov %r13, %rsp"));
SEQUENCE(retry_string,
    N("mov $" STRING(PAGES_AT) "+0xffd, %edi")
    N("mov $6, %ecx")
    LS("rep movsb")
    N("nop"));
SEQUENCE(retry_store_string,
    N("mov $" STRING(PAGES_AT) "+0x1010, %edi")
    N("mov $3, %ecx")
    S("rep stosl")
    N("nop"));
SEQUENCE(retry_xsave,
    N("mov $" STRING(PAGES_AT) "+0xf00, %ebx")
    S("fxsave64 (%rbx)")
    N("nop"));

static const Stop retry_load_list[] = {
    STOP(retry_load, 3, 1, BODY),
    STOP(retry_load, 4, 1, OFF), RETRY_STOPS,
    STOP(retry_load, 4, 2, BODY), { }
};
static const Stop retry_update_list[] = {
    STOP(retry_update, 3, 1, BODY),
    STOP(retry_update, 4, 1, OFF), RETRY_STOPS,
    STOP(retry_update, 4, 2, BODY), { }
};
static const Stop retry_call_list[] = {
    STOP(retry_call, 3, 2, BODY),
    STOP(retry_call, 5, 1, OFF), RETRY_STOPS,
    STOP(retry_call, 5, 2, BODY), { }
};
static const Stop retry_string_list[] = {
    STOP(retry_string, 3, 2, BODY),
    STOP(retry_string, 5, 1, OFF), RETRY_STOPS,
    STOP(retry_string, 5, 2, BODY), { }
};
static const Stop retry_store_string_list[] = {
    STOP(retry_store_string, 3, 2, BODY),
    STOP(retry_store_string, 5, 1, OFF), RETRY_STOPS,
    STOP(retry_store_string, 5, 2, BODY), { }
};
static const Stop retry_xsave_list[] = {
    STOP(retry_xsave, 3, 1, BODY),
    STOP(retry_xsave, 4, 1, OFF), RETRY_STOPS,
    STOP(retry_xsave, 4, 2, BODY), { }
};

static void retry_setup(void)
{
    map_page(0, frames[0], PAGE_P | PAGE_W | PAGE_U);
    set_gate(14, map_and_retry, 0);
}

static void retry_before(void)
{
    memset(frames[0], 0, PAGE);
    memset(frames[1], 0, PAGE);
    map_page(1, frames[1], PAGE_AD);
}

/* Debug registers: a trap behind an access, a fault before an instruction */
SEQUENCE(breakpoints,
    N("nop")
    L("mov (%rdi), %rax")
    N("nop")
    S("mov %rax, (%rdi)")
    N("nop")
    LS("add %rax, (%rdi)")
    LS("lock add %rax, (%rdi)")
    N("nop")
    "broken:\n"
    L("mov 8(%rdi), %rbx")
    N("nop"));
ASM_LABEL(broken);

static const Stop breakpoints_list[] = {
    STOP(breakpoints, 3, 1, BODY),
    STOP(breakpoints, 4, 1, TRAP), IRET_STOPS,
    STOP(breakpoints, 5, 1, BODY),
    STOP(breakpoints, 6, 1, TRAP), IRET_STOPS,
    STOP(breakpoints, 7, 1, BODY),
    STOP(breakpoints, 8, 1, TRAP), IRET_STOPS,
    STOP(breakpoints, 9, 1, TRAP), IRET_STOPS,
    STOP(breakpoints, 10, 3, BODY), { }
};

static void watch_setup(void)
{
    set_gate(1, just_iret, 0);
}

static void watch_before(void)
{
    write_dr(0, (uintptr_t)test_data + 2048);
    write_dr(7, 0x400 | 2 | 3 << 16 | 2 << 18);
}

static const Stop instruction_breakpoint_list[] = {
    STOP(breakpoints, 3, 8, BODY),
    STOP(breakpoints, 11, 1, OFF), RESUME_STOPS,
    STOP(breakpoints, 11, 2, BODY), { }
};

static void instruction_breakpoint_setup(void)
{
    set_gate(1, resume, 0);
}

static void instruction_breakpoint_before(void)
{
    write_dr(0, (uintptr_t)broken);
    write_dr(7, 0x400 | 2);
}

static void breakpoints_after(void)
{
    write_dr(7, 0x400);
}

/* A trap behind an access to a port */
SEQUENCE(port,
    N("nop")
    N("out %al, $0x80")
    N("nop")
    N("in $0x80, %al")
    N("nop"));

static const Stop port_list[] = {
    STOP(port, 3, 1, BODY),
    STOP(port, 4, 1, TRAP), IRET_STOPS,
    STOP(port, 5, 1, BODY),
    STOP(port, 6, 1, TRAP), IRET_STOPS,
    STOP(port, 7, 1, BODY), { }
};

static void port_before(void)
{
    write_cr(4, read_cr(4) | 8);        /* DE */
    write_dr(0, 0x80);
    write_dr(7, 0x400 | 2 | 2 << 16);
}

static void port_after(void)
{
    write_dr(7, 0x400);
    write_cr(4, read_cr(4) & ~8ull);
}

/* The code single-steps itself, and its handler is known. */
SEQUENCE(trap_flag,
    S("pushfq")
    LS("orl $0x100, (%rsp)")
    L("popfq")
    N("nop")
    LS("add %rax, (%rdi)")
    N("cmp %eax, %eax")
    COND("jz 1f")
    "1:\n"
    S("pushfq")
    LS("andl $~0x100, (%rsp)")
    L("popfq")
    N("nop"));

static const Stop trap_flag_list[] = {
    STOP(trap_flag, 3, 3, BODY),
    STOP(trap_flag, 6, 1, TRAP), IRET_STOPS,
    STOP(trap_flag, 7, 1, TRAP), IRET_STOPS,
    STOP(trap_flag, 8, 1, TRAP), IRET_STOPS,
    STOP(trap_flag, 9, 1, TRAP), IRET_STOPS,
    STOP(trap_flag, 10, 1, TRAP), IRET_STOPS,
    STOP(trap_flag, 11, 1, TRAP), IRET_STOPS,
    STOP(trap_flag, 12, 1, TRAP), IRET_STOPS,
    STOP(trap_flag, 13, 1, BODY), { }
};

SEQUENCE(mov_ss,
    N("mov %ss, %eax")
    K(K_SHADOW, "mov %eax, %ss")
    N("nop")
    N("nop")
    K(K_SHADOW, "mov %eax, %ss")
    L("mov (%rdi), %rax")
    N("nop"));

static const Stop mov_ss_list[] = {
    STOP(mov_ss, 3, 7, BODY), { }
};

/* Counting is off from the first WRMSR on and on from the second one. */
SEQUENCE(switching_off,
    N("mov $0x38f, %ecx")
    N("xor %eax, %eax")
    N("xor %edx, %edx")
    N("wrmsr")
    N("nop")
    LS("add %rbx, (%rdi)")
    COND("jz 1f")
    "1:\n"
    L("mov seq_mask(%rip), %eax")
    L("mov seq_mask+4(%rip), %edx")
    N("wrmsr")
    N("nop")
    LS("add %rbx, (%rdi)")
    N("nop"));

static const Stop switching_off_list[] = {
    STOP(switching_off, 3, 3, BODY),
    STOP(switching_off, 6, 6, OFF),
    STOP(switching_off, 12, 4, BODY), { }
};

/* The timer of the local APIC ends the halt. */
SEQUENCE(halt,
    N("sti")
    N("hlt")
    N("cli")
    N("nop"));

static const Stop halt_list[] = {
    STOP(halt, 3, 1, BODY),
    STOP(halt, 4, 1, TRAP), EOI_STOPS,
    STOP(halt, 5, 2, BODY), { }
};

#define TIMER_VECTOR    0x90
#define TIMER_PERIODIC  0x20000
#define TIMER_TICKS     200000  /* of 1 ns */

/* Interrupts at @handler, each @every ns */
static void timer_start(const uint8_t *handler, uint32_t every)
{
    set_gate(TIMER_VECTOR, handler, 0);
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_TIMER, TIMER_VECTOR | TIMER_PERIODIC);
    apic_write(APIC_INITIAL, every);
}

/* One tick may still wait. */
static void timer_stop(void)
{
    apic_write(APIC_INITIAL, 0);
    apic_write(APIC_TIMER, APIC_MASKED);
    asm volatile("sti; nop; nop; cli" : : : "memory");
    reset_gate(TIMER_VECTOR);
}

static void halt_setup(void)
{
    set_gate(TIMER_VECTOR, eoi_iret, 0);
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_TIMER, TIMER_VECTOR);
}

static void halt_before(void)
{
    apic_write(APIC_INITIAL, TIMER_TICKS);
}

/* An interrupt that is there at once, but for IF and the shadow of STI */
SEQUENCE(interrupt,
    N("mov $0xfee00300, %eax")
    S("movl $0x40000 + " STRING(TIMER_VECTOR) ", (%rax)")
    N("sti")
    N("nop")
    L("mov (%rdi), %rbx")
    N("cli")
    N("nop"));

static const Stop interrupt_list[] = {
    STOP(interrupt, 3, 3, BODY),
    STOP(interrupt, 6, 1, TRAP), EOI_STOPS,
    STOP(interrupt, 7, 3, BODY), { }
};

static void interrupt_setup(void)
{
    set_gate(TIMER_VECTOR, eoi_iret, 0);
}

/* ---- all of them ---- */

typedef struct Scenario {
    const char *name;
    Sequence seq;
    bool kernel, user;      /* which levels it can be run at */
    const Stop *list;       /* NULL: single-step */
    void (*setup)(void), (*before)(void), (*after)(void);
    bool slow;              /* few runs only */
    bool brief;             /* also if all is to be brief */
    bool no_pmi;            /* a PMI would change what is executed */
} Scenario;

static const Scenario scenarios[] = {
    { "arithmetic", SEQ(alu), true, true },
    { "branches", SEQ(branches), true, true, .brief = true },
    { "memory", SEQ(memory), true, true },
    { "strings", SEQ(strings), true, true },
    { "long strings", SEQ(long_strings), true, true, .slow = true },
    { "privileged", SEQ(privileged), true },
    { "self-modifying", SEQ(self_modifying), true, true },
    { "page crossing", SEQ(page_crossing), true, true },
    { "SYSCALL", SEQ(syscalls), false, true, syscalls_list, syscalls_setup,
      .brief = true },
    { "SYSENTER", SEQ(sysenter), false, true, sysenter_list, sysenter_setup },
    { "32-bit code", SEQ(compatibility), false, true, compatibility_list,
      compatibility_setup },
    { "call gate", SEQ(call_gate), true, true, call_gate_list,
      call_gate_setup },
    { "INT at CPL 3", SEQ(interrupts), false, true, user_interrupts_list,
      interrupts_setup },
    { "INT at CPL 0", SEQ(interrupts), true, false, kernel_interrupts_list,
      interrupts_setup },
    { "faults", SEQ(faults), true, true, faults_list, faults_setup },
    { "faults of privilege", SEQ(user_faults), false, true, user_faults_list,
      faults_setup },
    { "retried load", SEQ(retry_load), true, true, retry_load_list,
      retry_setup, retry_before },
    { "retried update", SEQ(retry_update), true, true, retry_update_list,
      retry_setup, retry_before },
    { "retried call", SEQ(retry_call), true, true, retry_call_list,
      retry_setup, retry_before },
    { "interrupted string", SEQ(retry_string), true, true, retry_string_list,
      retry_setup, retry_before },
    { "retried string", SEQ(retry_store_string), true, true,
      retry_store_string_list, retry_setup, retry_before },
    { "retried FXSAVE", SEQ(retry_xsave), true, true, retry_xsave_list,
      retry_setup, retry_before },
    { "data watchpoint", SEQ(breakpoints), true, true, breakpoints_list,
      watch_setup, watch_before, breakpoints_after },
    { "instruction breakpoint", SEQ(breakpoints), true, true,
      instruction_breakpoint_list, instruction_breakpoint_setup,
      instruction_breakpoint_before, breakpoints_after },
    { "I/O breakpoint", SEQ(port), true, false, port_list, watch_setup,
      port_before, port_after },
    { "trap flag", SEQ(trap_flag), true, true, trap_flag_list, watch_setup },
    { "MOV SS", SEQ(mov_ss), true, true, mov_ss_list },
    { "switching off", SEQ(switching_off), true, false, switching_off_list },
    { "interrupt", SEQ(interrupt), true, false, interrupt_list,
      interrupt_setup, .no_pmi = true },
    { "HLT", SEQ(halt), true, false, halt_list, halt_setup, halt_before,
      .slow = true, .no_pmi = true },
};
#define SCENARIOS (sizeof(scenarios) / sizeof(scenarios[0]))

static const Scenario *find_scenario(const char *name)
{
    for (unsigned i = 0; i < SCENARIOS; i++) {
        if (starts_with(scenarios[i].name, name)) {
            return &scenarios[i];
        }
    }
    quit(2);
}

/* Call @check with each scenario, at each level that it can be run at. */
static void for_scenarios(void (*check)(const Scenario *sc, bool user))
{
    for (unsigned i = 0; i < SCENARIOS; i++) {
        const Scenario *sc = &scenarios[i];

        if (config.brief && !sc->brief) {
            continue;
        }
        if (sc->kernel) {
            check(sc, false);
        }
        if (sc->user) {
            check(sc, true);
        }
    }
}

static void scenario_begin(const Scenario *sc, bool user)
{
    before_run = sc->before;
    after_run = sc->after;
    if (sc->setup) {
        sc->setup();
    }
    find_steps(&sc->seq, user, sc->list);
}

static void scenario_end(void)
{
    before_run = after_run = NULL;
    for (unsigned i = 0; i < 256; i++) {
        reset_gate(i);
    }
    set_gate(0x81, seq_exit, 3);
}

#endif
