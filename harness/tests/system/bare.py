# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds and runs the programs of tests/tcg/x86_64/system, which need no kernel.

QEMU= names another binary, QEMU_SRC_TREE= another source tree.
"""

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent.parent
BUILD = Path(os.environ.get('BUILD_DIR') or TOP / 'build')
QEMU = os.environ.get('QEMU') or str(BUILD / 'qemu/qemu-system-x86_64')
TREE = Path(os.environ.get('QEMU_SRC_TREE') or BUILD / 'src/qemu') / 'tests/tcg'
PROGRAMS = TOP / 'tests/tcg/x86_64/system'
FIRMWARE = ('/usr/share/seabios', '/usr/share/qemu')
TIMEOUT = int(os.environ.get('TIMEOUT') or 100)

FLAGS = ('-m64', '-Wall', '-Werror', '-ffreestanding', '-fno-stack-protector', '-nostdlib',
         '-ggdb', '-O0')


def bail(text, details=''):
    """TAP's word for a test that could not go on."""
    for line in details.splitlines():
        print(f'# {line}')
    print(f'Bail out! {text}')
    sys.exit(1)


def compiler(*arguments):
    result = subprocess.run(['gcc', *FLAGS, *map(str, arguments)], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            check=False)
    if result.returncode != 0:
        bail('the program does not build', result.stdout)


def build(name, folder):
    boot, library, program = folder / 'boot.o', folder / 'printf.o', folder / name
    base = TREE / 'x86_64/system'
    if not base.exists():
        bail(f'{base} is missing: run ./run build')
    compiler('-Wa,--noexecstack', '-c', base / 'boot.S', '-o', boot)
    compiler('-isystem', TREE / 'minilib', '-c', TREE / 'minilib/printf.c', '-o', library)
    compiler('-isystem', TREE / 'minilib', PROGRAMS / f'{name}.c', '-o', program,
             f'-Wl,-T{base}/kernel.ld', '-Wl,-melf_x86_64', '-Wl,--build-id=none', '-static',
             boot, library, '-lgcc')
    return program


def command(program, cpu, append, *more):
    """QEMU's command line; what the program prints goes to standard output."""
    line = [QEMU, '-cpu', cpu, '-accel', 'tcg', '-machine', 'pc', '-m', '128',
            '-nodefaults', '-no-user-config', '-display', 'none',
            '-chardev', 'stdio,id=output', '-device', 'isa-debugcon,chardev=output',
            '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x4',
            '-append', append, *more, '-kernel', str(program)]
    for folder in FIRMWARE:
        line[1:1] = ['-L', folder]
    return line


def run(program, cpu, append, more):
    try:
        return subprocess.run(command(program, cpu, append, *more), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT,
                              check=False)
    except subprocess.TimeoutExpired as stuck:
        sys.stdout.write((stuck.stdout or b'').decode(errors='replace'))
        print()
        return bail(f'no end after {TIMEOUT} s')
    except OSError as error:
        return bail(f'{QEMU} does not start: {error.strerror}')
