# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of its own for the built libvirt: virtlogd and virtqemud apart from the machine's.

Two kinds of namespaces keep them apart. An island holds processes and network:
whatever is started in it ends with it, even after a crash. In it, each host has
a mount namespace, where the folder /run is its own; all that libvirt is
configured with lies below /run/qemu-pebs, so it neither sees nor touches what
the machine's libvirt has.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
BUILD = TOP / 'build/libvirt'
QEMU = TOP / 'build/qemu/qemu-system-x86_64'
PLACE = Path('/run/qemu-pebs')
START = 60   # seconds; a loaded machine is slow to probe QEMU

# No cgroup, no security label and no device of the machine is touched.
QEMU_CONF = '''
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "logd"
'''
ISLAND = ['unshare', '--mount', '--pid', '--net', '--fork', '--kill-child', '--mount-proc',
          '--propagation', 'private', '--']


class Failed(Exception):
    """One line for the user."""


def in_island(function):
    """Call function in a child, as the first process of an island has to reap all others.

    libvirt takes a QEMU for alive as long as it can be signalled, and nobody
    else would take its status once virtqemud has detached itself from it.
    """
    loopback()
    child = os.fork()
    if child == 0:
        function()
        sys.exit(0)
    while True:
        pid, status = os.wait()
        if pid == child:
            sys.stdout.flush()
            os._exit(os.waitstatus_to_exitcode(status) & 0xff)


def loopback():
    """A new network namespace has one interface, which is down."""
    up = 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        request = struct.pack('16sh14x', b'lo', up)
        fcntl.ioctl(one, 0x8914, request)   # SIOCSIFFLAGS


class Host:
    """To be used inside an island. conf is qemu.conf, mounts a script for its mount namespace."""

    def __init__(self, folder, timeout=0, conf=QEMU_CONF, mounts=''):
        self.folder, self.timeout, self.conf, self.mounts = Path(folder), timeout, conf, mounts
        self.run = self.folder / 'run'
        self.place = self.run / PLACE.relative_to('/run')   # as seen from elsewhere
        self.processes = []
        self.holder = None

    # --- the daemons --------------------------------------------------------

    def start(self):
        self.configure()
        self.holder = subprocess.Popen(
            ['unshare', '--mount', '--propagation', 'private', '--', 'sh', '-c',
             f'set -e\nmount --bind "$0" /run\n{self.mounts}\necho ready\nexec sleep infinity',
             self.run],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.processes.append(self.holder)
        if self.holder.stdout.readline() != 'ready\n':
            raise Failed('no mount namespace is to be had here')
        self.daemon('virtlogd')
        return self.start_virtqemud()

    def start_virtqemud(self):
        return self.daemon('virtqemud', '--timeout', str(self.timeout))

    def restart_virtqemud(self):
        """Guests run on meanwhile."""
        end(self.processes.pop())
        return self.start_virtqemud()

    def configure(self):
        etc = self.place / 'etc/libvirt'
        for folder in (etc, self.place / 'var/run', self.folder / 'cache'):
            folder.mkdir(parents=True, exist_ok=True)
        (etc / 'qemu.conf').write_text(self.conf, encoding='utf-8')
        if not (etc / 'virtqemud.conf').exists():   # libvirt knows hosts by this
            (etc / 'virtqemud.conf').write_text(f'host_uuid = "{uuid.uuid4()}"\n',
                                                encoding='utf-8')

    def daemon(self, name, *arguments):
        log = self.folder / f'{name}.log'
        with open(log, 'w', encoding='utf-8') as stream:
            process = subprocess.Popen(self.inside(BUILD / 'src' / name, *arguments),
                                       stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                                       env=self.environment(), start_new_session=True)
        self.processes.append(process)
        path = self.place / f'var/run/libvirt/{name}-sock'
        for _ in range(START * 10):
            if process.poll() is not None:
                break
            if connects(path):
                return process
            time.sleep(0.1)
        words = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
        raise Failed(f'{name} did not start: {words[-1] if words else "it said nothing"}')

    def stop(self):
        for process in reversed(self.processes):
            end(process)
        self.processes = []

    # --- commands -----------------------------------------------------------

    def environment(self):
        # The daemons must find their parts in the build tree.
        return {**os.environ, 'LIBVIRT_DIR_OVERRIDE': '1', 'LC_ALL': 'C',
                'PATH': f'{QEMU.parent}:/usr/sbin:/usr/bin:/sbin:/bin',
                'VIRSH_DEFAULT_CONNECT_URI': 'qemu:///system',
                'XDG_CACHE_HOME': str(self.folder / 'cache'),
                'XDG_CONFIG_HOME': str(self.folder / 'cache')}

    def inside(self, *command, folder='/'):
        return entering(self.holder.pid, command, folder)

    def virsh(self, *arguments, timeout=120):
        """Returns (status, stdout, stderr)."""
        result = subprocess.run(self.inside(BUILD / 'tools/virsh', '--quiet', *arguments),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, check=False,
                                env=self.environment(), timeout=timeout)
        return result.returncode, result.stdout.strip(), result.stderr.strip()

    @property
    def uri(self):
        """For another host of the same island."""
        return f'qemu+unix:///system?socket={self.place}/var/run/libvirt/virtqemud-sock'


def end(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def entering(pid, command, folder, *namespaces):
    return ['nsenter', '-t', str(pid), '-m', *namespaces, '--', 'sh', '-c',
            'cd "$0" && exec "$@"', str(folder), *map(str, command)]


def connects(path):
    """A socket's file may be there before anybody listens, or be left from before."""
    with socket.socket(socket.AF_UNIX) as one:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY) if path.parent.is_dir() else -1
        if folder < 0:
            return False
        try:   # the whole path may be longer than a socket's address may be
            one.connect(f'/proc/self/fd/{folder}/{path.name}')
            return True
        except OSError:
            return False
        finally:
            os.close(folder)


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)
