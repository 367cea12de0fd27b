# SPDX-License-Identifier: GPL-2.0-or-later
"""A program on the bare machine, of which QEMU's monitor is asked while it runs."""

import running
import observed


class Program(running.Program):
    """It stops at some lines until a key is pressed, since -append says until-key."""

    def __init__(self, binary, cpu, append='', more=()):
        super().__init__(binary, cpu, *more, append=f'until-key {append}')

    def go_on(self):
        self.monitor.execute('send-key', keys=[{'type': 'qcode', 'data': 'q'}])

    def path(self, vcpu):
        return observed.path(self.monitor.execute('query-pebs')[vcpu])[0]

    def records(self, vcpu):
        """How many it has made, and how many were dropped."""
        counts = observed.records(self.monitor.execute)[vcpu]
        return counts['fast'] + counts['slow'], counts['dropped']
