"""Keys read from a terminal, one at a time and without echo. The terminal is restored afterwards, whatever happens."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

ESCAPES = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "OA": "up",
    "OB": "down",
    "OC": "right",
    "OD": "left",
    "[5~": "page up",
    "[6~": "page down",
    "[H": "home",
    "[F": "end",
    "[1~": "home",
    "[4~": "end",
}
NAMED = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x1b": "escape", "\x03": "q"}
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
ESCAPE_SECONDS = 0.05
"""Seconds within which the rest of an arrow key follows its escape character."""


class Keys:
    """The keyboard, and a pipe through which other threads and signals end the wait for a key."""

    def __init__(self) -> None:
        self._keyboard = sys.stdin.fileno()
        self._wake_read, self._wake_write = os.pipe()
        self._suspended = False
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)

    @contextmanager
    def open(self) -> Generator[None]:
        """Read single keys until the end of the block. SIGTERM, SIGHUP and SIGQUIT end it with an exception."""
        before = termios.tcgetattr(self._keyboard)
        handlers = {number: signal.signal(number, _end) for number in END_SIGNALS}
        handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._on_resize)
        handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._on_suspend)
        try:
            tty.setcbreak(self._keyboard)
            yield
        finally:
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, before)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def wake(self) -> None:
        """End the wait for a key."""
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            return  # the pipe is full, so the wait ends anyway

    def wait(self, timeout: float) -> list[str]:
        """Wait for a key, a wake or `timeout` seconds, and return the keys pressed until then."""
        ready, _, _ = select.select([self._keyboard, self._wake_read], [], [], max(0.0, timeout))
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        if self._suspended:
            self._suspended = False
            return ["suspend"]
        if self._keyboard not in ready:
            return []
        data = os.read(self._keyboard, 4096)
        if not data:
            return ["q"]  # the terminal is gone
        while data.endswith((b"\x1b", b"\x1b[", b"\x1bO")) and self._has_more():
            data += os.read(self._keyboard, 4096)
        return parse(data.decode("utf-8", "ignore"))

    def _has_more(self) -> bool:
        return bool(select.select([self._keyboard], [], [], ESCAPE_SECONDS)[0])

    def _on_resize(self, _number: int, _frame: FrameType | None) -> None:
        self.wake()

    def _on_suspend(self, _number: int, _frame: FrameType | None) -> None:
        self._suspended = True
        self.wake()


def parse(text: str) -> list[str]:
    """Split what the terminal sends into key names and characters."""
    keys: list[str] = []
    while text:
        if text[0] == "\x1b":
            code = next((code for code in ESCAPES if text.startswith(code, 1)), None)
            if code is not None:
                keys.append(ESCAPES[code])
                text = text[1 + len(code) :]
                continue
        keys.append(NAMED.get(text[0], text[0]))
        text = text[1:]
    return [key for key in keys if len(key) > 1 or key.isprintable()]


def _end(number: int, _frame: Any) -> NoReturn:
    raise SystemExit(128 + number)
