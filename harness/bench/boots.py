# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts the host instructions of a boot with valgrind.

For hosts whose PMU a process can't use. exp-bbv is the one of valgrind's
tools that counts per block of code instead of per instruction; a boot takes it
ten minutes of a CPU. The guest ends where it would start its first process:
there is none, the kernel panics, and QEMU exits.

Under valgrind a guest runs fifty times slower than its clock, and would be
busy with timer interrupts, more of them in the slower of two runs. So both
have virtual time, in which an interrupt comes after so many instructions of
the guest: -icount, whose own code is in both counts. Two boots of one QEMU
run a few ten-thousandths more or fewer of the guest's instructions then, by
how long they idled. What is compared is the host's instructions for each of
the guest's, which a plugin counts: a few more in each block, the same in both.
Of two boots of one QEMU that differed by up to a thousandth.
"""

import collections
import os
import re
import shutil
import subprocess
import tempfile

from guestlib import FIRMWARE, KERNEL_ARGUMENTS

TIMEOUT = 3600
# 2 to that power nanoseconds of virtual time for each instruction, about what
# TCG takes to boot. Were it faster, the kernel would mostly calibrate its timer:
# it executes PAUSE for 100 ms, and each leaves TCG's loop.
PACE = 3
# What makes one boot like another: Linux accesses an HPET a hundred thousand
# times more in some, and its self-tests of ciphers take a fifth of a boot, not
# always the same.
NO_HPET = ('-machine', 'hpet=off')
NO_SELF_TESTS = 'cryptomgr.notests'
KERNEL_END = ('rdinit=/none', 'nokaslr', 'panic=-1', NO_SELF_TESTS)

Machine = collections.namedtuple('Machine', 'qemu cpu append')
# host instructions for each of the guest's; what the kernel printed
Boot = collections.namedtuple('Boot', 'cost kernel_log')


class CountError(Exception):
    """One line for the user."""


def can_count():
    return shutil.which('valgrind') is not None


def plugin(qemu):
    """QEMU's own counter of blocks and their instructions."""
    return os.path.join(os.path.dirname(qemu), 'tests/tcg/plugins/libbb.so')


def command(machine, kernel, log):
    line = ['valgrind', '--tool=exp-bbv', '--instr-count-only=yes',
            '--bb-out-file=/dev/null', '--smc-check=all-non-file',
            f'--log-file={log}', machine.qemu]
    for folder in filter(os.path.isdir, FIRMWARE):
        line += ['-L', folder]
    return line + [
        '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
        '-machine', 'pc', *NO_HPET, '-accel', 'tcg', '-cpu', machine.cpu,
        '-m', '512M', '-icount', f'shift={PACE}',
        '-plugin', f'{plugin(machine.qemu)},inline=on',
        '-d', 'plugin', '-D', f'{log}.guest', '-serial', f'file:{log}.kernel',
        '-kernel', kernel,
        '-append', ' '.join((*KERNEL_ARGUMENTS, *KERNEL_END,
                             *machine.append))]


def read_text(path):
    with open(path, encoding='utf-8', errors='replace') as file:
        return file.read()


def read_counts(path, pattern):
    return [int(n) for n in re.findall(pattern, read_text(path))]


def read_boot(log):
    """Of the vCPU's thread, by far the busiest: the others wait, or poll."""
    host = max(read_counts(log, r'Total instructions: (\d+)'))
    guest, = read_counts(f'{log}.guest', r'Total: .*insns: (\d+)')
    return Boot(host / guest, read_text(f'{log}.kernel'))


def count(machines, kernel):
    """A Boot of each Machine, all at once."""
    with tempfile.TemporaryDirectory(prefix='bench-') as folder:
        logs = [os.path.join(folder, f'log{i}') for i in range(len(machines))]
        running = [subprocess.Popen(command(machine, kernel, log),
                                    stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
                   for machine, log in zip(machines, logs)]
        try:
            for process in running:
                if process.wait(TIMEOUT):
                    raise CountError('QEMU failed under valgrind, status '
                                     f'{process.returncode}')
        except subprocess.TimeoutExpired as error:
            raise CountError(f'no boot under valgrind in {TIMEOUT} s') \
                from error
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        return [read_boot(log) for log in logs]
