# SPDX-License-Identifier: GPL-2.0-or-later
"""What query-pebs costs the main loop of a QEMU whose vCPUs all run."""

import time

import spinning

SETTLE = 3      # seconds


def cpu_milliseconds(pid):
    """Of the main thread, which answers."""
    with open(f'/proc/{pid}/task/{pid}/schedstat', encoding='utf-8') as file:
        return int(file.read().split()[0]) / 1e6


def costs(binary, cpu, vcpus, times, say):
    """Milliseconds of CPU time for each query, less an empty one's."""
    say(f'query-pebs: starting {vcpus} vCPUs')
    process, monitor = spinning.start(binary, cpu, vcpus)
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
