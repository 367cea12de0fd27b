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
#include <stdbool.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#define RUNTIME_LIMIT "/proc/sys/kernel/sched_rt_runtime_us"
/* what newer kernels keep for ordinary processes, for each CPU; older ones
   have no such thing */
#define RESERVE "/sys/kernel/debug/sched/fair_server/cpu%d/runtime"

static bool set(const char *name, const char *value)
{
    FILE *file = fopen(name, "w");

    return file && fputs(value, file) >= 0 && !fclose(file);
}

static void drop_reserves(void)
{
    char name[sizeof(RESERVE) + 8];

    mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
    for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++) {
        snprintf(name, sizeof(name), RESERVE, cpu);
        set(name, "0");
    }
}

int main(int argc, char **argv)
{
    struct sched_param priority = { .sched_priority = 98 };

    if (argc < 2) {
        fprintf(stderr, "usage: alone COMMAND...\n");
        return 2;
    }
    drop_reserves();
    if (!set(RUNTIME_LIMIT, "-1")
        || sched_setscheduler(0, SCHED_FIFO, &priority)) {
        perror("alone");
        return 126;
    }
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
