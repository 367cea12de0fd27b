/*
 * Counts the instructions that a program retires, by single-stepping it.
 *
 *     stepper [-p PERIOD] PROGRAM [ARGUMENT...]
 *
 * Prints "total N", and with a period, for every PERIOD-th instruction, a line
 *
 *     ADDRESS NEXT AX BX CX DX SI DI BP SP R8 ... R15
 *
 * its own address, and the address of the next one and the registers after
 * it, all hexadecimal. This is the reference that counters are held against;
 * it needs no PMU.
 *
 * What counts: every instruction that completes. One that faults doesn't until
 * it is done again. A REP instruction traps after every round and counts once,
 * when it is left. The system call that ends the program counts.
 *
 * Not for programs that use the trap flag themselves or load SS, which
 * suppresses one trap.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* si_code of the stop at a signal handler's first instruction */
#define STOP_AT_HANDLER SIGTRAP

static unsigned long total;
static unsigned long period;

static void die(const char *what)
{
    fprintf(stderr, "stepper: %s: %s\n", what, strerror(errno));
    exit(1);
}

static bool is_prefix(unsigned char byte)
{
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e:
    case 0x64: case 0x65: case 0x66: case 0x67:
    case 0x40 ... 0x4f:
    case 0xf2: case 0xf3:
        return true;
    default:
        return false;
    }
}

static bool is_string_operation(unsigned char byte)
{
    return (byte >= 0xa4 && byte <= 0xa7) || (byte >= 0xaa && byte <= 0xaf)
           || (byte >= 0x6c && byte <= 0x6f);
}

static bool is_repeated(pid_t pid, unsigned long address)
{
    unsigned char code[16];
    bool repeated = false;

    for (size_t i = 0; i < sizeof(code); i += sizeof(long)) {
        long word;

        errno = 0;
        word = ptrace(PTRACE_PEEKTEXT, pid, address + i, NULL);
        if (errno) {
            word = 0;       /* beyond the last page: no prefix, no string */
        }
        memcpy(code + i, &word, sizeof(word));
    }
    for (size_t i = 0; i < sizeof(code); i++) {
        if (!is_prefix(code[i])) {
            return repeated && is_string_operation(code[i]);
        }
        repeated |= code[i] == 0xf2 || code[i] == 0xf3;
    }
    return false;
}

static void retire(unsigned long address, const struct user_regs_struct *r)
{
    total++;
    if (!period || total % period) {
        return;
    }
    printf("%lx %llx %llx %llx %llx %llx %llx %llx %llx %llx "
           "%llx %llx %llx %llx %llx %llx %llx %llx\n",
           address, r->rip, r->rax, r->rbx, r->rcx, r->rdx, r->rsi, r->rdi,
           r->rbp, r->rsp, r->r8, r->r9, r->r10, r->r11, r->r12, r->r13,
           r->r14, r->r15);
}

static void get_registers(pid_t pid, struct user_regs_struct *regs)
{
    if (ptrace(PTRACE_GETREGS, pid, NULL, regs)) {
        die("registers");
    }
}

/* The signal to hand on; counts what the stop says has retired. */
static int examine(pid_t pid, int signal, struct user_regs_struct *regs)
{
    unsigned long before = regs->rip;
    siginfo_t info;

    get_registers(pid, regs);
    if (signal != SIGTRAP) {
        return signal;              /* a fault: nothing has retired */
    }
    if (ptrace(PTRACE_GETSIGINFO, pid, NULL, &info)) {
        die("signal");
    }
    if (info.si_code == STOP_AT_HANDLER) {
        return 0;
    }
    if (info.si_code == SI_KERNEL) {        /* the program's own INT3 */
        retire(before, regs);
        return SIGTRAP;
    }
    if (regs->rip != before || !is_repeated(pid, before)) {
        retire(before, regs);
    }
    return 0;
}

static int step_to_end(pid_t pid)
{
    struct user_regs_struct regs;
    int status, signal = 0;

    get_registers(pid, &regs);
    for (;;) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, (long)signal)) {
            die("step");
        }
        if (waitpid(pid, &status, 0) != pid) {
            die("wait");
        }
        if (!WIFSTOPPED(status)) {
            return status;
        }
        signal = examine(pid, WSTOPSIG(status), &regs);
    }
}

static void become(char **argv)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    execvp(argv[0], argv);
    die(argv[0]);
}

int main(int argc, char **argv)
{
    int option, status;
    pid_t pid;

    while ((option = getopt(argc, argv, "+p:")) == 'p') {
        period = strtoul(optarg, NULL, 0);
    }
    if (option != -1 || optind == argc) {
        fprintf(stderr, "usage: stepper [-p PERIOD] PROGRAM...\n");
        return 2;
    }
    pid = fork();
    if (!pid) {
        become(argv + optind);
    }
    /* the first stop: the program's first instruction is to come */
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) {
        die("start");
    }
    status = step_to_end(pid);
    if (!WIFEXITED(status)) {
        fprintf(stderr, "stepper: the program was killed by signal %d\n",
                WTERMSIG(status));
        return 1;
    }
    total++;                        /* the call that ended it */
    printf("total %lu\n", total);
    return WEXITSTATUS(status);
}
