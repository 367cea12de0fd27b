# SPDX-License-Identifier: GPL-2.0-or-later
"""What query-pebs costs the main loop of a QEMU whose vCPUs all run."""

import time

import spinning

SETTLE = 3      # seconds
REPEATS = 5     # the least counts: what else the machine does only adds


def cpu_milliseconds(pid):
    """Of the main thread, which answers."""
    with open(f'/proc/{pid}/task/{pid}/schedstat', encoding='utf-8') as file:
        return int(file.read().split()[0]) / 1e6


def least_cost(pid, monitor, command):
    def cost():
        before = cpu_milliseconds(pid)
        monitor.execute(command)
        return cpu_milliseconds(pid) - before

    return min(cost() for _ in range(REPEATS))


def costs(binary, cpu, vcpus, times, say):
    """Milliseconds of CPU time for a query, less an empty one's."""
    say(f'query-pebs: starting {vcpus} vCPUs')
    process, monitor = spinning.start(binary, cpu, vcpus)
    try:
        monitor.wait_for('query-status', lambda status: status['running'])
        time.sleep(SETTLE)
        assert len(monitor.execute('query-pebs')) == vcpus
        return [least_cost(process.pid, monitor, 'query-pebs')
                - least_cost(process.pid, monitor, 'query-name')
                for _ in range(times)]
    finally:
        process.kill()
        process.wait()
