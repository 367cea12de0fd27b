# SPDX-License-Identifier: GPL-2.0-or-later
"""TAP (Test Anything Protocol): read it from meson's test log, write it."""

import re
from dataclasses import dataclass, field


@dataclass
class Case:
    """One subtest. result: pass, fail or skip."""
    result: str
    name: str
    reason: str = ''
    details: list = field(default_factory=list)


LINE = re.compile(r'(not )?ok\b *(\d*) *(?:- )?(.*?) *(?:(?<!\\)# *(SKIP|TODO)\S* *(.*))?$', re.I)
PLAN = re.compile(r'1\.\.(\d+)(?: *# *(?:SKIP\S*)? *(.*))?$', re.I)


def parse(text, name):
    """Subtests of a TAP stream, and whether its plan was kept."""
    found, plan, wrong = [], None, ''
    for line in text.splitlines():
        if match := PLAN.match(line):
            plan = int(match.group(1))
            if plan == 0:
                found.append(Case('skip', name, match.group(2) or 'no reason given'))
        elif match := LINE.match(line):
            bad, number, title, directive, reason = match.groups()
            result = 'fail' if bad else 'pass'
            if directive:
                # A failure that is expected is no failure; neither is it a pass.
                result = 'skip' if directive.upper() == 'SKIP' or bad else 'pass'
            found.append(Case(result, title or f'test {number}', reason or ''))
        elif line.startswith('Bail out!'):
            wrong = line
        elif line.startswith('#') and found and found[-1].result == 'fail':
            found[-1].details.append(line)
    if not wrong and plan is None:
        wrong = 'it ended without a plan'
    elif not wrong and plan and plan != len(found):
        wrong = f'{plan} subtests were planned, {len(found)} ran'
    return found, wrong


def cases(record, name):
    """Subtests of one line of meson's testlog.json."""
    result, text = record['result'], record.get('stdout') or ''
    good = result in ('OK', 'EXPECTEDFAIL')
    if not re.search(r'(?m)^(?:1\.\.\d|(?:not )?ok\b|TAP version)', text):   # no TAP
        if result == 'SKIP' and record.get('returncode') == 0:   # what meson makes of silence
            return [Case('fail', name, details=['it said nothing'])]
        if result == 'SKIP':
            words = text.strip().splitlines()
            return [Case('skip', name, words[-1] if words else 'no reason given')]
        return [Case('pass' if good else 'fail', name,
                     details=[] if good else [outcome(record)])]
    found, wrong = parse(text, name)
    if result == 'TIMEOUT' or wrong and not good or \
            not good and result != 'SKIP' and not any(c.result == 'fail' for c in found):
        found.append(Case('fail', name, details=[outcome(record), wrong] if wrong
                          else [outcome(record)]))
    return found


def outcome(record):
    if record['result'] == 'TIMEOUT':
        return f'stopped after {record["duration"]:.0f} s (its time limit)'
    return f'{record["result"]}, exit status {record.get("returncode")}'


class Writer:
    """TAP on standard output."""

    def __init__(self):
        self.count = self.failed = 0

    def case(self, result, name, reason='', details=()):
        self.count += 1
        self.failed += result == 'fail'
        name = re.sub(r'\s*#\s*', ' ', name)
        skip = f' # SKIP {reason}' if result == 'skip' else ''
        print(f'{"not " if result == "fail" else ""}ok {self.count} {name}{skip}')
        for line in details:
            print(f'# {line.lstrip("# ")}')

    def end(self):
        print(f'1..{self.count}', flush=True)
        return 1 if self.failed else 0
