# SPDX-License-Identifier: GPL-2.0-or-later
"""Medians with their intervals, rows, and how they are shown."""

import json
import math
import statistics
from dataclasses import asdict, dataclass, field

CONFIDENCE = 0.95


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


# ---- the picture ----

LEFT, WIDTH, LINE, TOP = 330, 430, 26, 46
INK, GRID, GOOD, BAD = '#333', '#ddd', '#2a7f3f', '#b3261e'


def escape(text):
    return (text.replace('&', '&amp;').replace('<', '&lt;')
            .replace('>', '&gt;'))


def scale(rows):
    """The function that places a ratio, and the grid's ratios."""
    low = min(1.0, *(row.low for row in rows))
    high = max(1.1, *(max(row.high, row.target or 0) for row in rows))
    low, high = low - 0.02 * (high - low), high + 0.04 * (high - low)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
                if (high - low) / step <= 9 or step == 10)
    grid = [step * i for i in range(math.ceil(low / step),
                                    math.floor(high / step) + 1)]
    return lambda value: LEFT + (value - low) / (high - low) * WIDTH, grid


def row_marks(row, y, place):
    colour = BAD if row.verdict.startswith('not') else GOOD
    middle = place(row.median)
    parts = [
        f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">'
        f'{escape(row.name)}</text>',
        f'<line x1="{place(row.low):.1f}" x2="{place(row.high):.1f}" y1="{y}" '
        f'y2="{y}" stroke="{colour}" stroke-width="3"/>',
        f'<circle cx="{middle:.1f}" cy="{y}" r="4.5" fill="{colour}"/>',
        f'<text x="{LEFT + WIDTH + 10}" y="{y + 4}">{row.median:.3f}</text>']
    if row.target is not None:
        x = place(row.target)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" '
                     f'y2="{y + 8}" stroke="{INK}" stroke-width="1.5"/>')
    return parts


def as_svg(rows, title):
    """Ratios with their intervals; the targets are the short strokes."""
    rows = [row for row in rows if row.unit == '×']
    place, grid = scale(rows)
    bottom = TOP + LINE * len(rows)
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {LEFT + WIDTH + 70} {bottom + 46}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="12" y="22" font-size="14">{escape(title)}</text>']
    for value in grid:
        x = place(value)
        heavy = abs(value - 1) < 1e-9
        parts += [
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 10}" y2="{bottom}" '
            f'stroke="{INK if heavy else GRID}"/>',
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" '
            f'fill="{INK}">{value:g}</text>']
    for i, row in enumerate(rows):
        parts += row_marks(row, TOP + LINE * i + LINE // 2 - 4, place)
    parts += [f'<text x="{LEFT}" y="{bottom + 36}" fill="{INK}">ratio; dot: '
              'median, bar: its interval, stroke: target</text>', '</svg>']
    return '\n'.join(parts) + '\n'
