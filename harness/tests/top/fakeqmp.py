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


def counter(number, physical=..., fixed=False, state=None):
    """As query-pebs has one; it is on its own physical counter, unless..."""
    own = {'type': 'fixed' if fixed else 'gp', 'index': number}
    if physical is ...:
        return {'counter': own, 'physical': own, 'state': state or 'sampling'}
    if physical is None:
        return {'counter': own, 'state': state or 'no-counter'}
    return {'counter': own, 'physical': {'type': 'gp', 'index': physical},
            'state': state or 'cross-mapped'}


def observed(path='idle', suspended=False, counters=(), entries=None):
    """A member that isn't there where there is nothing to observe"""
    if path in ('off', 'unknown'):
        return {}
    told = {'source': 'tcg' if entries is None else 'kvm-helper', 'path': path,
            'suspended': suspended, 'counters': list(counters)}
    return {'observed': told if entries is None
            else {**told, 'entries': entries[0]}}


def vcpu(index, path='idle', suspended=False, counters=(), records=(0, 0, 0),
         entries=None):
    """What query-pebs has, and as «stats» what query-stats has"""
    told = {'cpu-index': index, 'qom-path': f'/machine/vcpu{index}',
            'enabled': path != 'off',
            **observed(path, suspended, counters, entries)}
    if told['enabled']:
        told |= {'format': 4, 'baseline': True}
    names, values = (('fast_records', 'slow_records', 'dropped_records'),
                     records) if entries is None else (
        ('entries', 'active_entries', 'suspended_entries'), entries)
    told['stats'] = {f'pebs_{name}': value for name, value
                     in zip(names, values)} if 'observed' in told else {}
    return told


class FakeQmp:
    """Serves one client after the other, until it is closed.

    `answers` holds a function for each command: what it returns is the answer,
    or an error if it raises one.
    """

    def __init__(self, folder, vcpus=(), greets=True):
        self.path = os.path.join(folder, 'qmp.sock')
        self.vcpus = list(vcpus)
        self.told = []                  # to query-pebs, last
        self.status = 'running'
        self.greets = greets
        self.asked = []                 # commands, in order
        self.answers = {'qmp_capabilities': dict,
                        'query-pebs': lambda: self.vcpus,
                        'query-stats': lambda: self.told,
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
                **observed(path, suspended, more.get('counters', ()),
                           more.get('entries'))})

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
                self._send({**name, **self._shaped(
                    request['execute'], self._answer(request['execute']))})

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

    def _shaped(self, command, answer):
        """Statistics stand in an answer of their own, and match the other."""
        if command == 'query-pebs' and 'return' in answer:
            self.told = answer['return']
            return {'return': [{k: v for k, v in told.items() if k != 'stats'}
                               for told in self.told]}
        if command == 'query-stats' and 'return' in answer:
            return {'return': [
                {'provider': 'pebs', 'qom-path': told['qom-path'],
                 'stats': [{'name': name, 'value': value}
                           for name, value in told['stats'].items()]}
                for told in reversed(answer['return']) if told['stats']]}
        return answer

    def _answer(self, command):
        try:
            return {'return': self.answers[command]()}
        except KeyError:
            return {'error': {'class': 'CommandNotFound', 'desc':
                              f'The command {command} has not been found'}}
