/*
 * A client's process, and the threads in it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TOOLS_I386_PEBS_PROCESS_H
#define TOOLS_I386_PEBS_PROCESS_H

/*
 * Both descriptors stay with this very process, whoever gets its number when
 * it is gone.
 */
typedef struct PebsProcess {
    pid_t pid;
    int pidfd;              /* readable when the process has ended */
    int tasks;              /* /proc/PID/task */
} PebsProcess;

/* The process at the other end of @socket */
bool pebs_process_open(PebsProcess *process, int socket, Error **errp);
void pebs_process_close(PebsProcess *process);

/**
 * pebs_process_find_thread: the number that a thread of @process has here
 * @named: the number that the process itself knows it by, in its PID namespace
 *
 * Returns 0 if it has no such thread.
 */
pid_t pebs_process_find_thread(const PebsProcess *process, pid_t named);

/* Whether PIDs are here as the kernel itself has them. */
bool pebs_process_in_initial_namespace(void);

#endif
