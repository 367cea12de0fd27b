# SPDX-License-Identifier: GPL-2.0-or-later
"""What staging and series export share: git kept to itself, patches, overlay files."""

import argparse
import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parent.parent

VERSION = 1   # of what staging makes; a new one stages everything again
NOT_SOURCE = ('*~', '.#*', '#*#', '*.swp', '*.swo', '*.orig', '*.rej', '*.pyc', '.DS_Store')
DATE = '2026-01-01T00:00:00Z'   # commits must come out the same on every machine


class Failed(Exception):
    """One line for the user."""


def say(text):
    print(f'{Path(sys.argv[0]).name}: {text}', file=sys.stderr, flush=True)


def shown(path):
    """As a user would write it in this tree."""
    return path.relative_to(TOP) if path.is_relative_to(TOP) else path


def git_environment(**more):
    # Neither the user's configuration nor a calling git may change the result.
    clean = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')}
    return {**clean, 'GIT_CONFIG_GLOBAL': '/dev/null', 'GIT_CONFIG_NOSYSTEM': '1',
            'LC_ALL': 'C', 'TZ': 'UTC',
            'GIT_AUTHOR_NAME': 'qemu-pebs', 'GIT_AUTHOR_EMAIL': 'qemu-pebs@localhost',
            'GIT_COMMITTER_NAME': 'qemu-pebs', 'GIT_COMMITTER_EMAIL': 'qemu-pebs@localhost',
            'GIT_AUTHOR_DATE': DATE, 'GIT_COMMITTER_DATE': DATE, **more}


class Repository:
    """git in one folder, quiet unless it fails."""

    def __init__(self, path):
        self.path = path

    def run(self, *arguments, check=True, text=None, **environment):
        result = subprocess.run(['git', *map(str, arguments)], cwd=self.path, input=text,
                                stdin=None if text is not None else subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=git_environment(**environment), check=False,
                                encoding='utf-8', errors='surrogateescape')
        if check and result.returncode != 0:
            raise Failed(f'git {arguments[0]}: {first_error(result.stderr)}')
        return result

    def __call__(self, *arguments, **kwargs):
        return self.run(*arguments, **kwargs).stdout.strip()


def first_error(text):
    lines = [l.removeprefix('error: ').removeprefix('fatal: ')
             for l in text.splitlines() if l.strip()]
    return lines[0] if lines else 'failed without a word'


def create(path):
    path.mkdir(parents=True)
    git = Repository(path)
    git('init', '-q', '-b', 'staged')
    for key, value in (('core.looseCompression', '1'), ('core.fsync', 'none'), ('gc.auto', '0')):
        git('config', key, value)   # it can be made again: rather quick than small
    # The base's own attributes and exclusions must not change a byte of it.
    (path / '.git/info').mkdir(exist_ok=True)
    (path / '.git/info/attributes').write_text('* -text -eol -ident -filter\n', encoding='utf-8')
    return git


# --- overlay and patches, as they are now -----------------------------------

def overlay_files(root, folders):
    """Paths of the overlay's files, relative to its root."""
    found = []
    for folder in folders or ['.']:
        for place, inner, names in os.walk(root / folder):
            inner[:] = sorted(n for n in inner if n not in ('__pycache__', '.git'))
            found += [os.path.relpath(os.path.join(place, n), root) for n in names
                      if not any(fnmatch.fnmatch(n, p) for p in NOT_SOURCE)]
    return sorted(found)


def patch_files(folder):
    return sorted(folder.glob('*.patch')) if folder.is_dir() else []


def digest(patches, base):
    total = hashlib.sha256(f'{VERSION} {base}\n'.encode())
    for patch in patches:
        total.update(patch.name.encode() + b'\0' + patch.read_bytes() + b'\0')
    return total.hexdigest()


# --- commits ----------------------------------------------------------------

def commit_base(git, wanted, fetch):
    """A commit of the source that FETCH unpacks. Returns (commit, version)."""
    scratch = git.path.with_name(git.path.name + '.base')
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        result = subprocess.run([fetch, 'unpack', scratch], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, text=True, check=False)
        if result.returncode != 0:
            raise Failed(f'there is no base to stage ({Path(fetch).name} failed, see above)')
        version = result.stdout.strip()
        say(f'recording the base, {git.path.name} {version}')
        index = {'GIT_INDEX_FILE': str(git.path / '.git/index.base')}
        Path(index['GIT_INDEX_FILE']).unlink(missing_ok=True)
        # -f: the base's own .gitignore names files that its tarball holds.
        git(f'--git-dir={git.path}/.git', f'--work-tree={scratch}', 'add', '-Af', '.', **index)
        tree = git('write-tree', **index)
        Path(index['GIT_INDEX_FILE']).unlink()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    commit = git('commit-tree', tree, '-m', f'{git.path.name} {version}')
    git('update-ref', 'refs/heads/base', commit)
    return commit, version


def mail(git, patch):
    """What git am takes from a mail: (author's environment, message, diff)."""
    scratch = git.path / '.git'
    message, diff = scratch / 'stage-message', scratch / 'stage-diff'
    info = git('mailinfo', '--encoding=UTF-8', message, diff,
               text=patch.read_text(encoding='utf-8', errors='surrogateescape'))
    fields = dict(l.split(': ', 1) for l in info.splitlines() if ': ' in l)
    if 'Subject' not in fields or 'Author' not in fields:
        raise Failed(f'{shown(patch)}: no mail as git format-patch writes it (From: or Subject: missing)')
    author = {'GIT_AUTHOR_NAME': fields['Author'], 'GIT_AUTHOR_EMAIL': fields.get('Email', ''),
              'GIT_AUTHOR_DATE': fields.get('Date', DATE)}
    body = message.read_text(encoding='utf-8').strip()
    return author, f'{fields["Subject"]}\n\n{body}\n' if body else f'{fields["Subject"]}\n', diff


def commit_patches(git, base, patches, version, extra=None, name='stage'):
    """One commit per patch upon base; extra may add to the index and change the message."""
    index = {'GIT_INDEX_FILE': str(git.path / f'.git/index.{name}')}
    Path(index['GIT_INDEX_FILE']).unlink(missing_ok=True)
    git('read-tree', base, **index)
    head, commits = base, []
    for patch in patches:
        author, message, diff = mail(git, patch)
        if diff.stat().st_size:
            applied = git.run('apply', '--cached', '--whitespace=nowarn', diff, check=False,
                              **index)
            if applied.returncode != 0:
                raise Failed(f'{shown(patch)} does not apply to {git.path.name} {version}: '
                             f'{first_error(applied.stderr)}; rework that patch, '
                             'or take the base that it is made for')
        if extra:
            message = extra(message, patch, index)
        head = git('commit-tree', git('write-tree', **index), '-p', head, '-F', '-',
                   text=message, **author)
        commits.append(head)
    Path(index['GIT_INDEX_FILE']).unlink()
    return commits


# --- command line -----------------------------------------------------------

class Project(NamedTuple):
    """What tells one staged tree from another."""
    tree: Path
    fetch: Path
    patches: Path
    overlay: Path
    folders: list


PROJECTS = {
    'qemu': Project(TOP / 'build/src/qemu', TOP / 'harness/fetch-qemu', TOP / 'patches/qemu', TOP,
                    ['accel', 'docs', 'hw', 'include', 'qapi', 'scripts', 'stubs', 'target',
                     'tests', 'tools']),
    'libvirt': Project(TOP / 'build/src/libvirt', TOP / 'harness/fetch-libvirt',
                       TOP / 'patches/libvirt', TOP / 'libvirt', []),
}


def options(description):
    """A parser of what tells one staged tree from another."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('project', nargs='?', default='qemu', choices=PROJECTS,
                        help='gives the defaults of what follows')
    parser.add_argument('--tree', help='the staged tree')
    parser.add_argument('--fetch', help='program that names and unpacks the base')
    parser.add_argument('--patches', help='folder of patches')
    parser.add_argument('--overlay', help='root of the overlay')
    parser.add_argument('--folders', nargs='*', help="the overlay's folders, if not all")
    return parser


def parse(parser):
    """Arguments, with what was left out taken from the project."""
    arguments = parser.parse_args()
    for name, value in PROJECTS[arguments.project]._asdict().items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments
