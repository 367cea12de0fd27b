# SPDX-License-Identifier: GPL-2.0-or-later
"""A QMP client for one synchronous user on one socket."""

import json
import time


class QmpError(Exception):
    """QEMU refused a command, or doesn't answer."""


class Monitor:
    """Speaks QMP over a connected stream socket."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b''
        self.events = []
        self.ready = False

    def execute(self, command, timeout=60, **arguments):
        """The command's return value."""
        if not self.ready:
            self._receive(time.monotonic() + timeout)       # the greeting
            self.ready = True
            self._request('qmp_capabilities', {}, timeout)
        return self._request(command, arguments, timeout)

    def hmp(self, line, timeout=60):
        """Runs a line of the human monitor; what it prints is an error."""
        text = self.execute('human-monitor-command', timeout,
                            **{'command-line': line})
        if text.strip():
            raise QmpError(f'{line}: {text.strip()}')

    def status(self, timeout=20):
        return self.execute('query-status', timeout)['status']

    def wait_for(self, query, good, timeout=120):
        """Asks again and again; the first answer that is good."""
        deadline = time.monotonic() + timeout
        while True:
            answer = self.execute(query)
            if good(answer):
                return answer
            if time.monotonic() > deadline:
                raise QmpError(f'{query} keeps answering {answer}')
            time.sleep(0.05)

    def drain_events(self):
        """Takes in what has arrived; the peer may be gone by now."""
        try:
            while True:
                self._receive(time.monotonic() + 0.1)
        except (QmpError, OSError):
            pass
        return self.events

    def _request(self, command, arguments, timeout):
        message = {'execute': command, 'arguments': arguments}
        try:
            self.sock.sendall(json.dumps(message).encode() + b'\n')
        except OSError as error:
            raise QmpError('the monitor is closed') from error
        deadline = time.monotonic() + timeout
        while True:
            answer = self._receive(deadline)
            if 'error' in answer:
                raise QmpError(f'{command}: {answer["error"]["desc"]}')
            if 'return' in answer:
                return answer['return']

    def _receive(self, deadline):
        """The next message; events are kept aside as well."""
        while b'\n' not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise QmpError('QEMU does not answer')
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except TimeoutError as error:
                raise QmpError('QEMU does not answer') from error
            except OSError as error:
                raise QmpError('the monitor is closed') from error
            if not data:
                raise QmpError('the monitor is closed')
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        message = json.loads(line)
        if 'event' in message:
            self.events.append(message)
        return message
