# SPDX-License-Identifier: GPL-2.0-or-later
"""The word of target/i386/pebs-report.h, made in a way of its own.

Counters are numbered as bits of IA32_PERF_GLOBAL_CTRL: fixed ones from 32 on.
"""

GP, FIXED, FIXED_BIT = 8, 3, 32
COUNTERS = [*range(GP), *range(FIXED_BIT, FIXED_BIT + FIXED)]
SUSPENDED = 1 << 63


def place(counter):
    return COUNTERS.index(counter)


def report(counters, suspended=False):
    """counters: {active PEBS counter: its physical one, or None}"""
    word = SUSPENDED if suspended else 0
    for counter, physical in counters.items():
        value = 1 if physical is None else 2 + place(physical)
        word += value * 32 ** place(counter)
    return word
