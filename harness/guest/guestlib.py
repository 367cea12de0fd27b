# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots the test guest and runs commands in it.

    with Guest(Options(kernel='6.1', files=['program'])) as guest:
        result = guest.run(['perf', 'stat', '-e', 'instructions:u', 'program'])

A guest never makes its caller wait for ever: one that panics, resets, stalls
or takes too long raises GuestError, whose text names the cause and ends with
the tail of the kernel's log.
"""

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

import images
import programs
from cpio import CpioWriter
from monitor import Monitor, QmpError

FIRMWARE = ('/usr/share/seabios', '/usr/share/qemu')
DEFAULT_CPU = 'Icelake-Server,pebs=on'
DEFAULT_KERNEL = '6.12'

KERNEL_ARGUMENTS = (
    'console=ttyS0',
    # a panic ends QEMU (-no-reboot) and is told, instead of a silent halt
    'panic=-1', 'oops=panic',
    # the hard-lockup watchdog keeps a cycles counter running on every CPU:
    # it would be counted with, and take a counter from the tests
    'nmi_watchdog=0',
    # the same addresses in every run
    'norandmaps',
    # the emulated TSC is the host's clock: no watchdog has to doubt it, and
    # a busy host is no reason for another clock
    'tsc=reliable', 'no_timer_check',
)

BOOT_TIMEOUT = 180
COMMAND_TIMEOUT = 600
PING_AFTER = 5              # seconds of silence
STALL_AFTER = 60            # seconds without an answer

# What QEMU's SHUTDOWN event calls the end, or None without one.
ENDINGS = {
    'guest-reset': 'the guest reset itself (a triple fault, if nobody asked)',
    'guest-shutdown': 'the guest switched itself off',
    'host-qmp-quit': 'somebody ended QEMU over its monitor',
    'host-signal': 'somebody ended QEMU with a signal',
    None: 'QEMU ended and gave no reason',
}

PR_SET_PDEATHSIG = 1

# Frames; see agent.c.
MAGIC = 0xA5
HEADER = struct.Struct('<BcI')
SEND_CHUNK = 2048


class GuestError(Exception):
    """The guest or QEMU failed; the text is for the user."""


class GuestTimeout(GuestError):
    """The command took longer than it was given."""


@dataclass
class Options:
    kernel: str = DEFAULT_KERNEL
    cpu: str = DEFAULT_CPU
    accel: str = 'tcg'
    smp: int = 1
    memory: str = '1G'
    files: list = field(default_factory=list)       # host paths, into /add
    qemu_args: list = field(default_factory=list)
    append: list = field(default_factory=list)      # kernel arguments
    qmp: str = None                                 # a socket for the caller
    log: str = None                                 # keeps the kernel's log
    qemu: str = None
    timeout: float = COMMAND_TIMEOUT


@dataclass
class Result:
    status: int         # as a shell has it: 128 + N for signal N
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self):
        return self.stdout.decode(errors='replace')

    def check(self):
        """Itself; raises when the command failed."""
        if self.status:
            raise GuestError(f'the command ended with status {self.status}: '
                             + self.stderr.decode(errors='replace').strip())
        return self


def qemu_binary():
    """QEMU= overrides the tree's own."""
    return os.environ.get('QEMU') or os.path.join(
        images.BUILD, 'qemu', 'qemu-system-x86_64')


def shell_status(wait_status):
    if os.WIFSIGNALED(wait_status):
        return 128 + os.WTERMSIG(wait_status)
    return os.WEXITSTATUS(wait_status)


def die_with_parent():
    """No QEMU is left behind, however its caller ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def commas(path):
    """A path inside a QEMU option."""
    return path.replace(',', ',,')


class Line:
    """The framed connection with the guest's agent."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b''

    def send(self, kind, payload=b''):
        self.sock.sendall(HEADER.pack(MAGIC, kind, len(payload)) + payload)

    def receive(self):
        """Takes in what has arrived. False when the other side is gone."""
        try:
            data = self.sock.recv(1 << 20)
        except OSError:
            data = b''
        self.buffer += data
        return bool(data)

    def frames(self):
        """The frames that are complete: (kind, payload)."""
        while len(self.buffer) >= HEADER.size:
            magic, kind, size = HEADER.unpack_from(self.buffer)
            if magic != MAGIC:
                raise GuestError('the guest sent something that is no frame: '
                                 f'{self.buffer[:40]!r}')
            end = HEADER.size + size
            if len(self.buffer) < end:
                return
            payload, self.buffer = (self.buffer[HEADER.size:end],
                                    self.buffer[end:])
            yield kind, payload


class Guest:
    """One QEMU with the test guest in it."""

    def __init__(self, options=None, **changes):
        self.options = options or Options()
        for name, value in changes.items():
            if not hasattr(self.options, name):
                raise TypeError(f'no such option: {name}')
            setattr(self.options, name, value)
        self.process = None
        self.line = None
        self.monitor = None
        self.release = None
        self.scratch = None
        self.answers = []           # frames that end a request
        self.output = {b'O': [], b'R': []}
        self.on_output = None
        self.started = None         # when the command was started
        self.last_heard = None
        self.pinged = False

    # ---- life ----

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, value, trace):
        self.close()

    def start(self):
        """Boots, and returns when the guest takes commands."""
        self.launch()
        try:
            self._await(b'H', time.monotonic() + BOOT_TIMEOUT, 'booting')
            self.monitor.status()       # from now on it sends events
        except BaseException:
            self.close()
            raise

    def launch(self, incoming=None):
        """Starts QEMU and waits for nothing."""
        image = images.image(self.options.kernel)
        self.release = image.release
        self.scratch = tempfile.mkdtemp(prefix='guest-')
        initrd = self._make_initrd(image)
        ours, theirs = zip(socket.socketpair(), socket.socketpair())
        command = self._command(image, initrd, *(s.fileno() for s in theirs))
        if incoming:
            command += ['-incoming', incoming]
        try:
            with open(self._path('qemu.err'), 'wb') as errors:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=errors,
                    stderr=errors, pass_fds=[s.fileno() for s in theirs],
                    preexec_fn=die_with_parent)
        except OSError as error:
            self.close()
            raise GuestError(f'{command[0]}: {error.strerror} '
                             '(build it: ./run build)') from error
        finally:
            for sock in theirs:
                sock.close()
        self.line = Line(ours[0])
        self.monitor = Monitor(ours[1])
        self.last_heard = time.monotonic()

    def close(self):
        """Ends QEMU; safe to call twice."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for end in (self.line, self.monitor):
            if end:
                end.sock.close()
        if self.scratch:
            if self.options.log and os.path.exists(self._path('kernel.log')):
                shutil.copy(self._path('kernel.log'), self.options.log)
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch = None

    # ---- commands ----

    def run(self, argv, timeout=None, on_output=None):
        """Runs a command to its end. `on_output` gets (stream, bytes)."""
        self.begin(argv, on_output)
        return self.finish(timeout)

    def shell(self, text, timeout=None):
        return self.run(['sh', '-c', text], timeout)

    def begin(self, argv, on_output=None):
        """Starts a command; `finish` waits for it."""
        self.output = {b'O': [], b'R': []}
        self.on_output = on_output
        self._stage(b''.join(os.fsencode(arg) + b'\0' for arg in argv))
        self._request(b'E')
        self.started = time.monotonic()

    def finish(self, timeout=None):
        timeout = timeout or self.options.timeout
        payload = self._await(b'Q', self.started + timeout, 'running the '
                              f'command, which was given {timeout:g} s')
        seconds = time.monotonic() - self.started
        status = shell_status(struct.unpack('<i', payload)[0])
        return Result(status, b''.join(self.output[b'O']),
                      b''.join(self.output[b'R']), seconds)

    def wait_output(self, wanted, timeout=None):
        """Waits until the running command has printed these bytes."""
        deadline = self.started + (timeout or self.options.timeout)
        while not self.has_printed(wanted):
            if self.has_ended():
                raise GuestError(f'the command ended without {wanted!r}: '
                                 f'{b"".join(self.output[b"R"])!r}')
            self._pump(deadline, f'running the command, without {wanted!r}')

    def take_in(self, seconds=0):
        """All that it has sent, until it sends nothing for so long."""
        while select.select([self.line.sock], [], [], seconds)[0]:
            if not self.line.receive():
                raise self._death()
            self.last_heard = time.monotonic()
        self._dispatch()

    def has_ended(self):
        """Whether the running command has."""
        self.take_in()
        return any(kind == b'Q' for kind, _ in self.answers)

    def has_printed(self, wanted):
        self.take_in()
        return wanted in b''.join(self.output[b'O'])

    def kill(self, number=signal.SIGTERM):
        """Signals the running command's process group."""
        self._request(b'K', b'%d' % number)

    def put(self, path, data, mode=0o644):
        """Writes a file in the guest."""
        self._stage(data)
        self._request(b'P', b'%o ' % mode + os.fsencode(path))

    def get(self, path):
        """The bytes of a file in the guest."""
        self.line.send(b'G', os.fsencode(path))
        pieces = []
        while True:
            kind, payload = self._answer(time.monotonic() + COMMAND_TIMEOUT,
                                         f'sending {path}')
            if kind == b'A':
                return b''.join(pieces)
            pieces.append(payload)

    def unthrottle(self):
        """Lets perf sample as often as it was asked to."""
        # in this order: with the second at 0 the first can't be written
        self.shell('echo 100000000 >/proc/sys/kernel/perf_event_max_sample_rate'
                   ' && echo 0 >/proc/sys/kernel/perf_cpu_time_max_percent'
                   ).check()

    def throttle(self):
        """Back to Linux's defaults."""
        self.shell('echo 25 >/proc/sys/kernel/perf_cpu_time_max_percent'
                   ' && echo 100000 >/proc/sys/kernel/perf_event_max_sample_rate'
                   ).check()

    # ---- the machine ----

    def qmp(self, command, timeout=60, **arguments):
        return self.monitor.execute(command, timeout, **arguments)

    def pause(self):
        """Stops the machine and takes in all that it has sent."""
        self.qmp('stop')
        self.take_in(0.2)

    def resume(self):
        self.qmp('cont')
        self.last_heard = time.monotonic()

    def state(self):
        """What this side must remember beside a snapshot of the machine."""
        return (self.line.buffer, list(self.answers), self.started,
                {kind: list(data) for kind, data in self.output.items()})

    def set_state(self, state):
        """Goes back to what `state` gave; also another guest's."""
        self.line.buffer, answers, self.started, output = state
        self.answers = list(answers)
        self.output = {kind: list(data) for kind, data in output.items()}
        self.last_heard = time.monotonic()
        self.pinged = False

    def kernel_log(self):
        """What the kernel has printed so far."""
        return self._text('kernel.log').replace('\r\n', '\n')

    def qemu_log(self):
        """What QEMU has said so far, and the events that it was to trace."""
        return self._text('qemu.err')

    # ---- starting QEMU ----

    def _path(self, name):
        return os.path.join(self.scratch, name)

    def _text(self, name):
        """What a log has so far."""
        try:
            with open(self._path(name), encoding='utf-8',
                      errors='replace') as file:
                return file.read()
        except OSError:
            return ''

    def _make_initrd(self, image):
        """The image's first root, followed by what belongs to this boot."""
        path = self._path('initrd')
        with open(path, 'wb') as file:
            with open(image.base, 'rb') as base:
                shutil.copyfileobj(base, file)
            cpio = CpioWriter(file)
            cpio.add_file('init', programs.agent())
            for source in self.options.files:
                try:
                    cpio.add_file(f'add/{os.path.basename(source)}', source)
                except OSError as error:
                    raise GuestError(f'{source}: {error.strerror}') from error
            cpio.close()
        return path

    def _command(self, image, initrd, line, control):
        options = self.options
        command = [options.qemu or qemu_binary()]
        for folder in filter(os.path.isdir, FIRMWARE):
            command += ['-L', folder]
        command += [
            '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
            '-machine', 'pc', '-accel', options.accel, '-cpu', options.cpu,
            '-smp', str(options.smp), '-m', options.memory,
            '-kernel', image.kernel, '-initrd', initrd,
            '-append', ' '.join((*KERNEL_ARGUMENTS, *options.append)),
            '-chardev', f'file,id=log,path={commas(self._path("kernel.log"))}',
            '-serial', 'chardev:log',
            '-chardev', f'socket,id=line,fd={line}', '-serial', 'chardev:line',
            '-chardev', f'socket,id=control,fd={control}',
            '-mon', 'chardev=control,mode=control']
        if options.qmp:
            command += ['-qmp', f'unix:{commas(options.qmp)},server=on,wait=off']
        return command + list(options.qemu_args)

    # ---- talking to the agent ----

    def _stage(self, data):
        for start in range(0, len(data), SEND_CHUNK):
            self._request(b'D', data[start:start + SEND_CHUNK])

    def _request(self, kind, payload=b''):
        self.line.send(kind, payload)
        self._await(b'A', time.monotonic() + COMMAND_TIMEOUT, 'answering')

    def _await(self, wanted, deadline, doing):
        """The payload of the wanted answer."""
        while True:
            for index, (kind, payload) in enumerate(self.answers):
                if kind == wanted:
                    del self.answers[index]
                    return payload
                if kind == b'F':
                    del self.answers[index]
                    raise GuestError(payload.decode(errors='replace'))
            self._pump(deadline, doing)

    def _answer(self, deadline, doing):
        """The next answer, whatever it is, but the end of a command."""
        while True:
            for index, (kind, payload) in enumerate(self.answers):
                if kind == b'F':
                    del self.answers[index]
                    raise GuestError(payload.decode(errors='replace'))
                if kind != b'Q':
                    return self.answers.pop(index)
            self._pump(deadline, doing)

    def _pump(self, deadline, doing):
        """Waits for something to arrive and takes it in."""
        now = time.monotonic()
        if now > deadline:
            raise GuestTimeout(self._with_log(
                f'the guest is still {doing}; given up'))
        wait = min(deadline - now, PING_AFTER)
        if select.select([self.line.sock], [], [], max(wait, 0.01))[0]:
            if not self.line.receive():
                raise self._death()
            self.last_heard = time.monotonic()
            self._dispatch()
        else:
            self._look_for_stall(doing)

    def _dispatch(self):
        for kind, payload in self.line.frames():
            if kind in self.output:
                self.output[kind].append(payload)
                if self.on_output:
                    self.on_output(kind, payload)
            elif kind == b'L':
                self.pinged = False
            else:
                self.answers.append((kind, payload))

    # ---- when things go wrong ----

    def _look_for_stall(self, doing):
        try:
            status = self.monitor.status()
        except QmpError as error:
            if self.process.poll() is not None:
                raise self._death() from error
            raise GuestError(self._with_log(
                f'QEMU hangs: its monitor says nothing while {doing}')
                ) from error
        if status != 'running':
            self.last_heard = time.monotonic()      # paused: no stall
            return
        if doing != 'booting' and not self.pinged:
            self.line.send(b'I')
            self.pinged = True
        silence = time.monotonic() - self.last_heard
        if silence > STALL_AFTER and doing != 'booting':
            raise GuestError(self._with_log(
                f'the guest has stalled: no sign of life for {silence:.0f} s '
                f'while {doing}'))

    def _death(self):
        """The error that says why the connection ended."""
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            return GuestError(self._with_log('QEMU closed the guest\'s line'))
        panic = re.findall(r'Kernel panic - not syncing: (.*)',
                           self.kernel_log())
        if status:
            return GuestError(self._with_log(self._qemu_failure(status)))
        if panic:
            return GuestError(self._with_log(
                f'the guest\'s kernel panicked: {panic[0]}'))
        reasons = [event['data'].get('reason') for event
                   in self.monitor.drain_events()
                   if event['event'] == 'SHUTDOWN']
        return GuestError(self._with_log(
            ENDINGS.get(reasons[0] if reasons else None,
                        f'the guest ended: {reasons}')))

    def _qemu_failure(self, status):
        """QEMU's own words, without its warnings about missing features."""
        how = (f'was killed by signal {-status}' if status < 0
               else f'ended with status {status}')
        lines = [line.strip() for line in self.qemu_log().splitlines()
                 if 'warning:' not in line]
        return '\n'.join([f'QEMU {how}', *lines[-5:]])

    def _with_log(self, text):
        """The text, the log's tail, and where the whole log is kept."""
        log = self.kernel_log()
        if not log:
            return text
        folder = os.path.join(images.BUILD, 'guest', 'logs')
        os.makedirs(folder, exist_ok=True)
        kept = os.path.join(folder, f'kernel-{self.process.pid}.log')
        with contextlib.suppress(OSError):
            shutil.copy(self._path('kernel.log'), kept)
        tail = ''.join(f'    {line}\n' for line in log.splitlines()[-12:])
        return f'{text}\nThe kernel\'s log ({kept}) ends with:\n{tail}'.rstrip()
