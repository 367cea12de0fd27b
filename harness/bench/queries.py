# SPDX-License-Identifier: GPL-2.0-or-later
"""What query-pebs costs the main loop of a QEMU whose vCPUs all run."""

import socket
import subprocess
import time

import programs
from guestlib import die_with_parent
from monitor import Monitor

SETTLE = 3      # seconds


def cpu_milliseconds(pid):
    """Of the main thread, which answers."""
    with open(f'/proc/{pid}/task/{pid}/schedstat', encoding='utf-8') as file:
        return int(file.read().split()[0]) / 1e6


def start(binary, cpu, vcpus):
    """(process, monitor)"""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [binary, '-accel', 'tcg', '-machine', 'q35', '-cpu', cpu,
         '-smp', str(vcpus), '-m', '128', '-nodefaults', '-display', 'none',
         '-bios', programs.firmware('spin'),
         '-chardev', f'socket,id=qmp,fd={theirs.fileno()}',
         '-mon', 'chardev=qmp,mode=control'],
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()], preexec_fn=die_with_parent)
    theirs.close()
    return process, Monitor(ours)


def costs(binary, cpu, vcpus, times, say):
    """Milliseconds of CPU time for each query, less an empty one's."""
    say(f'query-pebs: starting {vcpus} vCPUs')
    process, monitor = start(binary, cpu, vcpus)
    try:
        monitor.wait_for('query-status', lambda status: status['running'])
        time.sleep(SETTLE)
        values = []
        for _ in range(times):
            before = cpu_milliseconds(process.pid)
            monitor.execute('query-name')
            between = cpu_milliseconds(process.pid)
            answer = monitor.execute('query-pebs')
            values.append(cpu_milliseconds(process.pid) - between -
                          (between - before))
        assert len(answer) == vcpus
        return values
    finally:
        process.kill()
        process.wait()
