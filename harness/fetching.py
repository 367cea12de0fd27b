# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a base comes from: what the user gave, what is pinned, what else there is.

    PROGRAM wanted         name what would be unpacked; quick, offline
    PROGRAM unpack DEST    put the source into the new folder DEST, print its version
"""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'qemu-pebs' / 'source'


def say(text):
    print(f'{Path(sys.argv[0]).name}: {text}', file=sys.stderr, flush=True)


def die(text):
    say(f'error: {text}')
    sys.exit(1)


def run(*command, **kwargs):
    """Returns (succeeded, stdout, last words of stderr), echoing what debian says."""
    result = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            check=False, **kwargs)
    words = [l for l in result.stderr.splitlines() if l.strip()]
    return result.returncode == 0, result.stdout, words[-1] if words else ''


def skip(top, folder, names):
    """Of a folder's subfolders, those that are no source."""
    gone = {'.git'} | ({'build', '.pc'} if Path(folder) == top else set())
    names[:] = [n for n in names if n not in gone]


# --- unpacking --------------------------------------------------------------

def unpack_dsc(dsc, dest):
    say(f'unpacking {dsc.name}')
    good, _, error = run('dpkg-source', '--no-check', '--no-copy', '-x', dsc, dest)
    return '' if good else f'dpkg-source: {error}'


def unpack_tar(path, dest):
    say(f'unpacking {path.name}')
    dest.mkdir(parents=True)
    good, _, error = run('tar', '-xf', path, '-C', dest, '--strip-components=1', '--no-same-owner')
    return '' if good else error


def unpack_debian(path, dest):
    """A release's tarball, or Debian's, which needs Debian's patches from beside it."""
    if path.suffix == '.dsc':
        return unpack_dsc(path, dest)
    if '.orig.tar' not in path.name:
        return unpack_tar(path, dest)
    upstream = path.name.split('.orig.tar')[0]
    beside = sorted(path.parent.glob(f'{upstream}-*.debian.tar.*'))
    if not beside:
        return f"{path.name} needs {upstream}-*.debian.tar.xz beside it (Debian's patches)"
    return unpack_dsc(make_dsc(path, beside[-1], dest.parent), dest)


def copy_folder(path, dest):
    say(f'copying {path}')

    def ignore(folder, names):
        keep = list(names)
        skip(path, folder, keep)
        return set(names) - set(keep)
    shutil.copytree(path, dest, symlinks=True, ignore=ignore)
    return ''


def make_dsc(orig, packaging, folder):
    """The two tarballs are checked already, so a description of our own will do."""
    folder.mkdir(parents=True, exist_ok=True)
    name = packaging.name.split('_', 1)[0]
    version = packaging.name.split('_', 1)[1].split('.debian.tar')[0]
    lines = ['Format: 3.0 (quilt)', f'Source: {name}', f'Version: 1:{version}', 'Files:']
    for path in (orig, packaging):
        link = folder / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        digest = hashlib.md5()
        with open(path, 'rb') as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        lines.append(f' {digest.hexdigest()} {path.stat().st_size} {path.name}')
    dsc = folder / f'{name}_{version}.dsc'
    dsc.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return dsc


# --- the three sources ------------------------------------------------------

def debian(*arguments):
    """harness/debian, its messages shown as they come."""
    result = subprocess.run([str(HERE / 'debian'), *map(str, arguments)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                            check=False)
    return result.returncode == 0, result.stdout.strip()


@dataclass
class Source:
    """A base: its names, its pinned files with their SHA-256, and how to know it again."""
    name: str
    variable: str       # of the environment, that names another source
    family: str         # how the versions begin that will do
    pinned: str
    pool: str
    files: dict
    suites: tuple       # that may have another of the family; none: only the pinned one
    landmarks: tuple    # files that every such source has
    version: Callable   # of an unpacked tree
    unpack_tar: Callable = unpack_tar

    @property
    def remedy(self):
        return f'set {self.variable}= to a folder or tarball of {self.name} {self.family}x'

    def given(self):
        text = os.environ.get(self.variable)
        if not text:
            return None
        path = Path(text).expanduser()
        if not path.exists():
            die(f'{self.variable}={text}: no such folder or file; {self.remedy}, '
                'or unset it to download')
        return path.resolve()

    def wanted(self):
        path = self.given()
        if not path:
            return f'archive {self.pinned}'
        digest = hashlib.sha256()
        if path.is_file():
            status = path.stat()
            digest.update(f'{status.st_size} {status.st_mtime_ns}'.encode())
        else:
            for folder, folders, files in os.walk(path):
                skip(path, folder, folders)
                folders.sort()
                for name in sorted(files):
                    status = os.lstat(os.path.join(folder, name))
                    digest.update(
                        f'{folder}/{name} {status.st_size} {status.st_mtime_ns}\n'.encode())
        return f'{path} {digest.hexdigest()[:16]}'

    def unpack_pinned(self, dest):
        for name, digest in self.files.items():
            if not debian('pool', f'{self.pool}/{name}', digest, CACHE / name)[0]:
                return 'the archive did not give it (see above)'
        paths = [CACHE / n for n in self.files]
        if len(paths) == 1:
            return self.unpack_tar(paths[0], dest)
        scratch = dest.with_name(dest.name + '.dsc')
        error = unpack_dsc(make_dsc(*paths, scratch), dest)
        shutil.rmtree(scratch)
        return error

    def unpack_newest(self, dest):
        good, dsc = debian('source', self.name.lower(), self.family, CACHE, *self.suites)
        if not good:
            return f'none to be had from {", ".join(self.suites)} (see above)'
        say(f'using {Path(dsc).name} in place of the pinned {self.pinned}')
        return unpack_dsc(Path(dsc), dest)

    def from_archive(self, dest):
        ways = [(f'pinned {self.pinned}', self.unpack_pinned)]
        if self.suites:
            ways.append((f'newest {self.family}x', self.unpack_newest))
        tried = []
        for name, function in ways:
            shutil.rmtree(dest, ignore_errors=True)
            error = function(dest)
            if not error:
                return
            tried.append(f'{name}: {error}')
        die(f'no {self.name} source; tried {"; ".join(tried)}; {self.remedy}')

    def unpack(self, dest):
        path = self.given()
        if path:
            error = copy_folder(path, dest) if path.is_dir() else self.unpack_tar(path, dest)
            if error:
                die(f'{self.variable}={path}: {error}; {self.remedy}')
        else:
            self.from_archive(dest)
        if not all((dest / name).is_file() for name in self.landmarks):
            die(f'{path or "the archive"}: no {self.name} source tree '
                f'({" or ".join(self.landmarks)} is missing); {self.remedy}')
        for name in ('.pc', 'debian'):   # packaging, already applied
            shutil.rmtree(dest / name, ignore_errors=True)
        print(self.version(dest))


def main(source):
    match sys.argv[1:]:
        case ['wanted']:
            print(source.wanted())
        case ['unpack', dest]:
            source.unpack(Path(dest).absolute())
        case _:
            die(f'usage: {Path(sys.argv[0]).name} wanted | unpack DEST')
