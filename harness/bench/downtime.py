# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a guest that migrates stands still for its vCPUs.

Nearly all of the downtime that query-migrate tells is the last pass over RAM,
tens of milliseconds longer in one migration than in the next. So QEMU traces its
steps, and those that have to do with vCPUs are taken: stopping them, saving and
loading their state, starting them. What is loaded is a file, or loading would
have a part of sending in it.
"""

import dataclasses
import datetime
import os
import re
import tempfile

import streams
from guestlib import Guest

# for the command line of a guest that is to be measured
ARGUMENTS = ('-trace', 'vmstate_downtime_*', '-msg', 'timestamp=on')

SECTION = re.compile(r'vmstate_downtime_(?:save|load) type=non-iterable '
                     r'idstr=(?:cpu|cpu_common) .* downtime=(\d+)$', re.M)
STEP = re.compile(r'^(\S+) vmstate_downtime_checkpoint (\S+)$', re.M)
MICROSECOND = datetime.timedelta(microseconds=1)


def sections(log):
    """Microseconds for the state of all vCPUs."""
    found = SECTION.findall(log)
    if not found:
        raise streams.StreamError('QEMU has traced no state of a vCPU')
    return sum(map(int, found))


def between(log, first, last):
    """Microseconds from one of QEMU's steps to another."""
    times = {step: datetime.datetime.fromisoformat(time)
             for time, step in STEP.findall(log)}
    try:
        return (times[last] - times[first]) / MICROSECOND
    except KeyError as error:
        raise streams.StreamError(f'QEMU has traced no {error}') from error


def log_of_loading(options, path):
    """Of a QEMU that the guest goes on in."""
    other = Guest(dataclasses.replace(options))
    other.launch(incoming=f'file:{path}')
    try:
        other.monitor.wait_for('query-status',
                               lambda status: status['running'])
        return other.qemu_log()
    finally:
        other.close()


def milliseconds(guest):
    """Sends the guest, which then goes on here."""
    with tempfile.TemporaryDirectory(prefix='bench-') as folder:
        path = os.path.join(folder, 'stream')
        start = len(guest.qemu_log())
        streams.migrate(guest, f'file:{path}')
        saved = guest.qemu_log()[start:]
        loaded = log_of_loading(guest.options, path)
    return (between(saved, 'src-downtime-start', 'src-vm-stopped')
            + sections(saved) + sections(loaded)
            + between(loaded, 'dst-precopy-bh-announced',
                      'dst-precopy-bh-vm-started')) / 1000
