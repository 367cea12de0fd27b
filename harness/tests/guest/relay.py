# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that says when it has done half of its work, and its samples.

See programs/relay.S.
"""

import os

import common
import predict
from guestlib import GuestError

HALF = b'half\n'


class Relay:
    def __init__(self, rounds):
        self.rounds = rounds
        self.program = common.program('relay', ROUNDS=rounds)
        self.name = os.path.basename(self.program)
        self.parts = self._parts(predict.listing(self.program))
        self.total = sum(len(part) * times for part, times in self.parts)

    def _parts(self, rows):
        """The path, without listing one so long."""
        start, first, second = (predict.from_label(rows, label) for label
                                in ('_start', 'first', 'second'))
        parts = [(start, 1)]
        for loop, rest in ((first[:4], first[4:]), (second[:5], second[5:])):
            parts += [(loop, self.rounds), (rest, 1)]
        return parts

    def samples(self, period):
        """Addresses of every so many user instructions."""
        return [predict.address_at(self.parts, number)
                for number in range(period, self.total + 1, period)]

    def begin(self, guest, command):
        """Starts it on CPU 0 under a command.

        The guest needs another CPU, to tell of it while this one works.
        """
        guest.begin(['taskset', '1', *command, self.name])

    def to_the_middle(self, guest, command):
        """Runs it until it has done half, and stops the machine."""
        self.begin(guest, command)
        guest.wait_output(HALF)
        guest.pause()
        if guest.answers:
            raise GuestError(f'{self.name} ended before it was stopped')
