# SPDX-License-Identifier: GPL-2.0-or-later
"""Aligned, coloured output on a terminal; plain text anywhere else."""

import contextlib
import sys
import threading
import time

BAR_WIDTH = 22


class Terminal:
    def __init__(self, stream=sys.stdout):
        self.stream = stream
        self.live = stream.isatty()
        encoding = (stream.encoding or '').lower().replace('-', '')
        self.unicode = encoding == 'utf8'

    def colour(self, code, text):
        return f'\033[{code}m{text}\033[0m' if self.live else text

    def bold(self, text):
        return self.colour('1', text)

    def dim(self, text):
        return self.colour('2', text)

    def good(self, text):
        return self.colour('32', text)

    def bad(self, text):
        return self.colour('31;1', text)

    def mark(self, good):
        if good:
            return self.good('✓' if self.unicode else 'ok')
        return self.bad('✗' if self.unicode else 'NO')

    def line(self, text=''):
        print(text, file=self.stream, flush=True)

    def indented(self, text):
        for line in text.splitlines():
            self.line(f'    {line}')

    def title(self, text):
        self.line()
        self.line(self.bold(text))

    def command(self, text, prompt='$'):
        self.line()
        self.line(f'  {self.bold(f"{prompt} {text}")}')

    def bar(self, value, most):
        """A bar for a value, of fixed width."""
        eighths = round(value * BAR_WIDTH * 8 / most) if most else 0
        if value and not eighths:
            eighths = 1
        whole, part = divmod(eighths, 8)
        if self.unicode:
            text = '█' * whole + (' ▏▎▍▌▋▊▉'[part] if part else '')
        else:
            text = '#' * (whole + (part > 3))
        return text.ljust(BAR_WIDTH)

    @contextlib.contextmanager
    def waiting(self, what):
        """Shows that something goes on, and for how long."""
        if not self.live:
            self.line(f'  {what} …' if self.unicode else f'  {what} ...')
            yield
            return
        done = threading.Event()
        thread = threading.Thread(target=self._spin, args=(what, done))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.stream.write('\r\033[K')
            self.stream.flush()

    def _spin(self, what, done):
        start = time.monotonic()
        signs = '⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏' if self.unicode else '|/-\\'
        turn = 0
        while not done.wait(0.1):
            seconds = time.monotonic() - start
            self.stream.write(f'\r\033[K  {signs[turn % len(signs)]} {what} '
                              + self.dim(f'{seconds:.0f} s'))
            self.stream.flush()
            turn += 1
