# SPDX-License-Identifier: GPL-2.0-or-later
"""A qemu-pebs-helper whose reports the test makes: it has no BPF program."""

import os
import re
import subprocess
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent.parent
BUILD = Path(os.environ.get('BUILD_DIR') or TOP / 'build')
FAKE = Path(os.environ.get('PEBS_HELPER_FAKE') or BUILD / 'qemu/tools/i386/qemu-pebs-helper-fake')
PATIENCE = 20           # seconds: the machine may be busy


def until(what, condition, patience=PATIENCE):
    """The condition's value, once it is true."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f'{what}: not in {patience} s'
        time.sleep(0.02)
    return value


class Helper:
    """A qemu-pebs-helper whose reports the test makes. Use with «with»."""

    def __init__(self, folder, refuses=None, path=None):
        assert FAKE.exists(), f'{FAKE} is missing: run ./run build'
        self.socket = str(path or folder / 'helper.sock')
        self.log_path, self.fifo = folder / 'helper.log', folder / 'helper.fifo'
        self.log_path.unlink(missing_ok=True)
        if not self.fifo.exists():
            os.mkfifo(self.fifo)
        self.environment = {**os.environ, 'PEBS_FAKE_LOG': str(self.log_path),
                            'PEBS_FAKE_FIFO': str(self.fifo)}
        if refuses:
            self.environment['PEBS_FAKE_REFUSES'] = refuses

    def __enter__(self):
        Path(self.socket).unlink(missing_ok=True)
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen([FAKE, '--socket', self.socket], env=self.environment,
                                        stdin=subprocess.DEVNULL)
        until('the helper listens', lambda: self.process.poll() is None and
              Path(self.socket).exists())
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0, 'the helper failed'

    @property
    def log(self):
        return self.log_path.read_text(encoding='utf-8').splitlines()

    def wait_log(self, pattern, times=1):
        return until(f'«{pattern}» in {self.log}',
                     lambda: len(found := [l for l in self.log if re.fullmatch(pattern, l)])
                     >= times and found)

    def report(self, thread, word):
        with open(self.fifo, 'w', encoding='utf-8') as fifo:
            fifo.write(f'{thread} {word:#x}\n')
