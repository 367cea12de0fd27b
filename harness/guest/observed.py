# SPDX-License-Identifier: GPL-2.0-or-later
"""What query-pebs and query-stats tell of the vCPUs, in handier shapes."""

FIXED = 32              # the first fixed counter's bit in IA32_PERF_GLOBAL_CTRL
KINDS = ('fast', 'slow', 'dropped')


def path(entry):
    """Of an entry of query-pebs, (path, suspended)"""
    return entry['observed']['path'], entry['observed']['suspended']


def bit(counter):
    """In IA32_PERF_GLOBAL_CTRL; None for none"""
    return counter and counter['index'] + FIXED * (counter['type'] == 'fixed')


def counters(entry):
    """{guest's counter: physical one}, of those that are active"""
    return {bit(c['counter']): bit(c.get('physical')) for c in entry['observed']['counters']}


def records(query):
    """[{kind: records}] by vCPU; `query` is a monitor's function to ask with."""
    stats = {e['qom-path']: {s['name']: s['value'] for s in e['stats']}
             for e in query('query-stats', target='vcpu', providers=[{'provider': 'pebs'}])}
    vcpus = sorted(query('query-pebs'), key=lambda v: v['cpu-index'])
    return [{kind: stats[v['qom-path']][f'pebs_{kind}_records'] for kind in KINDS}
            for v in vcpus]
