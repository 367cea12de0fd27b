/*
 * What qemu-pebs-helper reports on the vCPUs of this QEMU
 *
 * Each vCPU has a slot, and a report is one word; what it means is the
 * architecture's.  Call everything with the BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_PEBS_OBSERVER_H
#define SYSTEM_PEBS_OBSERVER_H

/**
 * pebs_observer_start: have the helper watch vCPUs from now on
 * @path: its socket, or NULL for the default
 * @slots: how many vCPUs there may be
 *
 * Never waits for the helper, which may be started, and restarted, later.
 */
void pebs_observer_start(const char *path, unsigned slots);

/* Whether pebs_observer_start() was called. */
bool pebs_observer_started(void);

/* Watch this thread in @slot; 0 for none. */
void pebs_observer_watch(unsigned slot, int thread);

/* What was seen of a vCPU; numbers are of VM entries since QEMU started */
typedef struct PebsObservation {
    uint64_t report;
    uint64_t entries;
    uint64_t active_entries;
    uint64_t suspended_entries;
} PebsObservation;

/**
 * pebs_observer_read: the last report of @slot, and how many there were
 *
 * Returns false if nobody watches it, or if it has not been seen yet.
 */
bool pebs_observer_read(unsigned slot, PebsObservation *seen);

#endif
