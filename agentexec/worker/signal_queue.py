"""Signals of the supervisor: a handler only notes the signal and wakes the loop, which acts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

CODE_CHANGED = -1
"""Stands for a change of the user's code among the signals."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Signals that stop the worker; a second one of them stops it immediately."""

HANDLED_SIGNALS = (*STOP_SIGNALS, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


class Terminal:
    """The terminal that this process was started from, if any: its end comes as the SIGHUP that also means "reload"."""

    def __init__(self) -> None:
        self._is_there = _has_terminal()
        self._survives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        """Started by `nohup`."""

    def has_closed(self) -> bool:
        """Return True, once, if the terminal is gone and this process is to end with it."""
        gone = self._is_there and not _has_terminal()
        self._is_there = self._is_there and not gone
        return gone and not self._survives


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


class SignalQueue:
    """Signals that have arrived and are not handled yet. Readable, for selectors, when one arrives.

    Threads: `put` may be called from any thread and from signal handlers; the supervisor's loop calls the rest.
    """

    def __init__(self) -> None:
        self._arrived: deque[int] = deque()
        self._before: dict[int, Any] = {}
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)

    def install(self) -> None:
        """Handle the process's signals, until `restore`."""
        for number in HANDLED_SIGNALS:
            self._before[number] = signal.signal(number, lambda received, _frame: self.put(received))
        # The program before this one in the same process has left to it what came meanwhile.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)

    def restore(self) -> None:
        """Give the signals back to their handlers from before `install`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def put(self, number: int) -> None:
        """Note a signal, and wake the loop."""
        self._arrived.append(number)
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    def take(self) -> Iterator[int]:
        """Yield the signals that have arrived, oldest first."""
        while self._arrived:
            yield self._arrived.popleft()

    def fileno(self) -> int:
        """Return the file descriptor, for selectors."""
        return self._wake_read.fileno()

    def clear_wake_up(self) -> None:
        """Read what woke the loop, so that it can sleep again."""
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(65536)
