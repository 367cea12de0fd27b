/*
 * Takes the CPU and gives it to nobody: the guest stalls.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>

static int set(const char *name, const char *value)
{
    FILE *file = fopen(name, "w");

    return !file || fputs(value, file) < 0 || fclose(file);
}

int main(void)
{
    struct sched_param top = { .sched_priority = 99 };

    /* what newer kernels keep for ordinary processes; older ones lack it */
    mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
    set("/sys/kernel/debug/sched/fair_server/cpu0/runtime", "0");
    if (set("/proc/sys/kernel/sched_rt_runtime_us", "-1")
        || sched_setscheduler(0, SCHED_FIFO, &top)) {
        perror("hog");
        return 1;
    }
    for (;;) {
    }
}
