"""The pidfile: the number of the supervisor's process in a file, for scripts that send it signals."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from agentexec.errors import SettingsError, UsageError
from agentexec.worker.child_processes import process_start

MAX_BYTES = 64
TRIES = 10
"""Times that a file is opened which others replace meanwhile."""


class Pidfile:
    """A pidfile from the constructor to `close`. Without a file it does nothing.

    The file stays locked, so the system itself tells whether its holder lives. One that is left over is replaced, also if
    another program has its pid by now.
    """

    def __init__(self, file: Path | None) -> None:
        """Write the file. Raises SettingsError if that is impossible, UsageError if a living process has it."""
        self._file = file
        self._descriptor: int | None = None
        if file is None:
            return
        try:
            for _ in range(TRIES):
                if self._descriptor is None:
                    self._take(file)
        except OSError as error:
            raise SettingsError(f"Cannot write AGENTEXEC_PIDFILE {file} ({error.strerror}).") from None

    def close(self) -> None:
        """Remove the file, unless somebody has put another one there."""
        if self._file is None or self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if _is_at(self._descriptor, self._file):
                self._file.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def _take(self, file: Path) -> None:
        # Links are not followed: in a folder like /tmp somebody else may have put one there.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with contextlib.suppress(BlockingIOError, PermissionError):
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_at(descriptor, file):
                    return  # removed by its holder a moment ago
                _refuse_foreign(descriptor, file)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                self._descriptor, descriptor = descriptor, -1
                return
            raise _held_by(_read(descriptor), file)
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _is_at(descriptor: int, file: Path) -> bool:
    """Return True if a path leads to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _refuse_foreign(descriptor: int, file: Path) -> None:
    """Raise UsageError if a file without a lock names a process that lives: another program may have written it."""
    pid = _read(descriptor)
    if pid in (None, os.getpid()):
        return
    started = process_start(pid)
    if started is not None and started <= os.fstat(descriptor).st_mtime + 1.0:
        raise _held_by(pid, file)


def _held_by(pid: int | None, file: Path) -> UsageError:
    who = "another process" if pid is None else f"process {pid}"
    return UsageError(
        f"The pidfile {file} belongs to {who}, which runs; stop that one, or use another --pidfile."
    )


def _read(descriptor: int) -> int | None:
    """Return the pid in a file, None if there is none."""
    text = os.pread(descriptor, MAX_BYTES, 0).decode(errors="replace").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
