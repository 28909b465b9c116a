"""Notification of writes to a file by the kernel (Linux inotify), which the standard library does not offer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import sys
from pathlib import Path

IN_MODIFY = 0x2
IN_CREATE = 0x100
HEADER = struct.Struct("iIII")


class FileWatch:
    """Waits for writes to one file, which may be removed and created again, by watching its folder."""

    def __init__(self, descriptor: int, name: bytes) -> None:
        self._descriptor = descriptor
        self._name = name

    @classmethod
    def open(cls, path: Path) -> FileWatch | None:
        """Return a watch on a file, or None if the system does not support it."""
        if sys.platform != "linux":
            return None
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None, use_errno=True)
            descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if descriptor >= 0:
                folder = os.fsencode(path.parent)
                if libc.inotify_add_watch(descriptor, folder, IN_MODIFY | IN_CREATE) >= 0:
                    return cls(descriptor, os.fsencode(path.name))
                os.close(descriptor)
        return None

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a write in the folder. Return True if it was to the file."""
        ready, _, _ = select.select([self._descriptor], [], [], timeout)
        if not ready:
            return False
        with contextlib.suppress(BlockingIOError):
            events = os.read(self._descriptor, 65536)
            position = 0
            while position < len(events):
                _, _, _, length = HEADER.unpack_from(events, position)
                position += HEADER.size
                if events[position : position + length].rstrip(b"\0") == self._name:
                    return True
                position += length
        return False

    def close(self) -> None:
        """Close the watch."""
        os.close(self._descriptor)
