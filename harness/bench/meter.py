# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU process costs its host.

Instructions in user mode, counted by the host's PMU, are the better measure:
other work on the machine doesn't change them. Where the host gives none (most
virtual machines) it is the CPU time of all threads.
"""

import ctypes
import os
import struct

PERF_EVENT_OPEN = 298           # x86-64
ATTR_SIZE = 112
PERF_TYPE_HARDWARE = 0
COUNT_INSTRUCTIONS = 1
# inherit (threads started later), exclude_kernel, exclude_hv
ATTR_FLAGS = 1 << 1 | 1 << 5 | 1 << 6

INSTRUCTIONS = 'host instructions'
CPU_TIME = 'host CPU time'


def open_counter(pid, kind=PERF_TYPE_HARDWARE, config=COUNT_INSTRUCTIONS):
    """A descriptor that counts this process from now on; None without one."""
    attr = struct.pack('<IIQQQQQ', kind, ATTR_SIZE, config, 0, 0, 0, ATTR_FLAGS)
    buffer = ctypes.create_string_buffer(attr.ljust(ATTR_SIZE, b'\0'))
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.syscall(PERF_EVENT_OPEN, buffer, pid, -1, -1, 0)
    return number if number >= 0 else None


def counts_instructions():
    """Whether this host counts; a counter that stays 0 is none."""
    counter = open_counter(0)
    if counter is None:
        return False
    sum(range(1000))
    value = struct.unpack('<Q', os.read(counter, 8))[0]
    os.close(counter)
    return value > 0


def measure():
    return INSTRUCTIONS if counts_instructions() else CPU_TIME


def cpu_nanoseconds(pid):
    """CPU time of all threads that there are."""
    total = 0
    for thread in os.listdir(f'/proc/{pid}/task'):
        try:
            with open(f'/proc/{pid}/task/{thread}/schedstat',
                      encoding='ascii') as file:
                total += int(file.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


class Meter:
    """The cost of one process so far; open it as early as there is one."""

    def __init__(self, pid, kind):
        self.pid = pid
        self.counter = open_counter(pid) if kind == INSTRUCTIONS else None

    def read(self):
        if self.counter is not None:
            return struct.unpack('<Q', os.read(self.counter, 8))[0]
        return cpu_nanoseconds(self.pid)

    def close(self):
        if self.counter is not None:
            os.close(self.counter)
            self.counter = None
