# SPDX-License-Identifier: GPL-2.0-or-later
"""What is in a migration stream."""


def after_memory(stream):
    """What comes from the first device on: which page is sent when is a matter of time"""
    return stream[stream.rindex(b'\x05timer') - 5:]
