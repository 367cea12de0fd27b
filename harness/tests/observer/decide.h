/*
 * A state of KVM and perf at a VM entry, made up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef DECIDE_H
#define DECIDE_H

#include <linux/types.h>

#define DECIDE_COUNTERS     11
#define DECIDE_MSRS         10

struct decide_case {
    __u64 pebs_enable;
    __u64 global_ctrl;
    __s32 count;                /* of MSRs that perf switches */
    struct decide_counter {
        __s32 exists;           /* its perf_event */
        __s32 state;            /* of that */
        __s32 idx;
    } counters[DECIDE_COUNTERS];
    struct {
        __u32 index;
        __u64 guest;
    } msrs[DECIDE_MSRS];
};

#endif
