# SPDX-License-Identifier: GPL-2.0-or-later
"""How much vCPUs that run at once do, of what each of them does alone.

By the clock of the guest, which is the host's: what a vCPU waits for another is
in it, and so is what the host's neighbours do. They slow the host for seconds,
or let it run a third faster for some, so that here the median counts, over short
runs that alternate. What vCPUs wait for each other in QEMU, at its locks, its own
profiler tells without the neighbours.
"""

import os
import re
import statistics

from guestlib import GuestError

# for a shell on one vCPU: when the command began and ended
TIMED = "taskset -c {} sh -c 'a=$EPOCHREALTIME; {} && echo $a $EPOCHREALTIME'"
# a line of QEMU's profile: which lock, where it is taken, seconds waited; but not
# a condvar, at which a vCPU that has nothing to do waits
LOCK = re.compile(r'^(?:BQL |rec_)?mutex .*:\d+ +(\d+\.\d+) +\d+ ', re.M)


def give_each_a_host_cpu(guest):
    """Else two vCPUs share one for a while, and that is measured."""
    host = sorted(os.sched_getaffinity(0))
    for vcpu in guest.qmp('query-cpus-fast'):
        os.sched_setaffinity(vcpu['thread-id'],
                             {host[vcpu['cpu-index'] % len(host)]})


def seconds(guest, command, vcpus):
    """What the command takes on each of these, run on all at once; the sum.

    Each is timed by itself: of two, the later would always be one that a
    neighbour disturbed.
    """
    out = guest.shell(' & '.join(TIMED.format(vcpu, command)
                                 for vcpu in vcpus) + '; wait').check().text
    times = [[float(time) for time in line.split()]
             for line in out.splitlines()]
    if len(times) != len(vcpus):
        raise GuestError(f'not all of these ran: {command}')
    return sum(end - start for start, end in times)


def without_locks(guest, command, vcpus):
    """The share of their time that they don't wait for a lock of QEMU's.

    At the least: what QEMU's other threads wait is taken off as well.
    """
    guest.monitor.hmp('sync-profile reset')
    guest.monitor.hmp('sync-profile on')
    spent = seconds(guest, command, vcpus)
    guest.monitor.hmp('sync-profile off')
    profile = guest.qmp('human-monitor-command',
                        **{'command-line': 'info sync-profile 1000'})
    return 1 - sum(map(float, LOCK.findall(profile))) / spent


def scale(guests, command, vcpus, times):
    """For each guest: 1 where vCPUs at once are as fast as each alone."""
    alone, together = ([[] for _ in guests] for _ in range(2))
    for _ in range(times):
        for i, guest in enumerate(guests):
            alone[i].append(sum(seconds(guest, command, [vcpu])
                                for vcpu in range(vcpus)))
            together[i].append(seconds(guest, command, range(vcpus)))
    return [statistics.median(one) / statistics.median(all_)
            for one, all_ in zip(alone, together)]
