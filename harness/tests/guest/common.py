# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest tests share: programs, a booted guest, TAP."""

import argparse
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
HARNESS = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(HARNESS, 'guest'), HARNESS]

import images                                               # noqa: E402
import programs                                             # noqa: E402
import tap                                                  # noqa: E402
from guestlib import Guest, GuestError, Options             # noqa: E402

SOURCES = [os.path.join(HERE, 'programs'), os.path.join(HARNESS, 'demo'),
           os.path.join(HARNESS, 'guest')]
# the whole program is ours: no C library, nothing the compiler adds
BARE = ('-nostdlib', '-O1', '-fcf-protection=none', '-fno-stack-protector',
        '-fno-pie', '-no-pie')
HOSTED = ('stepper', 'hog', 'br_instr', 'alone', 'blockstep')
SHOWN = 8           # differences that a failure shows


class Checks(tap.Writer):
    """Test cases in TAP."""

    def true(self, name, good, *details):
        lines = '\n'.join(map(str, details)).splitlines()
        self.case('pass' if good else 'fail', name,
                  details=[] if good else lines)
        return bool(good)

    def equal(self, name, got, wanted):
        return self.true(name, got == wanted, f'got {got}, wanted {wanted}')

    def sequence(self, name, got, wanted):
        """Equal one by one; a failure shows the first that aren't."""
        details = [f'{len(got)} came, {len(wanted)} were expected']
        wrong = [index for index, pair in enumerate(zip(got, wanted))
                 if pair[0] != pair[1]]
        details.append(f'{len(wrong)} differ')
        for index in wrong[:SHOWN]:
            details.append(f'number {index + 1}: got {show(got[index])}, '
                           f'wanted {show(wanted[index])}')
        # an empty sequence proves nothing
        return self.true(f'{name} ({len(wanted)})', wanted and got == wanted,
                         *details)


def show(value):
    return hex(value) if isinstance(value, int) else value


def program(name, **defines):
    """The path of a compiled guest program."""
    source = next(path for folder in SOURCES for ending in ('.c', '.S')
                  if os.path.exists(path := os.path.join(folder,
                                                         name + ending)))
    suffix = ''.join(f'-{value}' for value in defines.values())
    flags = [f'-D{key}={value}' for key, value in defines.items()]
    if name not in HOSTED:
        flags += BARE
    return programs.compile_program(
        source, os.path.join(images.BUILD, 'guest', 'programs', name + suffix),
        flags=flags)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument('--kernel', default=Options.kernel)
    parser.add_argument('--cpu', default=Options.cpu)
    return parser.parse_args()


def options_for(files, **more):
    given = arguments()
    return Options(**{'kernel': given.kernel, 'cpu': given.cpu,
                      'files': list(files), **more})


def run_tests(test, files, **more):
    """Boots, calls test(guest, checks), and ends with the exit status."""
    checks = Checks()
    try:
        with Guest(options_for([*files, program('alone')], **more)) as guest:
            guest.unthrottle()
            test(guest, checks)
            healthy(guest, checks)
    except (GuestError, images.ImageError) as error:
        checks.case('fail', 'the guest works', details=str(error).splitlines())
    sys.exit(checks.end())


def healthy(guest, checks):
    """The kernel has complained of nothing."""
    bad = [line for line in guest.kernel_log().splitlines()
           if any(word in line for word in
                  ('WARNING:', 'BUG:', 'Call Trace', 'unchecked MSR access',
                   'Uhhuh', 'PEBS record size',
                   'perfevents: irq loop stuck'))]
    checks.equal('the kernel has nothing to complain of', bad, [])
