# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU in which every vCPU runs in a loop for good: see spin.S."""

import socket
import subprocess

import programs
from guestlib import die_with_parent
from monitor import Monitor


def start(binary, cpu, vcpus, *more):
    """(process, monitor); whoever starts it kills it."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [binary, '-accel', 'tcg', '-machine', 'q35', '-cpu', cpu,
         '-smp', str(vcpus), '-m', '128', '-nodefaults', '-display', 'none',
         '-bios', programs.firmware('spin'),
         '-chardev', f'socket,id=qmp,fd={theirs.fileno()}',
         '-mon', 'chardev=qmp,mode=control', *more],
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()], preexec_fn=die_with_parent)
    theirs.close()
    return process, Monitor(ours)
