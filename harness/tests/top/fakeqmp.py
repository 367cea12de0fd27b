# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP server that says what a test wants it to say."""

import contextlib
import json
import os
import socket
import threading
import time

GREETING = {'QMP': {'version': {'qemu': {'major': 11, 'minor': 1, 'micro': 1},
                                'package': ''}, 'capabilities': []}}
FIXED = 32


def counter(number, physical=..., fixed=False):
    """As query-pebs has one; it is on its own physical counter, unless..."""
    own = number + (FIXED if fixed else 0)
    told = {'counter': number, 'fixed': fixed}
    if physical is not None:
        told['physical'] = own if physical is ... else physical
    return told


def vcpu(index, path='idle', suspended=False, counters=(), records=(0, 0, 0)):
    told = {'cpu-index': index, 'qom-path': f'/machine/vcpu{index}',
            'path': path, 'suspended': suspended, 'source': 'tcg', 'format': 4,
            'baseline': True, 'counters': list(counters)}
    if records:
        told |= {f'{kind}-records': count for kind, count
                 in zip(('fast', 'slow', 'dropped'), records)}
    return told


class FakeQmp:
    """Serves one client after the other, until it is closed.

    `answers` holds a function for each command: what it returns is the answer,
    or an error if it raises one.
    """

    def __init__(self, folder, vcpus=(), greets=True):
        self.path = os.path.join(folder, 'qmp.sock')
        self.vcpus = list(vcpus)
        self.status = 'running'
        self.greets = greets
        self.asked = []                 # commands, in order
        self.answers = {'qmp_capabilities': dict,
                        'query-pebs': lambda: self.vcpus,
                        'query-status': lambda: {'status': self.status,
                                                 'running': True}}
        self.lock = threading.Lock()
        self.client = None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()

    def close(self):
        self.hang_up()
        # wakes the thread, which closing alone doesn't
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def hang_up(self):
        if self.client:
            with contextlib.suppress(OSError):
                self.client.shutdown(socket.SHUT_RDWR)

    def event(self, name, **data):
        """Before it has negotiated a client gets none, as with QEMU."""
        if 'qmp_capabilities' not in self.asked:
            return
        now = time.time()
        self._send({'event': name, 'data': data, 'timestamp': {
            'seconds': int(now), 'microseconds': int(now % 1 * 1e6)}})

    def change(self, index, path, suspended=False, announce=True, **more):
        """A vCPU's path changes, and is announced."""
        self.vcpus[index] = vcpu(index, path, suspended, **more)
        if announce:
            self.event('PEBS_PATH_CHANGED', **{
                'qom-path': f'/machine/vcpu{index}', 'cpu-index': index,
                'path': path, 'suspended': suspended})

    def wait_asked(self, command, times, timeout=20):
        """Until it has been asked that often."""
        deadline = time.monotonic() + timeout
        while self.asked.count(command) < times:
            if time.monotonic() > deadline:
                raise TimeoutError(f'{command}: {self.asked.count(command)} '
                                   f'times, not {times}')
            time.sleep(0.01)

    def _send(self, message):
        with self.lock, contextlib.suppress(OSError):
            self.client.sendall(json.dumps(message).encode() + b'\n')

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                self.client, _ = self.listener.accept()
                with self.client:
                    self._talk()

    def _talk(self):
        if self.greets:
            self._send(GREETING)
        with contextlib.suppress(OSError):
            for request in self._requests():
                self.asked.append(request['execute'])
                name = {'id': request['id']} if 'id' in request else {}
                self._send({**name, **self._answer(request['execute'])})

    def _requests(self):
        """Nothing but its syntax ends a request."""
        text = ''
        while data := self.client.recv(65536):
            text = (text + data.decode()).lstrip()
            with contextlib.suppress(json.JSONDecodeError):
                while text:
                    request, end = json.JSONDecoder().raw_decode(text)
                    text = text[end:].lstrip()
                    yield request

    def _answer(self, command):
        try:
            return {'return': self.answers[command]()}
        except KeyError:
            return {'error': {'class': 'CommandNotFound', 'desc':
                              f'The command {command} has not been found'}}
