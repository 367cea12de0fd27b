# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU on the model of /dev/kvm, and what it asked of it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / 'guest')]

from common import TOP, Skip, main   # noqa: E402,F401
from guestlib import die_with_parent   # noqa: E402
from monitor import Monitor, QmpError   # noqa: E402,F401

BUILD = Path(os.environ.get('BUILD_DIR') or TOP / 'build')
QEMU = os.environ.get('QEMU') or str(BUILD / 'qemu/qemu-system-x86_64')
STOCK = os.environ.get('STOCK_QEMU') or str(BUILD / 'stock/qemu-system-x86_64')
MODEL = os.environ.get('KVM_MODEL') or str(BUILD / 'harness/tests/kvm/kvm-model.so')
HOSTS = HERE / 'hosts'

FIRMWARE = ['-L', '/usr/share/seabios', '-L', '/usr/share/qemu']
BASE = [*FIRMWARE, '-nodefaults', '-no-user-config', '-display', 'none', '-m', '32']

# MSRs
PERF_CAPS, MISC_ENABLE = 0x345, 0x1a0
DS_AREA, PEBS_ENABLE, DATA_CFG = 0x600, 0x3f1, 0x3f2
FIXED_CTRL, GLOBAL_STATUS, GLOBAL_CTRL = 0x38d, 0x38e, 0x38f
PERFCTR0, EVNTSEL0, FIXED_CTR0 = 0xc1, 0x186, 0x309

PEBS_MASK = 0x24fc0     # of IA32_PERF_CAPABILITIES
BASELINE = 1 << 14
DS, DTES64, PDCM = 1 << 21, 1 << 2, 1 << 15     # CPUID leaf 1: EDX, ECX, ECX


def host_value(host, key):
    match = re.search(rf'(?m)^{key} (\S+)', (HOSTS / host).read_text(encoding='utf-8'))
    return int(match.group(1), 0)


def with_more(folder, host, **more):
    """A host like this one, with more in its file"""
    path = Path(folder) / f'{host}-{"-".join(more)}'
    path.write_text((HOSTS / host).read_text(encoding='utf-8')
                    + ''.join(f'{key} {value}\n' for key, value in more.items()), encoding='utf-8')
    return path


def offered(host):
    """The PEBS bits of IA32_PERF_CAPABILITIES that KVM offers on this host."""
    return host_value(host, 'perf_caps') & PEBS_MASK


def errors(text):
    """What QEMU says of its own accord, warnings excepted."""
    said = re.findall(rf'(?m)^{re.escape(Path(QEMU).name)}: (?:-\S+ \S+: )?(.*)$', text)
    return [l for l in said if not l.startswith(('warning:', 'terminating on signal'))]


@dataclass
class Access:
    """One line of the log about an MSR."""
    at: int
    vcpu: int
    write: bool
    index: int
    value: int
    taken: bool


class Log:
    """What QEMU asked of the model."""

    def __init__(self, path):
        self.lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []

    def find(self, pattern):
        """Numbers of the lines that match."""
        return [i for i, line in enumerate(self.lines) if re.search(pattern, line)]

    def msrs(self, vcpu=0):
        found = []
        for i, line in enumerate(self.lines):
            match = re.fullmatch(rf'vcpu{vcpu} (rd|wr)msr (\S+) (\S+) (ok|refused)', line)
            if match:
                kind, index, value, result = match.groups()
                found.append(Access(i, vcpu, kind == 'wr', int(index, 16), int(value, 16),
                                    result == 'ok'))
        return found

    def writes(self, index, vcpu=0):
        return [a for a in self.msrs(vcpu) if a.write and a.index == index]

    def cpuid(self, leaf, vcpu=0):
        """(EAX, EBX, ECX, EDX) that the vCPU was given last."""
        last = self.find(rf'^vcpu{vcpu} cpuid {leaf:#x} ')[-1]
        return tuple(int(word, 16) for word in self.lines[last].split()[3:])

    def clean(self):
        """Nothing was refused, and nothing asked that the model doesn't know."""
        bad = [self.lines[i] for i in self.find(r'refused|unknown ioctl|#GP')]
        assert not bad, f'the kernel would not have this: {bad}'


def environment(folder, name, host, guest):
    folder = Path(folder)
    result = {**os.environ, 'LD_PRELOAD': MODEL, 'KVM_MODEL_HOST': str(HOSTS / host),
              'KVM_MODEL_LOG': str(folder / f'{name}.log')}
    if guest:
        script = folder / f'{name}.guest'
        script.write_text('\n'.join(guest) + '\n', encoding='utf-8')
        result['KVM_MODEL_GUEST'] = str(script)
    assert Path(MODEL).exists(), f'{MODEL} is missing: run ./run build'
    return result


def start_only(folder, host, *arguments):
    """A QEMU that ends as soon as it has started: (status, its errors, log)."""
    result = subprocess.run([QEMU, *BASE, '-accel', 'kvm', '-S', '-qmp', 'stdio', *arguments],
                            env=environment(folder, 'qemu', host, None), text=True, check=False,
                            input='{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n',
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    return result.returncode, errors(result.stderr), Log(Path(folder) / 'qemu.log')


class Machine:
    """A QEMU with a monitor. Use with «with»."""

    def __init__(self, folder, *arguments, host=None, accel='kvm', name='qemu', guest=None,
                 binary=None):
        self.folder, self.name = Path(folder), name
        path = self.folder / f'{name}.qmp'
        self.stderr = open(self.folder / f'{name}.err', 'w+', encoding='utf-8')
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(
            [binary or QEMU, *BASE, '-accel', accel,
             '-qmp', f'unix:{path},server=on,wait=off', *arguments],
            env=environment(folder, name, host, guest) if host else None,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.stderr,
            preexec_fn=die_with_parent)
        self.qmp = Monitor(self.connect(str(path)))
        # It listens long before there is a machine, but answers only then.
        self.qmp.status(60)

    def connect(self, path):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
                return sock
            except OSError:
                sock.close()
                time.sleep(0.01)
        raise AssertionError(f'{self.name} did not start: {self.said()}')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.stderr.close()

    def said(self):
        self.stderr.seek(0)
        return self.stderr.read()

    @property
    def log(self):
        return Log(self.folder / f'{self.name}.log')

    def wait_log(self, pattern):
        """Until a line of the log matches."""
        deadline = time.monotonic() + 30
        while not self.log.find(pattern):
            assert time.monotonic() < deadline, f'no «{pattern}» in the log of {self.name}'
            time.sleep(0.02)

    def ended(self):
        """The exit status, once QEMU has ended by itself."""
        return self.process.wait(30)


def real_machine(folder, *arguments):
    """A QEMU on the machine's own KVM"""
    try:
        with open('/dev/kvm', 'rb'):
            pass
    except OSError as error:
        raise Skip(f'/dev/kvm: {error.strerror}') from error
    return Machine(folder, '-S', *arguments)


def stock():
    if not Path(STOCK).exists():
        raise Skip(f'{STOCK} is not built (./run bench does that)')
    return STOCK
