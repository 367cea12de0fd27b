/*
 * What the codec needs of QEMU's bswap.h, for building it without QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BSWAP_H
#define BSWAP_H

static inline uint64_t ldq_le_p(const void *ptr)
{
    const uint8_t *p = ptr;
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--) {
        v = v << 8 | p[i];
    }
    return v;
}

static inline void stq_le_p(void *ptr, uint64_t v)
{
    uint8_t *p = ptr;

    for (int i = 0; i < 8; i++, v >>= 8) {
        p[i] = v;
    }
}

#endif /* BSWAP_H */
