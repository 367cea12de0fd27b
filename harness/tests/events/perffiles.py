# SPDX-License-Identifier: GPL-2.0-or-later
"""What Linux says of Intel's events: perf's files, and the kernel's constraints.

Both come from Debian's linux-source package, of which only these few files are unpacked.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

HERE = os.path.dirname(os.path.realpath(__file__))
HARNESS = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HARNESS, os.path.join(HARNESS, 'guest')]

import images                                               # noqa: E402

SERIES = images.series_of('6.12')
PACKAGE = 'linux-source-6.12'
EVENTS = 'tools/perf/pmu-events/arch/x86'
KERNEL = 'arch/x86/events/intel'
GP = 0xff


# ---- getting the files ----

def unpack(deb, folder):
    """The package holds a tarball of the kernel's source."""
    deb_tar = subprocess.Popen(['dpkg-deb', '--fsys-tarfile', deb], stdout=subprocess.PIPE)
    inner = subprocess.Popen(['tar', '-xO', '--wildcards', '*/linux-source-*.tar.xz'],
                             stdin=deb_tar.stdout, stdout=subprocess.PIPE)
    status = subprocess.run(['tar', '-xJ', '-C', folder, '--strip-components=1', '--wildcards',
                             f'*/{EVENTS}/*', f'*/{KERNEL}/core.c', f'*/{KERNEL}/ds.c'],
                            stdin=inner.stdout, check=False).returncode
    if status or inner.wait() or deb_tar.wait():
        raise images.ImageError(f'{os.path.basename(deb)} holds no {EVENTS} and {KERNEL}')


def source():
    """A folder with the files; the package is fetched, and checked, at each call."""
    place = os.path.join(images.BUILD, 'perf-events')
    deb = images.Archive(SERIES, os.path.join(place, 'debs')).fetch([PACKAGE])[PACKAGE]
    folder = os.path.join(place, os.path.basename(deb).removesuffix('.deb'))
    if not os.path.exists(folder):
        scratch = tempfile.mkdtemp(dir=place)
        try:
            unpack(deb, scratch)
            os.rename(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


# ---- perf's files ----

@dataclass(frozen=True)
class Event:
    name: str
    code: int       # umask, event
    plain: bool     # without CMASK, INV, EDGE or AnyThread, which make another event of it


def number(text):
    return int(text.split(',')[0], 0)


def read_event(entry):
    """None if it is no event of a GP counter."""
    event = number(entry.get('EventCode', '0'))
    if event == 0 or entry.get('Counter', '').startswith('Fixed') or \
            entry.get('Unit') not in (None, 'cpu_core', 'cpu_atom'):
        return None
    name = entry['EventName'].lower()
    code = number(entry.get('UMask', '0')) << 8 | event
    plain = not any(number(entry.get(key, '0'))
                    for key in ('CounterMask', 'Invert', 'EdgeDetect', 'AnyThread'))
    return Event(name, code, plain)


class PerfFiles:
    def __init__(self, folder):
        self.folder = os.path.join(folder, EVENTS)
        with open(os.path.join(self.folder, 'mapfile.csv'), encoding='utf-8') as file:
            self.rows = [(re.compile(row[0]), row[2]) for row in csv.reader(file)
                         if row[0].startswith('GenuineIntel')]

    def folder_of(self, family, model, stepping):
        """As perf does: the whole of the CPUID string, its stepping if the row has one."""
        for row, folder in self.rows:
            for cpuid in (f'GenuineIntel-{family}-{model:X}-{stepping:X}',
                          f'GenuineIntel-{family}-{model:X}'):
                if row.fullmatch(cpuid):
                    return folder
        return None

    def events(self, name):
        found = []
        for path in images.find_files(os.path.join(self.folder, name), r'.*\.json'):
            with open(path, encoding='utf-8') as file:
                found += [read_event(entry) for entry in json.load(file)
                          if 'EventName' in entry]
        return [event for event in found if event]


# ---- the kernel's constraints ----

class Constraints:
    """Which counters can count an event: as IA32_PERF_GLOBAL_CTRL has them."""

    def __init__(self, folder):
        self.text = ''
        for name in ('core.c', 'ds.c'):
            with open(os.path.join(folder, KERNEL, name), encoding='utf-8') as file:
                self.text += file.read()

    def table(self, name):
        found = re.search(rf'\b{name}\[\][^=]*=\s*\{{(.*?)EVENT_CONSTRAINT_END', self.text, re.S)
        return [(macro, [int(word.removesuffix('ULL'), 0) for word in words.split(',')])
                for macro, words in re.findall(r'(?m)^\s+(INTEL_\w+|FIXED_\w+)\(([^)A-Z]*(?:ULL)?)\)',
                                               found[1])]

    def scheduled(self, name, code):
        for macro, numbers in self.table(name):
            if macro == 'FIXED_EVENT_CONSTRAINT' and numbers[0] == code:
                return GP | 1 << 32 + numbers[1]
            if macro == 'INTEL_UEVENT_CONSTRAINT' and numbers[0] == code or \
                    macro in ('INTEL_EVENT_CONSTRAINT', 'INTEL_EXCLEVT_CONSTRAINT') and \
                    numbers[0] == code & 0xff or \
                    macro == 'INTEL_EVENT_CONSTRAINT_RANGE' and \
                    numbers[0] <= code & 0xff <= numbers[1]:
                return numbers[-1]
        return GP

    def sampled(self, name, code):
        """Of events that only PEBS can count."""
        for macro, numbers in self.table(name):
            if re.fullmatch(r'INTEL_(P[LS][DT]|FLAGS_UEVENT)_CONSTRAINT', macro) and \
                    numbers[0] == code and numbers[1] <= GP:
                return numbers[1]
        return ~0

    def able(self, tables, code, precise):
        return self.scheduled(tables[0], code) & (self.sampled(tables[1], code) if precise else ~0)
