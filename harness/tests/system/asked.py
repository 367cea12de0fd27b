# SPDX-License-Identifier: GPL-2.0-or-later
"""A program on the bare machine, of which QEMU's monitor is asked while it runs."""

import re
import socket
import subprocess
import sys

import bare

sys.path[:0] = [str(bare.TOP / 'harness'), str(bare.TOP / 'harness/guest')]

from guestlib import die_with_parent                        # noqa: E402
from monitor import Monitor                                 # noqa: E402


class Program:
    """It stops at some lines until a key is pressed, since -append says until-key."""

    def __init__(self, binary, cpu, append='', more=()):
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            bare.command(binary, cpu, f'until-key {append}',
                         '-chardev', f'socket,id=qmp,fd={theirs.fileno()}',
                         '-mon', 'chardev=qmp,mode=control', *more),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, pass_fds=[theirs.fileno()], preexec_fn=die_with_parent)
        theirs.close()
        self.monitor = Monitor(ours)
        self.said = []

    def close(self):
        self.process.kill()
        self.process.wait()

    def listen(self, wanted):
        """Until it says this: the match; None if it ends first."""
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if match := re.match(wanted, line):
                return match
        return None

    def go_on(self):
        self.monitor.execute('send-key', keys=[{'type': 'qcode', 'data': 'q'}])

    def seen(self, vcpu):
        """What query-pebs has observed of a vCPU."""
        return self.monitor.execute('query-pebs')[vcpu]

    def path(self, vcpu):
        return self.seen(vcpu)['path']

    def records(self, vcpu):
        """How many it has made, and how many were dropped."""
        seen = self.seen(vcpu)
        return seen['fast-records'] + seen['slow-records'], seen['dropped-records']
