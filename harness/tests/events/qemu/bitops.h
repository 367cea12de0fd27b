/*
 * What the table of events needs of QEMU's headers, for building it without
 * QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BITOPS_H
#define BITOPS_H

#define ARRAY_SIZE(x) (sizeof(x) / sizeof((x)[0]))
#define MAKE_64BIT_MASK(shift, length) ((~0ull >> (64 - (length))) << (shift))
#define QEMU_BUILD_BUG_ON(x) _Static_assert(!(x), #x)

static inline uint64_t extract64(uint64_t value, int start, int length)
{
    return (value >> start) & MAKE_64BIT_MASK(0, length);
}

static inline uint32_t extract32(uint32_t value, int start, int length)
{
    return extract64(value, start, length);
}

#endif /* BITOPS_H */
