/*
 * Layout of the word that tells where a vCPU's active PEBS counters are
 *
 * Five bits for each counter of the guest, general-purpose ones first.  It is
 * one word so that it can be read whole while the vCPU runs.  A BPF program
 * makes it, too: there is nothing but preprocessor and constants here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_PEBS_REPORT_H
#define I386_PEBS_REPORT_H

#define PEBS_REPORT_GP          8
#define PEBS_REPORT_FIXED       3
#define PEBS_REPORT_COUNTERS    (PEBS_REPORT_GP + PEBS_REPORT_FIXED)
#define PEBS_REPORT_LENGTH      5
#define PEBS_REPORT_SUSPENDED   (1ull << 63)

enum {
    PEBS_REPORT_INACTIVE,   /* no active PEBS counter */
    PEBS_REPORT_UNMAPPED,   /* on no physical counter: none is left */
    PEBS_REPORT_MAPPED,     /* plus the physical counter's position */
    /* on a physical counter that no guest has, so without a position */
    PEBS_REPORT_BEYOND = PEBS_REPORT_MAPPED + PEBS_REPORT_COUNTERS,
    PEBS_REPORT_HOST_PEBS,  /* on its own, stopped by the host's PEBS */
    PEBS_REPORT_OTHER,      /* does not sample for another reason */
};

#endif
