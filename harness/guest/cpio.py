# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the archive format that Linux unpacks as its first root (newc)."""

import os
import stat

ALIGNMENT = 4
TRAILER = 'TRAILER!!!'


class CpioWriter:
    """Adds entries to a binary file object; `close` ends the archive."""

    def __init__(self, file):
        self.file = file
        self.inode = 0
        self.known = set()

    def add_directory(self, path):
        """Also adds the folders above it; adding one twice is fine."""
        path = path.strip('/')
        if not path or path in self.known:
            return
        self.add_directory(os.path.dirname(path))
        self._entry(path, stat.S_IFDIR | 0o755, b'')

    def add_bytes(self, path, data, mode=0o644):
        self._entry(path, stat.S_IFREG | mode, data)

    def add_file(self, path, source):
        """Copies `source`, with its mode."""
        with open(source, 'rb') as file:
            data = file.read()
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        self.add_bytes(path, data, mode)

    def add_link(self, path, target):
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def close(self):
        self._header(TRAILER, 0, 0, 1)
        # several archives may follow one another; each starts aligned
        self._pad()

    def _entry(self, path, mode, data):
        path = path.strip('/')
        self.add_directory(os.path.dirname(path))
        if path in self.known:
            raise ValueError(f'{path} is in the archive already')
        self.known.add(path)
        self._header(path, mode, len(data), 2 if stat.S_ISDIR(mode) else 1)
        self.file.write(data)
        self._pad()

    def _header(self, path, mode, size, links):
        self.inode += 1
        name = path.encode() + b'\0'
        fields = (self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0,
                  len(name), 0)
        self.file.write(b'070701'
                        + b''.join(b'%08x' % field for field in fields) + name)
        self._pad()

    def _pad(self):
        self.file.write(bytes(-self.file.tell() % ALIGNMENT))
