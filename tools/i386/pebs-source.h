/*
 * Where qemu-pebs-helper's reports come from: a BPF program, or a test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TOOLS_I386_PEBS_SOURCE_H
#define TOOLS_I386_PEBS_SOURCE_H

#include "pebs-watch.h"

/* A vCPU's thread, by the numbers of the initial PID namespace */
typedef struct PebsThread {
    pid_t process;
    pid_t thread;
} PebsThread;

/* Get ready; nothing runs yet at any VM entry. */
bool pebs_source_open(Error **errp);

/* Between start and stop, each VM entry is looked at. */
bool pebs_source_start(Error **errp);
void pebs_source_stop(void);

/*
 * Make the memory for a client's reports.  Returns a file descriptor of it,
 * through which nobody can write, or -1.
 */
int pebs_source_add_client(unsigned client, unsigned slots, Error **errp);
void pebs_source_remove_client(unsigned client);

/* Report on a thread; one that is watched already is refused. */
bool pebs_source_watch(PebsThread thread, struct pebs_place place,
                       Error **errp);
void pebs_source_unwatch(PebsThread thread);

#endif
