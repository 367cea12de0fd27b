# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs perf in a guest and reads what it says."""

import re

from guestlib import GuestError

DATA = '/tmp/perf.data'


def stat(guest, events, program, options=()):
    """Counts of one run, in the events' order; never of a part of the time."""
    result = guest.run(['perf', 'stat', '-x', ';', *options,
                        *(part for event in events for part in ('-e', event)),
                        '--', *program]).check()
    counts = []
    for line in result.stderr.decode().splitlines():
        fields = line.split(';')
        if len(fields) < 5:
            continue
        value, _, _, _, share = fields[:5]
        if not value.isdigit() or float(share) != 100:
            raise GuestError(f'perf stat did not count all the time: {line}')
        counts.append(int(value))
    if len(counts) != len(events):
        raise GuestError(f'perf stat: {result.stderr.decode()}')
    return counts


RECORD = ['perf', 'record', '-q', '-N', '-B', '-o', DATA]


def record(guest, options, program, alone=True):
    """Records into DATA. `alone`: without task switches, see alone.c."""
    start = ['alone', *RECORD] if alone else RECORD
    return guest.run([*start, *options, '--', *program]).check()


def script(guest, fields, event=None):
    """The samples' fields as perf prints them, a line each."""
    wanted = f'event,{fields}' if event else fields
    text = guest.run(['perf', 'script', '-i', DATA, '-F', wanted]).check().text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not event:
        return lines
    split = [re.fullmatch(r'(\S+):\s+(.*)', line) for line in lines]
    return [found[2] for found in split if found and found[1] == event]


def addresses(guest, event=None):
    return [int(line, 16) for line in script(guest, 'ip', event)]


def registers(line):
    """`ABI:2 AX:0x1 …` as {name: value}."""
    return {name: int(value, 16) for name, value
            in re.findall(r'(\w+):(0x[0-9a-f]+)', line)}


def lost(guest):
    """Records that the kernel says it had no room for."""
    text = guest.run(['perf', 'report', '-i', DATA, '--stats']).check().text
    return sum(int(number) for number
               in re.findall(r'LOST\w* events:\s+(\d+)', text))
