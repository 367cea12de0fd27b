#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask the preloaded model what QEMU has asked of the machine's own /dev/kvm, and compare.

The file is record()'s of kvm-model.c. Compared are the answers about the PMU: its CPUID, which of
its MSRs are listed, what is read from them, and whether what is written is taken.
"""

import errno
import fcntl
import json
import os
import struct
import sys

from probe import (CREATE_VCPU, CREATE_VM, GET_MSR_INDEX_LIST, GET_MSRS, GET_SUPPORTED_CPUID,
                   PMU_MSRS, SET_MSRS, call, index_list, leaf, supported_cpuid)

MISC_ENABLE = 0x1a0
# That is no kernel of Linux's: it starts with another IA32_MISC_ENABLE.
LEFT_OUT = {MISC_ENABLE} if os.path.exists('/sys/module/kvm_pvm') else set()


def cpuid(entries):
    features = leaf(entries, 1)
    return leaf(entries, 0xa), features[3] & 1 << 21, features[2] & (1 << 2 | 1 << 15)


def recorded_cpuid(data):
    count = struct.unpack_from('I', data)[0]
    return [struct.unpack_from('7I12x', data, 8 + 40 * i) for i in range(count)]


def recorded_list(data):
    return struct.unpack_from(f'{struct.unpack_from("I", data)[0]}I', data, 4)


def pmu_entries(data, result):
    """The PMU's of those that were looked at: (index, value), and how many of them were done.

    The kernel stops at the first that it refuses, which is that with the result's number. Others
    are left out: of those the model knows but a few.
    """
    entries = [struct.unpack_from('I4xQ', data, 8 + 16 * i)
               for i in range(struct.unpack_from('I', data)[0])][:result + 1]
    numbers = [i for i, entry in enumerate(entries) if entry[0] in PMU_MSRS]
    return [entries[i] for i in numbers], sum(i < result for i in numbers)


def values(entries, done):
    return {hex(i): hex(value) for i, value in entries[:done] if i not in LEFT_OUT}


def msrs(fd, request, result, before, after):
    """(what was answered, what the model answers)"""
    asked, done = pmu_entries(before, result)
    if not asked:
        return None, None
    data = struct.pack('II', len(asked), 0) + b''.join(struct.pack('I4xQ', *e) for e in asked)
    ours, data = call(fd, request, data)
    read = request == GET_MSRS
    return ((done, read and values(pmu_entries(after, result)[0], done)),
            (ours, read and values(pmu_entries(data, max(ours, 0))[0], ours)))


def answers(fd, request, result, before, after):
    """The same, of any request"""
    if request in (GET_MSRS, SET_MSRS):
        return msrs(fd, request, result, before, after)
    # The model's lists may need more room.
    if request == GET_SUPPORTED_CPUID:
        return cpuid(recorded_cpuid(after)), cpuid(supported_cpuid(fd))
    if request == GET_MSR_INDEX_LIST:
        return [sorted({*indices} & {*PMU_MSRS}) for indices in
                (recorded_list(after), index_list(fd))]
    return result, call(fd, request, before)[0]


def main():
    kvm = os.open('/dev/kvm', os.O_RDWR | os.O_CLOEXEC)
    fds, compared, wrong = {}, [], []
    with open(sys.argv[1], encoding='utf-8') as record:
        lines = [line.split() for line in record]
    for number, request, result, *data in lines:
        fd, request, result = fds.get(number, kvm), int(request, 16), int(result)
        if request in (CREATE_VM, CREATE_VCPU):
            fds[str(result)] = fcntl.ioctl(fd, request, 0)
        elif result != -errno.E2BIG:
            theirs, ours = answers(fd, request, result, *map(bytes.fromhex, data))
            if theirs is not None:
                compared.append(hex(request))
            if theirs != ours:
                wrong.append((hex(request), theirs, ours))
    print(json.dumps({'compared': compared, 'wrong': wrong}))


main()
