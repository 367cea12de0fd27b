/*
 * What qemu-pebs-helper and its BPF program share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TOOLS_I386_PEBS_WATCH_H
#define TOOLS_I386_PEBS_WATCH_H

#include <linux/types.h>

#define PEBS_MAX_CLIENTS    1024
#define PEBS_MAX_THREADS    65536

/* Where a thread's reports go */
struct pebs_place {
    __u32 client;
    __u32 slot;
};

#endif
