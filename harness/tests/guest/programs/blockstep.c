/*
 * Lets a child run from branch to branch, by PTRACE_SINGLEBLOCK.
 *
 *     blockstep STOPS
 *
 * Linux sets IA32_DEBUGCTL.BTF for it. A CPU without BTF stops after each
 * instruction, which is of no matter here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define SINGLEBLOCK 33      /* in the kernel's headers only */

int main(int argc, char **argv)
{
    int stops = argc > 1 ? atoi(argv[1]) : 0, status;
    pid_t child = fork();

    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        for (;;) {
            getppid();
        }
    }
    waitpid(child, &status, 0);
    for (int i = 0; i < stops; i++) {
        if (ptrace(SINGLEBLOCK, child, 0, 0) || waitpid(child, &status, 0) < 0 ||
            !WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
            perror("blockstep");
            return 1;
        }
    }
    printf("%d stops\n", stops);
    kill(child, SIGKILL);
    return 0;
}
