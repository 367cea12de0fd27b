# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that lie alike in their host's memory.

Which stores of generated code a host takes at once depends on where the CPU's
state begins within a cache line: up to a fifth of a loop's time, in one QEMU as
in another. malloc() decides it, so QEMU is started with names of different lengths
until it comes out as wanted.
"""

import re
import time

ATTEMPTS = 40
PATIENCE = 10                   # seconds for QEMU to reset its CPUs
CACHE_LINE = 64
# Of the CPU object; its registers begin a line then.
WANTED = 16

# The log of this event tells where the object is.
EVENT = 'resettable_phase_enter_begin'
OBJECT = re.compile(rb'obj=0x([0-9a-f]+)\([^)]*-cpu\)')


def arguments(attempt):
    """For QEMU's command line"""
    return ['-name', 'guest' + 'x' * (24 * attempt), '--trace', EVENT]


def address(log, process):
    """Of the first CPU object, from QEMU's log; None if QEMU doesn't tell."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with open(log, 'rb') as file:
            found = OBJECT.search(file.read())
        if found:
            return int(found[1], 16)
        time.sleep(0.02)
    return None


def is_wanted(log, process):
    """Whether this QEMU lies as all are to. One that doesn't tell is taken."""
    found = address(log, process)
    return found is None or found % CACHE_LINE == WANTED
