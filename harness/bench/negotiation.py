# SPDX-License-Identifier: GPL-2.0-or-later
"""What it costs QEMU to find out what KVM offers.

query-pebs-capabilities makes a CPU of each model and asks what a vCPU asks as it is made;
query-cpu-definitions makes one of each, too. On the model of /dev/kvm, so that this can be
measured anywhere: the kernel's own share, a dozen system calls for each, is not in it.
"""

import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))),
                                'tests', 'kvm'))

import model                                                # noqa: E402

HOST = 'icelake-6.12'
QUERIES = 20


def seconds(machine, command):
    start = time.perf_counter()
    for _ in range(QUERIES):
        machine.qmp.execute(command)
    return (time.perf_counter() - start) / QUERIES


def measure(times):
    """How many times what query-cpu-definitions takes"""
    with tempfile.TemporaryDirectory(prefix='negotiation-') as folder, \
            model.Machine(folder, '-machine', 'none', host=HOST) as machine:
        return [seconds(machine, 'query-pebs-capabilities') /
                seconds(machine, 'query-cpu-definitions') for _ in range(times)]
