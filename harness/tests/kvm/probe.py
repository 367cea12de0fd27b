#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask /dev/kvm about its PMU, and print the answers: the kernel's, or the model's preloaded.

All that the PMU's rules depend on, then a vCPU's MSRs: which are there, and which values they
take, before and after the vCPU has got its CPUID.
"""

import ctypes
import fcntl
import json
import os
import struct

GET_SUPPORTED_CPUID, SET_CPUID2 = 0xc008ae05, 0x4008ae90
CREATE_VM, CHECK_EXTENSION, CREATE_VCPU = 0xae01, 0xae03, 0xae41
GET_MSR_INDEX_LIST, GET_MSRS, SET_MSRS = 0xc004ae02, 0xc008ae88, 0x4008ae89
PMU_CAPABILITY = 212

PMU_MSRS = (0x345, 0x309, 0x30b, 0x30c, 0x38d, 0x38e, 0x38f, 0x3f1, 0x3f2, 0x3f6, 0x600,
            0xc1, 0xc8, 0x186, 0x18d, 0x1a0)
VALUES = {
    0x345: (0, 0x2000, 1 << 40),
    0x3f1: (0, 1, 0x80, 0x100, 1 << 32, 1 << 63),
    0x3f2: (0, 1, 0x100, 0x3000002),
    0x3f6: (0, 3),
    0x600: (0, 0x1000, 0xfffffe0000001000, 0x00ffffffffff0000, 0x0100000000000000),
    0x38f: (0, 1, 0xff, 1 << 32, 1 << 40),
    0x38e: (0, 1, 1 << 62, 1 << 40),
    0x38d: (0, 0xb, 0xb0, 1 << 32, 1 << 63),
    0x186: (0, 0x5301d0, 1 << 34, 1 << 21),
    0xc1: (0, 0x7fffffff, 1 << 47),
    0x309: (0, 1),
    0x1a0: (1, 0x881, 0x1801),
}


def call(fd, request, data):
    """The ioctl's result and the bytes that it leaves; an error is a negative number."""
    buffer = ctypes.create_string_buffer(data, len(data))
    try:
        result = fcntl.ioctl(fd, request, buffer)   # mutable: written in place
    except OSError as error:
        result = -error.errno
    return result, buffer.raw


def supported_cpuid(kvm):
    size = 200
    _, data = call(kvm, GET_SUPPORTED_CPUID, struct.pack('II', size, 0) + bytes(40 * size))
    return [struct.unpack_from('7I12x', data, 8 + 40 * i)
            for i in range(struct.unpack_from('I', data)[0])]


def index_list(kvm):
    count = 1000
    _, data = call(kvm, GET_MSR_INDEX_LIST, struct.pack('I', count) + bytes(4 * count))
    return struct.unpack_from(f'{struct.unpack_from("I", data)[0]}I', data, 4)


def msr(fd, request, index, value=0):
    result, data = call(fd, request, struct.pack('IIIIQ', 1, 0, index, 0, value))
    return result, struct.unpack_from('IIIIQ', data)[4]


def leaf(entries, number, index=0):
    return next((e[3:] for e in entries if e[0] == number and e[1] == index), None)


def writes(vcpu, offered):
    """Whether each value is taken, and what is read then"""
    answers = {}
    for index, values in VALUES.items():
        more = (offered, offered ^ 1 << 14, offered ^ 1 << 8) if index == 0x345 else ()
        for value in values + more:
            taken = msr(vcpu, SET_MSRS, index, value)[0]
            answers[f'{index:#x}={value:#x}'] = taken, msr(vcpu, GET_MSRS, index)
        if index == 0x345:
            msr(vcpu, SET_MSRS, index, offered)
    return answers


def main():
    kvm = os.open('/dev/kvm', os.O_RDWR | os.O_CLOEXEC)
    entries = supported_cpuid(kvm)
    found, offered = msr(kvm, GET_MSRS, 0x345)
    listed = index_list(kvm)
    answers = {
        'vendor': leaf(entries, 0)[1:], 'version': leaf(entries, 1)[0],
        'features': [leaf(entries, 1)[3] & 1 << 21, leaf(entries, 1)[2] & (1 << 2 | 1 << 15)],
        'leaf 0xA': leaf(entries, 0xa), 'address bits': leaf(entries, 0x80000008)[0] >> 8 & 0xff,
        'KVM_CAP_PMU_CAPABILITY': fcntl.ioctl(kvm, CHECK_EXTENSION, PMU_CAPABILITY),
        'feature MSR 0x345': [found, offered],
        'listed': [hex(i) for i in PMU_MSRS if i in listed],
    }
    vcpu = fcntl.ioctl(fcntl.ioctl(kvm, CREATE_VM, 0), CREATE_VCPU, 0)
    answers['at first'] = {hex(i): msr(vcpu, GET_MSRS, i) for i in PMU_MSRS}
    answers['without CPUID'] = writes(vcpu, offered)
    data = b''.join(struct.pack('7I12x', *e) for e in entries)
    answers['KVM_SET_CPUID2'] = call(vcpu, SET_CPUID2, struct.pack('II', len(entries), 0) + data)[0]
    answers['with CPUID'] = writes(vcpu, offered)
    print(json.dumps(answers, indent=1))


if __name__ == '__main__':
    main()
