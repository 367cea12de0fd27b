# SPDX-License-Identifier: GPL-2.0-or-later
"""What it costs QEMU to find out what KVM offers.

query-pebs-capabilities asks what each vCPU asks as it is made. On the model of
/dev/kvm, so that this can be measured anywhere: the kernel's own share, a dozen
system calls, is not in it.
"""

import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))),
                                'tests', 'kvm'))

import model                                                # noqa: E402

HOST = 'icelake-6.12'
QUERIES = 200


def microseconds(machine, command):
    start = time.perf_counter()
    for _ in range(QUERIES):
        machine.qmp.execute(command)
    return (time.perf_counter() - start) / QUERIES * 1e6


def measure(times):
    """Microseconds, above a query that asks nothing"""
    with tempfile.TemporaryDirectory(prefix='negotiation-') as folder, \
            model.Machine(folder, '-machine', 'none', host=HOST) as machine:
        return [microseconds(machine, 'query-pebs-capabilities') -
                microseconds(machine, 'query-name') for _ in range(times)]
