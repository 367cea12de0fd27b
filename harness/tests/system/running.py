# SPDX-License-Identifier: GPL-2.0-or-later
"""A program of tests/tcg/x86_64/system that runs beside its test, with a monitor."""

import re
import socket
import subprocess
import sys
from pathlib import Path

HARNESS = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(HARNESS), str(HARNESS / 'guest')]

import bare                                                 # noqa: E402
from guestlib import die_with_parent                        # noqa: E402
from monitor import Monitor                                 # noqa: E402


class Program:
    """It runs, and says what it says."""

    def __init__(self, binary, cpu, *more, append='until-key', stderr=subprocess.DEVNULL):
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            bare.command(binary, cpu, append,
                         '-chardev', f'socket,id=qmp,fd={theirs.fileno()}',
                         '-mon', 'chardev=qmp,mode=control', *more),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
            text=True, pass_fds=[theirs.fileno()], preexec_fn=die_with_parent)
        theirs.close()
        self.binary = binary
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
