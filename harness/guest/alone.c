/*
 * Runs a command that nothing else interrupts for long.
 *
 *     alone COMMAND [ARGUMENT...]
 *
 * Linux never programs a counter to overflow after one event but after two.
 * A task switch that comes when one is left so moves every later sample by
 * one event. Whoever predicts all samples has to run without task switches:
 * as a real-time process, and no other process of the guest is one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#define RUNTIME_LIMIT "/proc/sys/kernel/sched_rt_runtime_us"

int main(int argc, char **argv)
{
    struct sched_param priority = { .sched_priority = 50 };
    FILE *limit = fopen(RUNTIME_LIMIT, "w");

    if (argc < 2) {
        fprintf(stderr, "usage: alone COMMAND...\n");
        return 2;
    }
    if (!limit || fputs("-1", limit) < 0 || fclose(limit)
        || sched_setscheduler(0, SCHED_FIFO, &priority)) {
        perror("alone");
        return 126;
    }
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
