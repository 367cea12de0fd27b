/*
 * What QEMU and qemu-pebs-helper say to each other
 *
 * QEMU sends requests, the helper answers each with one reply, in order.  The
 * first request is PEBS_HELPER_HELLO; its reply carries a file descriptor of
 * read-only memory: one struct PebsHelperSlot for each vCPU that QEMU may have.
 * Both run on one machine: numbers are in its byte order.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_PEBS_HELPER_H
#define SYSTEM_PEBS_HELPER_H

#include <linux/types.h>

#define PEBS_HELPER_VERSION     2
#define PEBS_HELPER_MAX_SLOTS   4096
#define PEBS_HELPER_SOCKET      "qemu-pebs-helper.sock"

/*
 * Written at each VM entry of the thread that is watched in it, in this order.
 * The helper can't write here either, so what a slot held before it was watched
 * stays: only a number of entries other than then tells that @report is news,
 * and numbers count from then.
 */
struct PebsHelperSlot {
    __u64 report;               /* see target/i386/pebs-report.h */
    __u64 entries;              /* how many reports there were */
    __u64 active_entries;       /* with PEBS counters active */
    __u64 suspended_entries;    /* where one of them doesn't sample */
};

enum {
    /* @slot is PEBS_HELPER_VERSION, @value the number of slots wanted. */
    PEBS_HELPER_HELLO = 0x50454253,
    /* @value is the vCPU's thread, as the process that sends it knows it. */
    PEBS_HELPER_WATCH,
    PEBS_HELPER_UNWATCH,
};

struct PebsHelperRequest {
    __u32 kind;
    __u32 slot;
    __u32 value;
};

struct PebsHelperReply {
    __u32 kind;             /* of the request */
    __u32 slot;
    __u32 failed;
    char reason[244];       /* if it failed: a line for the user */
};

#endif
