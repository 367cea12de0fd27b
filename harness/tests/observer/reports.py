# SPDX-License-Identifier: GPL-2.0-or-later
"""The word of target/i386/pebs-report.h, made in a way of its own.

Counters are numbered as bits of IA32_PERF_GLOBAL_CTRL: fixed ones from 32 on.
"""

GP, FIXED, FIXED_BIT = 8, 3, 32
COUNTERS = [*range(GP), *range(FIXED_BIT, FIXED_BIT + FIXED)]
SUSPENDED = 1 << 63


def place(counter):
    return COUNTERS.index(counter)


# What may stand in place of a physical counter: none is left, one that no guest has, its own but
# the host uses PEBS, and other reasons not to sample
UNMAPPED, BEYOND, HOST_PEBS, OTHER = 'unmapped', 'beyond', 'host', 'other'
VALUES = {UNMAPPED: 1, BEYOND: 13, HOST_PEBS: 14, OTHER: 15}


def report(counters, suspended=False):
    """counters: {active PEBS counter: its physical one, or what stands in place of it}"""
    word = SUSPENDED if suspended else 0
    for counter, where in counters.items():
        value = VALUES[where] if where in VALUES else 2 + place(where)
        word += value * 32 ** place(counter)
    return word
