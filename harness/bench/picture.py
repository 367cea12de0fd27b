# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture of the ratios: each with its spread, and its target.

Its colours follow the reader's, light or dark, where the viewer knows them.
"""

import math

LEFT, WIDTH, RIGHT = 352, 392, 126      # names, the plot, numbers
TOP, LINE, FOOT = 82, 28, 58
TICKS = 8                               # at most

# class: (light, dark)
COLOURS = {
    'paper': ('#ffffff', '#161b22'),
    'ink': ('#1f2328', '#e6edf3'),
    'faint': ('#656d76', '#8d96a0'),
    'grid': ('#e6e9ed', '#2b323b'),
    'stripe': ('#f6f8fa', '#1c2129'),
    'met': ('#1a7f37', '#3fb950'),
    'missed': ('#cf222e', '#f85149'),
    'free': ('#0969da', '#58a6ff'),
}
STROKES = ('grid', 'ink', 'met', 'missed', 'free')


def rules(which):
    colours = {name: pair[which] for name, pair in COLOURS.items()}
    return ''.join(f'.{name}{{fill:{colour}}}'
                   for name, colour in colours.items()) + \
        ''.join(f'.line-{name}{{stroke:{colours[name]}}}' for name in STROKES)


def style():
    return (f'<style>text{{font:13px system-ui,sans-serif}}{rules(0)}'
            f'@media(prefers-color-scheme:dark){{{rules(1)}}}</style>')


def escape(text):
    return (text.replace('&', '&amp;').replace('<', '&lt;')
            .replace('>', '&gt;'))


def text(x, y, kind, words, more=''):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{more}>' \
           f'{escape(words)}</text>'


def line(x1, y1, x2, y2, kind, width):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'class="line-{kind}" stroke-width="{width}" '
            'stroke-linecap="round"/>')


class Scale:
    """Ratios on a logarithmic axis: half is as far from 1 as twice."""

    def __init__(self, rows):
        ends = [1.0] + [value for row in rows for value
                        in (row.low, row.high, row.target) if value]
        self.low = math.log(min(ends)) - 0.03
        self.high = math.log(max(ends)) + 0.03

    def place(self, ratio):
        share = (math.log(ratio) - self.low) / (self.high - self.low)
        return LEFT + share * WIDTH

    def ticks(self):
        """Round ratios, the finest that leave room between them."""
        low, high = math.exp(self.low), math.exp(self.high)
        for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5):
            found = [step * i for i in range(math.ceil(low / step),
                                             math.floor(high / step) + 1) if i]
            if len(found) <= TICKS:
                break
        return found


def kind_of(row):
    """How it is drawn: without a target there is nothing to meet."""
    if row.target is None:
        return 'free'
    return 'missed' if row.verdict.startswith('not') else 'met'


def target_marks(row, y, place):
    """A stroke, and an arrow to the side where a ratio is to be."""
    x, side = place(row.target), 1 if row.at_least else -1
    return [line(x, y - 9, x, y + 9, 'ink', 1.6),
            f'<path d="M{x:.1f} {y - 9}l{5 * side} 3l{-5 * side} 3z" '
            'class="ink"/>']


def spread_marks(row, y, place):
    kind, x = kind_of(row), place(row.median)
    hollow = kind == 'missed'
    return [line(place(row.low), y, place(row.high), y, kind, 5)
            .replace('/>', ' stroke-opacity=".4"/>'),
            f'<circle cx="{x:.1f}" cy="{y}" r="5" class="line-{kind} '
            f'{"paper" if hollow else kind}" stroke-width="2.5"/>']


def name_marks(row, y):
    against = '' if row.against == 'stock' else f'/ {row.against}'
    return [f'<text x="{LEFT - 14}" y="{y + 4.5}" text-anchor="end" '
            f'class="ink">{escape(row.name)}<tspan class="faint" dx="5">'
            f'{escape(against)}</tspan></text>']


def number_marks(row, y):
    x = LEFT + WIDTH + 16
    return [text(x, y + 4.5, kind_of(row), f'{row.median:.3f}',
                 ' font-weight="600"'),
            text(x + 52, y + 4.5, 'faint',
                 '' if row.target is None else row.wanted)]


def stripe(number, y):
    if number % 2:
        return []
    return [f'<rect x="8" y="{y - LINE / 2}" rx="4" class="stripe" '
            f'width="{LEFT + WIDTH + RIGHT - 16}" height="{LINE}"/>']


def grid(scale, bottom):
    parts = []
    for ratio in scale.ticks():
        x, one = scale.place(ratio), abs(ratio - 1) < 1e-9
        parts += [line(x, TOP - 8, x, bottom + 4, 'ink' if one else 'grid', 1),
                  text(x, bottom + 20, 'ink' if one else 'faint',
                       f'{ratio:g}', ' text-anchor="middle"')]
    return parts


def draw(rows, title, words):
    """An SVG of the rows that are ratios."""
    rows = [row for row in rows if row.unit == '×']
    scale = Scale(rows)
    bottom, wide = TOP + LINE * len(rows), LEFT + WIDTH + RIGHT
    middles = [TOP + LINE * i + LINE // 2 for i in range(len(rows))]
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" '
             f'viewBox="0 0 {wide} {bottom + FOOT}" role="img">',
             style(), f'<title>{escape(title)}</title>',
             f'<rect width="{wide}" height="{bottom + FOOT}" rx="8" '
             'class="paper"/>',
             text(20, 32, 'ink', title, ' style="font-size:18px;'
                                        'font-weight:600"'),
             text(20, 54, 'faint', words)]
    for i, y in enumerate(middles):
        parts += stripe(i, y)
    parts += grid(scale, bottom)
    for row, y in zip(rows, middles):
        parts += name_marks(row, y) + number_marks(row, y)
        if row.target is not None:
            parts += target_marks(row, y, scale.place)
        parts += spread_marks(row, y, scale.place)
    parts += [text(20, bottom + 44, 'faint',
                   'dot: median, hollow where the target is missed · bar: '
                   'interval of the median · stroke: target, the arrow says '
                   'which side is good'), '</svg>']
    return '\n'.join(parts) + '\n'
