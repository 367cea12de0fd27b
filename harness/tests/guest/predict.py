# SPDX-License-Identifier: GPL-2.0-or-later
"""What the assembly programs do, in numbers.

Counters count the instructions of a path, the first being number 1; with
period P, sample k is instruction number k * P of those that the event counts.
"""

import re
import subprocess
from dataclasses import dataclass

# A table entry per instruction of walk.S's round, in the order of execution.
# I: any  B: branch  C: conditional  T: taken  P: conditional and taken
# F: call  R: return  X: indirect  L: load  S: store
WALK_ROUND = ('I', 'IL', 'I', 'IBC', 'IS', 'IBTFS', 'I', 'IBTRL', 'IBT',
              'ILS', 'I', 'IBCTP', 'I', 'IBTX', 'I', 'I', 'IBCTP')
WALK_PROLOGUE = ('I', 'I', 'I')
WALK_EPILOGUE = ('I', 'I', 'IBE')           # E: far


@dataclass(frozen=True)
class Path:
    """A path through a loop: addresses and kinds, instruction by instruction.

    `last` replaces the kinds of the last round's last instruction.
    """
    prologue: list
    loop: list          # each entry: (address, kinds)
    rounds: int
    epilogue: list
    last: str = ''

    def events(self, kind):
        """The addresses of all instructions of that kind, in order."""
        def of(part):
            return [address for address, kinds in part if kind in kinds]
        if not self.last:
            return of(self.prologue) + of(self.loop) * self.rounds \
                + of(self.epilogue)
        final = self.loop[:-1] + [(self.loop[-1][0], self.last)]
        return of(self.prologue) + of(self.loop) * (self.rounds - 1) \
            + of(final) + of(self.epilogue)

    def count(self, kind):
        def of(part):
            return sum(kind in kinds for _, kinds in part)
        total = of(self.prologue) + of(self.loop) * self.rounds \
            + of(self.epilogue)
        if self.last:
            total += (kind in self.last) - (kind in self.loop[-1][1])
        return total

    def samples(self, kind, period):
        """The address of every sample."""
        return self.events(kind)[period - 1::period]


def listing(program):
    """All instructions of a program: [(address, label or '', text)]."""
    text = subprocess.run(['objdump', '-d', '--no-show-raw-insn', program],
                          stdout=subprocess.PIPE, text=True, check=True).stdout
    rows, label = [], ''
    for line in text.splitlines():
        head = re.match(r'[0-9a-f]+ <(.*)>:$', line)
        if head:
            label = head[1]
            continue
        row = re.match(r'\s+([0-9a-f]+):\s+(.*?)\s*$', line)
        if row:
            rows.append((int(row[1], 16), label, row[2]))
            label = ''
    return rows


def from_label(rows, label):
    """Addresses from a label up to the next one, without what never runs."""
    start = next(i for i, row in enumerate(rows) if row[1] == label)
    end = next((i for i in range(start + 1, len(rows)) if rows[i][1]),
               len(rows))
    return [address for address, _, text in rows[start:end]
            if not text.startswith('ud2')]


def label_address(program, label):
    symbols = subprocess.run(['nm', program], stdout=subprocess.PIPE,
                             text=True, check=True).stdout
    return int(re.search(rf'(?m)^([0-9a-f]+) \w {label}$', symbols)[1], 16)


def walk_path(program, rounds):
    rows = listing(program)
    prologue = from_label(rows, '_start')
    body = from_label(rows, 'round')
    leaf = from_label(rows, 'leaf')
    straight = len(WALK_ROUND) - len(leaf)
    call = WALK_ROUND.index('IBTFS') + 1
    loop = body[:call] + leaf + body[call:straight]
    return Path(list(zip(prologue, WALK_PROLOGUE)),
                list(zip(loop, WALK_ROUND)), rounds,
                list(zip(body[straight:], WALK_EPILOGUE)), last='IBC')


def address_at(parts, number):
    """The address of an instruction of a path given as [(addresses, times)].

    For paths too long to be listed; the first instruction is number 1.
    """
    for addresses, times in parts:
        if number <= len(addresses) * times:
            return addresses[(number - 1) % len(addresses)]
        number -= len(addresses) * times
    raise ValueError('the path is shorter than that')


# Nine on hardware. In TCG, of stock QEMU too, a REP that is single-stepped
# traps once more: after its last round, still before it is left.
TRAPFLAG_TRAPS = 10


def trapflag_count(rounds):
    """Eight before the rounds, 16 a round, four for each signal, four after."""
    return 8 + rounds * (16 + TRAPFLAG_TRAPS * 4) + 4


