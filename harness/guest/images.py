# SPDX-License-Identifier: GPL-2.0-or-later
"""The test guest's kernels and first roots, made of Debian's packages.

Packages are unpacked, never installed. An image is a folder with

    vmlinuz     Debian's kernel
    base.cpio   busybox, Debian's perf and the libraries that it needs
    image.json  what it was made of

Kernel and perf come from one suite, and so does perf's C library: a newer
suite's perf would not start with an older one's. What is small and changes
often (the first process, files that a test adds) is a second archive, made
at each boot.
"""

import contextlib
import fcntl
import hashlib
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from cpio import CpioWriter

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get('BUILD_DIR', os.path.join(TOP, 'build'))
DEBIAN = os.environ.get('DEBIAN_TOOL', os.path.join(TOP, 'harness', 'debian'))
LIBRARY_DIR = 'usr/lib/x86_64-linux-gnu'
LOADER = 'ld-linux-x86-64.so.2'


@dataclass(frozen=True)
class Series:
    """A line of Debian kernels: where it is and how its packages are named."""
    name: str
    suite: str
    package: str        # regular expression; group 1 is the kernel's release

    def holds(self, version):
        return version == self.name or version.startswith(self.name + '.')


SERIES = (
    Series('6.1', 'bookworm', r'linux-image-(6\.1\.0-\d+-amd64)'),
    Series('6.12', 'trixie', r'linux-image-(6\.12\.\d+\+deb13-amd64)'),
    Series('newest', 'trixie-backports',
           r'linux-(?:image|binary)-(\d+\.[\d.]+\+deb13-amd64)'),
)


class ImageError(Exception):
    """One line for the user."""


# ---- choosing ----

def series_of(version):
    for series in SERIES:
        if series.holds(version):
            return series
    return SERIES[-1]


def version_key(text):
    return [int(part) for part in re.findall(r'\d+', text)]


def matches(release, version):
    """A fuller version names a release by its beginning, at a boundary."""
    return re.match(re.escape(version) + r'(?![0-9])', release) is not None


class Archive:
    """Debian's archive, through the one tool that knows how to reach it."""

    def __init__(self, series, folder):
        self.series = series
        self.folder = folder

    def _tool(self, command, *arguments):
        result = subprocess.run([DEBIAN, command, self.series.suite,
                                 *arguments], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, check=False)
        errors = re.findall(r'(?m)^debian: error: (.*)$', result.stderr)
        if errors:
            raise ImageError(errors[-1])
        return result.stdout.splitlines()

    def kernel_packages(self, version):
        """Releases and packages of the kernels that fit, the newest first."""
        exact = f'^{self.series.package}$'
        found = {}
        for line in self._tool('search', exact):
            name = line.split()[0]
            release = re.match(exact, name)[1]
            if version != self.series.name and not matches(release, version):
                continue
            # since 6.16 the image package only refers to the binary one
            if release not in found or '-binary-' in name:
                found[release] = name
        return sorted(found.items(), key=lambda item: version_key(item[0]),
                      reverse=True)

    def fetch(self, packages):
        """The packages' files: {package: path}."""
        paths = self._tool('fetch', self.folder, *packages)
        found = {os.path.basename(path).split('_')[0]: path for path in paths}
        for package in packages:
            if package not in found:
                raise ImageError(f'no {package} came from {self.series.suite}')
        return found


# ---- unpacking ----

def unpack(deb, folder):
    subprocess.run(['dpkg-deb', '-x', deb, folder], check=True)


def unpack_only(deb, folder, patterns):
    """Unpacks a few files of a large package."""
    with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', deb],
                          stdout=subprocess.PIPE) as stream:
        subprocess.run(['tar', '-x', '-C', folder, '--wildcards', *patterns],
                       stdin=stream.stdout, stderr=subprocess.DEVNULL,
                       check=False)


def find_files(folder, pattern):
    return sorted(os.path.join(where, name)
                  for where, _, names in os.walk(folder) for name in names
                  if re.fullmatch(pattern, name))


def needed_libraries(path):
    """The sonames that an ELF file asks for."""
    result = subprocess.run(['readelf', '-d', path], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, check=True)
    return re.findall(r'\(NEEDED\).*\[(.*)\]', result.stdout)


def library_packages(deb):
    """Packages that a package depends on and that hold shared libraries."""
    result = subprocess.run(['dpkg-deb', '-f', deb, 'Depends'],
                            stdout=subprocess.PIPE, text=True, check=True)
    names = (clause.split('|')[0].split('(')[0].split(':')[0].strip()
             for clause in result.stdout.split(','))
    return [name for name in names
            if re.match(r'(lib|zlib)', name)
            and not re.search(r'-(stdlib|minimal|data|common|modules.*)$', name)]


class LibraryClosure:
    """Gathers the libraries that a program needs, package by package."""

    def __init__(self, archive, root):
        self.archive = archive
        self.root = root
        self.fetched = {}           # package: path
        self.found = {}             # soname: path

    def _resolve(self, path, missing):
        for soname in needed_libraries(path):
            if soname in self.found or soname in missing:
                continue
            candidates = [candidate for candidate
                          in find_files(self.root, re.escape(soname))
                          if '/glibc-hwcaps/' not in candidate]
            if candidates:
                self.found[soname] = candidates[0]
                self._resolve(candidates[0], missing)
            else:
                missing.add(soname)

    def gather(self, program, deb):
        level = [deb]
        while True:
            missing = set()
            self._resolve(program, missing)
            for path in list(self.found.values()):
                self._resolve(path, missing)
            if not missing:
                return self.found
            level = self._fetch_dependencies(level, missing)

    def _fetch_dependencies(self, debs, missing):
        names = {name for deb in debs for name in library_packages(deb)}
        names -= self.fetched.keys()
        if not names:
            raise ImageError('no package of the suite holds '
                             + ', '.join(sorted(missing)))
        files = self.archive.fetch(sorted(names))
        for path in files.values():
            unpack(path, self.root)
        self.fetched.update(files)
        return list(files.values())


# ---- making an image ----

def add_busybox(cpio, busybox):
    cpio.add_file('usr/bin/busybox', busybox)
    listing = subprocess.run([busybox, '--list'], stdout=subprocess.PIPE,
                             text=True, check=True)
    for applet in listing.stdout.split():
        if applet != 'busybox':
            cpio.add_link(f'usr/bin/{applet}', 'busybox')


def add_perf(cpio, perf, libraries):
    cpio.add_file('usr/bin/perf', perf)
    for soname, path in sorted(libraries.items()):
        folder = 'usr/lib64' if soname == LOADER else LIBRARY_DIR
        cpio.add_file(f'{folder}/{soname}', path)


def add_modules(cpio, folder):
    """The MSR device is a module; nothing loads it unless asked to."""
    for path in find_files(folder, r'msr\.ko(\.xz)?'):
        with open(path, 'rb') as file:
            data = file.read()
        cpio.add_bytes('usr/lib/msr.ko',
                       lzma.decompress(data) if path.endswith('.xz') else data)


def add_layout(cpio):
    for path in ('proc', 'sys', 'dev', 'tmp', 'root', 'etc', 'add'):
        cpio.add_directory(path)
    for name in ('bin', 'sbin', 'lib', 'lib64'):
        cpio.add_link(name, 'usr/bin' if name == 'sbin' else f'usr/{name}')
    cpio.add_bytes('etc/passwd', b'root::0:0:root:/root:/bin/sh\n')
    cpio.add_bytes('etc/group', b'root::0:\n')


def fetch_kernel(archive, version):
    """An index may name files that the archive has dropped: try them all."""
    candidates = archive.kernel_packages(version)
    problem = None
    for release, package in candidates:
        try:
            return release, archive.fetch([package])[package]
        except ImageError as error:
            problem = error
    if problem:
        raise problem
    raise ImageError(f'no Debian kernel {version} in '
                     f'{archive.series.suite}')


def unpack_kernel(deb, folder):
    os.makedirs(folder)
    unpack_only(deb, folder, ['*/vmlinuz*', '*/msr.ko*'])
    kernels = find_files(folder, r'vmlinuz.*')
    if not kernels:
        raise ImageError(f'{os.path.basename(deb)} holds no kernel')
    return kernels[0]


def find_perf(folder):
    """bookworm's perf lies in /usr/bin, older ones add their version."""
    found = [path for path in find_files(folder, r'perf(_[\d.]+)?')
             if '/bin/' in path and os.path.getsize(path) > 1 << 20]
    if not found:
        raise ImageError('linux-perf holds no perf')
    return found[0]


def make_image(series, version, folder, scratch, say):
    archive = Archive(series, os.path.join(scratch, 'debs'))
    say(f'looking for a Debian kernel {version}')
    release, kernel_deb = fetch_kernel(archive, version)
    say(f'unpacking kernel {release}')
    kernel_root = os.path.join(scratch, 'kernel')
    kernel = unpack_kernel(kernel_deb, kernel_root)

    say('fetching perf and its libraries')
    debs = archive.fetch(['linux-perf', 'busybox-static'])
    root = os.path.join(scratch, 'root')
    for deb in debs.values():
        unpack(deb, root)
    perf = find_perf(root)
    closure = LibraryClosure(archive, root)
    libraries = closure.gather(perf, debs['linux-perf'])

    shutil.copy(kernel, os.path.join(folder, 'vmlinuz'))
    with open(os.path.join(folder, 'base.cpio'), 'wb') as file:
        cpio = CpioWriter(file)
        add_layout(cpio)
        add_busybox(cpio, find_files(root, 'busybox')[0])
        add_perf(cpio, perf, libraries)
        add_modules(cpio, kernel_root)
        cpio.close()
    used = [kernel_deb, *debs.values(), *closure.fetched.values()]
    return {'release': release,
            'packages': sorted(os.path.basename(deb) for deb in used)}


# ---- finding or making ----

@dataclass(frozen=True)
class Image:
    folder: str
    release: str

    @property
    def kernel(self):
        return os.path.join(self.folder, 'vmlinuz')

    @property
    def base(self):
        return os.path.join(self.folder, 'base.cpio')


def recipe():
    """Changes when the way images are made changes."""
    digest = hashlib.sha256()
    for name in ('images.py', 'cpio.py'):
        with open(os.path.join(HERE, name), 'rb') as file:
            digest.update(file.read())
    return digest.hexdigest()


def read_image(folder):
    """The image in the folder, or None where it has to be made."""
    try:
        with open(os.path.join(folder, 'image.json'), encoding='utf-8') as file:
            facts = json.load(file)
    except (OSError, ValueError):
        return None
    if facts.get('recipe') != recipe():
        return None
    return Image(folder, facts['release'])


@contextlib.contextmanager
def locked(path):
    """Tests run side by side; one of them makes the image."""
    with open(path, 'w', encoding='utf-8') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say_nothing(_):
    pass


def say_stderr(text):
    print(f'guest image: {text}', file=sys.stderr, flush=True)


def image(version, say=say_stderr):
    """The image of a kernel version, made if it isn't there."""
    parent = os.path.join(BUILD, 'guest')
    folder = os.path.join(parent, version)
    os.makedirs(parent, exist_ok=True)
    with locked(os.path.join(parent, f'.{version}.lock')):
        ready = read_image(folder)
        if ready:
            return ready
        with tempfile.TemporaryDirectory(dir=parent, prefix='.new-') as new:
            made = os.path.join(new, 'image')
            os.makedirs(made)
            facts = make_image(series_of(version), version, made, new, say)
            facts['recipe'] = recipe()
            with open(os.path.join(made, 'image.json'), 'w',
                      encoding='utf-8') as file:
                json.dump(facts, file, indent=2)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(made, folder)
        say(f'kernel {facts["release"]} is ready')
        return read_image(folder)
