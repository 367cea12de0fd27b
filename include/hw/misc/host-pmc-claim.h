/*
 * Contend for the physical counters behind a vCPU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_MISC_HOST_PMC_CLAIM_H
#define HW_MISC_HOST_PMC_CLAIM_H

#define TYPE_HOST_PMC_CLAIM "host-pmc-claim"

#endif
