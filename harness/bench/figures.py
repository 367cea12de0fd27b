# SPDX-License-Identifier: GPL-2.0-or-later
"""Medians with their intervals, rows, and how they are told."""

import json
import math
import statistics
from dataclasses import asdict, dataclass, field

CONFIDENCE = 0.95
WIDE = 0.05     # of the median


def interval(values):
    """(low, high, what it is) of the median.

    By order statistics, which assume nothing of the noise's distribution; of
    fewer than six values all that can be said is where they lie.
    """
    values = sorted(values)
    n = len(values)
    best = None
    for k in range(n // 2):
        # both ends lie outside the median with this probability
        outside = 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2 ** n
        if 1 - outside >= CONFIDENCE:
            best = k
    if best is None:
        return values[0], values[-1], 'range'
    return values[best], values[n - 1 - best], f'{CONFIDENCE:.0%}'


def is_wide(values):
    """Whether the median's interval is wider than it is worth having."""
    low, high, _ = interval(values)
    return high - low > WIDE * statistics.median(values)


@dataclass
class Row:
    name: str
    against: str
    measure: str
    unit: str                   # '×', 'of stock', 'µs'
    values: list
    target: float = None        # at most, unless at_least
    at_least: bool = False
    note: str = ''
    median: float = field(init=False)
    low: float = field(init=False)
    high: float = field(init=False)
    spread: str = field(init=False)

    def __post_init__(self):
        self.median = statistics.median(self.values)
        self.low, self.high, self.spread = interval(self.values)

    @property
    def verdict(self):
        if self.target is None:
            return ''
        met = (self.median >= self.target if self.at_least
               else self.median <= self.target)
        crossed = self.low <= self.target <= self.high and self.low < self.high
        return ('met' if met else 'not met') + (', unsure' if crossed else '')

    @property
    def wanted(self):
        if self.target is None:
            return '-'
        return f'{"≥" if self.at_least else "≤"} {self.target:g}'


def as_table(rows):
    head = ('row', 'against', 'median', 'interval', 'pairs', 'target', '',
            'measure')
    lines = [head] + [
        (row.name, row.against, f'{row.median:.3f} {row.unit}',
         f'{row.low:.3f} to {row.high:.3f} ({row.spread})',
         str(len(row.values)), row.wanted, row.verdict, row.measure)
        for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, tuple('-' * width for width in widths))
    text = ''.join('  '.join(cell.ljust(width) for cell, width
                             in zip(line, widths)).rstrip() + '\n'
                   for line in lines)
    notes = ''.join(f'{row.name}: {row.note}\n' for row in rows if row.note)
    return text + ('\n' + notes if notes else '') + (
        '\nA ratio is the median over pairs run one after the other; 95% is '
        'the interval of\nthat median by order statistics, range the lowest '
        'and the highest. «unsure»: the\ninterval holds the target.\n')


def as_json(rows, facts):
    return json.dumps({**facts, 'rows': [
        {**asdict(row), 'verdict': row.verdict} for row in rows]},
        indent=2, ensure_ascii=False) + '\n'
