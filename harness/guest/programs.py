# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiles the programs that run in the guest."""

import glob
import os
import subprocess

from images import BUILD, HERE, locked, say_nothing


def agent(say=say_nothing):
    """The guest's first process, compiled when its source is newer."""
    source = os.path.join(HERE, 'agent.c')
    return compile_program(source, os.path.join(BUILD, 'guest', 'agent'), say)


def is_current(target, source):
    """Newer than its source and the headers beside that."""
    folder = os.path.dirname(source)
    sources = [source, *glob.glob(os.path.join(folder, '*.h'))]
    return (os.path.exists(target)
            and os.path.getmtime(target) >= max(map(os.path.getmtime, sources)))


def compile_program(source, target, say=say_nothing, flags=()):
    """Compiles a static guest program; does nothing when it is up to date."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with locked(target + '.lock'):
        if is_current(target, source):
            return target
        say(f'compiling {os.path.basename(source)}')
        new = f'{target}.new'
        subprocess.run([os.environ.get('CC', 'gcc'), '-static', '-O2', '-g',
                        '-Wall', '-Wextra', '-Werror', *flags,
                        '-o', new, source], check=True)
        os.rename(new, target)
    return target


def firmware(name):
    """The path of a firmware image, assembled when its source is newer."""
    return compile_program(
        os.path.join(HERE, f'{name}.S'),
        os.path.join(BUILD, 'guest', 'programs', f'{name}.bin'),
        flags=['-m32', '-nostdlib', '-no-pie',
               '-Wl,-Ttext=0,-e0,--oformat=binary,--build-id=none'])
