# SPDX-License-Identifier: GPL-2.0-or-later
"""The test guest as a domain of libvirt's, with perf in it.

Its second serial port is connected to a socket of ours, by each QEMU that runs
it: after a restore or a migration the next one in the queue is its new line.
"""

import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

HARNESS = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(HARNESS / 'guest'), str(HARNESS / 'tests/guest')]

import common                                                   # noqa: E402
import guestlib                                                 # noqa: E402
import images                                                   # noqa: E402
import perf                                                     # noqa: E402
from relay import Relay                                         # noqa: E402

MEMORY = 512
PERIOD = 1000003
ROUNDS = 2_000_000_000
BOOT = 600   # seconds; on a busy machine all takes long
DEVICES = '''
    <serial type='file'><source path='{log}'/><target port='0'/></serial>
    <serial type='unix'><source mode='connect' path='{line}'/><target port='1'/></serial>
'''
DIRECT_BOOT = '''
    <kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{cmdline}</cmdline>
'''


def prepare():
    """Makes the image that a Sampler boots: that takes the network, which an island has not."""
    images.image(guestlib.Options.kernel)


class Sampler(guestlib.Guest):
    """Only libvirt starts and ends its QEMU."""

    def __init__(self):
        self.relay = Relay(ROUNDS)
        super().__init__(files=[self.relay.program, common.program('alone')], timeout=900)
        self.scratch = tempfile.mkdtemp(prefix='sampler-')
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self._path('line'))
        self.server.listen()
        self.server.settimeout(BOOT)

    def parts(self):
        """What a domain needs of it: (children of <os>, devices)."""
        image = images.image(self.options.kernel)
        self.release = image.release
        boot = DIRECT_BOOT.format(kernel=image.kernel, initrd=self._make_initrd(image),
                                  cmdline=' '.join(guestlib.KERNEL_ARGUMENTS))
        return boot, DEVICES.format(log=self._path('kernel.log'), line=self._path('line'))

    def connect(self):
        """To the QEMU that has just been started."""
        buffer = self.line.buffer if self.line else b''
        self.line = guestlib.Line(self.server.accept()[0])
        self.line.buffer = buffer

    def boot(self):
        self.connect()
        self._await(b'H', time.monotonic() + BOOT, 'booting')
        self.unthrottle()

    def follow(self):
        """To the next QEMU, after all that the last one has sent."""
        while self.line.receive():
            pass
        self._dispatch()
        self.line.sock.close()
        self.connect()

    def record(self):
        """Begins to sample on CPU 0; there is work for minutes."""
        self.begin(['taskset', '1', 'alone', *perf.RECORD, '-c', str(PERIOD), '-e',
                    'instructions:uppp', '--', self.relay.name])

    def samples(self):
        """Ends it. (addresses of the samples, addresses that there should be)"""
        self.kill(signal.SIGINT)
        self.finish()
        found = perf.addresses(self)
        return found, self.relay.samples(PERIOD)[:len(found)]

    def close(self):
        self.server.close()
        if self.line:
            self.line.sock.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _look_for_stall(self, doing):
        """A deadline will do: libvirt has the monitor."""

    def _death(self):
        return guestlib.GuestError(self._with_log('QEMU has closed the guest\'s line'))

    def _with_log(self, text):
        tail = ''.join(f'    {line}\n' for line in self.kernel_log().splitlines()[-12:])
        return f'{text}\nThe kernel\'s log ends with:\n{tail}'.rstrip()
