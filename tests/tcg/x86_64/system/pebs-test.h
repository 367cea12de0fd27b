/*
 * Bare-metal tests of emulated PEBS: the layout of records and of the DS area
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PEBS_TEST_H
#define PEBS_TEST_H

#include "pmu-test.h"

#define OVF_BUF     (1ull << 62)
#define CFG_MEM     1
#define CFG_GPR     2
#define CFG_XMM     4
#define CFG_ALL     7

#define BASIC_SIZE  32
#define MEM_SIZE    32
#define GPR_SIZE    144
#define XMM_SIZE    256

/* A reset value that is never counted up to an overflow here */
#define FAR_AWAY    0x400000000000ull

#define DS_SIZE     512

enum { DS_BASE = 4, DS_INDEX, DS_MAXIMUM, DS_THRESHOLD, DS_RESET };

static unsigned record_size(uint64_t cfg)
{
    return BASIC_SIZE + (cfg & CFG_MEM ? MEM_SIZE : 0) +
           (cfg & CFG_GPR ? GPR_SIZE : 0) + (cfg & CFG_XMM ? XMM_SIZE : 0);
}

static bool equal_bytes(const void *a, const void *b, size_t n)
{
    const uint8_t *p = a, *q = b;

    while (n--) {
        if (*p++ != *q++) {
            return false;
        }
    }
    return true;
}

static void fill(void *to, size_t n)
{
    memset(to, 0xee, n);
}

static bool is_filled(const void *at, size_t n)
{
    const uint8_t *p = at;

    while (n--) {
        if (*p++ != 0xee) {
            return false;
        }
    }
    return true;
}

static unsigned fixed_slot(void)
{
    return config.format >= 5 ? 32 : 8;
}

static uint64_t *reset_slot(uint64_t *ds, unsigned bit)
{
    return &ds[DS_RESET + (bit < 32 ? bit : fixed_slot() + bit - 32)];
}

/* Lay out a DS area with an empty buffer. */
static void ds_init(uint64_t *ds, uint64_t base, uint64_t size)
{
    memset(ds, 0, DS_SIZE);
    ds[DS_BASE] = ds[DS_INDEX] = base;
    ds[DS_MAXIMUM] = base + size;
    ds[DS_THRESHOLD] = base + size + 1;
    for (unsigned i = DS_RESET; i < 44; i++) {
        ds[i] = FAR_AWAY;
    }
}

static uint64_t q(const uint8_t *at)
{
    return *(const uint64_t *)at;
}

/* ---- whoever runs this ---- */

/* With -append until-key: look at the machine now, then press a key. */
static inline void let_look(void)
{
    uint8_t code;

    if (!config.until_key) {
        return;
    }
    do {
        while (!(inb(0x64) & 1)) {
            asm volatile("pause");
        }
        code = inb(0x60);
    } while (code & 0x80);      /* a key is released, or the firmware's */
}

#endif
