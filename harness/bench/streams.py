# SPDX-License-Identifier: GPL-2.0-or-later
"""What PEBS adds to a migration's stream."""

import json
import os
import struct
import tempfile

# what is in the stream for PEBS only: in each vCPU's state, and once
EACH = ('cpu/msr_ia32_misc_enable', 'cpu/msr_architectural_pmu', 'cpu/pebs')
BANDWIDTH = 4 << 30


class StreamError(Exception):
    """One line for the user."""


def description(stream):
    """What QEMU says at a stream's end of all that is in it."""
    with open(stream, 'rb') as file:
        data = file.read()
    start = max(data.rfind(b'{"%s"' % word)
                for word in (b'configuration', b'page_size'))
    size, = struct.unpack('>I', data[start - 4:start])
    return json.loads(data[start:start + size])


def field_bytes(field):
    return field['size'] * field.get('array_len', 1)


def subsection_bytes(section):
    """With its head: a mark, the name and its length, the version."""
    return 1 + 1 + len(section['vmsd_name']) + 4 \
        + sum(map(field_bytes, section['fields'])) \
        + sum(map(subsection_bytes, section.get('subsections', [])))


def added_bytes(stream):
    """For each vCPU, what a stream without PEBS doesn't have."""
    return [sum(subsection_bytes(section)
                for section in device.get('subsections', [])
                if section['vmsd_name'] in EACH)
            for device in description(stream)['devices']
            if device['name'] == 'cpu']


def migrate(guest, uri):
    """Sends the guest, which then goes on here."""
    guest.qmp('migrate-set-parameters', **{'max-bandwidth': BANDWIDTH})
    guest.qmp('migrate', uri=uri)
    answer = guest.monitor.wait_for(
        'query-migrate', lambda answer: answer.get('status')
        in ('completed', 'failed'))
    if answer['status'] != 'completed':
        raise StreamError(f'migration failed: {answer.get("error-desc")}')
    guest.resume()


def bytes_of(guest):
    """Bytes per vCPU of one stream of a guest that samples."""
    with tempfile.TemporaryDirectory(prefix='bench-') as folder:
        path = os.path.join(folder, 'stream')
        migrate(guest, f'file:{path}')
        return added_bytes(path)
