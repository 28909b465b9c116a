"""Keys from a terminal, one at a time and without echo; the terminal is as before afterwards, whatever happens."""

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
ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
ESCAPE_WAIT = 0.05
"""Seconds within which the rest of an arrow key follows its escape."""


class Keys:
    """The keyboard, and a bell that other threads and signals ring to end a wait."""

    def __init__(self) -> None:
        self._keyboard = sys.stdin.fileno()
        self._heard, self._bell = os.pipe()
        self._suspended = False
        os.set_blocking(self._bell, False)
        os.set_blocking(self._heard, False)

    @contextmanager
    def open(self) -> Generator[None]:
        """Take single keys until the end of the block; SIGTERM, SIGHUP and SIGQUIT end it as an exception does."""
        before = termios.tcgetattr(self._keyboard)
        handlers = {number: signal.signal(number, _end) for number in ENDS}
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
            os.write(self._bell, b"!")
        except BlockingIOError:
            return  # it rings already

    def wait(self, timeout: float) -> list[str]:
        """The keys pressed by the time that one is pressed, the bell rings, or `timeout` seconds are over."""
        ready, _, _ = select.select([self._keyboard, self._heard], [], [], max(0.0, timeout))
        if self._heard in ready:
            os.read(self._heard, 4096)
        if self._suspended:
            self._suspended = False
            return ["suspend"]
        if self._keyboard not in ready:
            return []
        data = os.read(self._keyboard, 4096)
        if not data:
            return ["q"]  # the terminal is gone
        while data.endswith((b"\x1b", b"\x1b[", b"\x1bO")) and self._follows():
            data += os.read(self._keyboard, 4096)
        return parse(data.decode("utf-8", "ignore"))

    def _follows(self) -> bool:
        return bool(select.select([self._keyboard], [], [], ESCAPE_WAIT)[0])

    def _on_resize(self, _number: int, _frame: FrameType | None) -> None:
        self.wake()

    def _on_suspend(self, _number: int, _frame: FrameType | None) -> None:
        self._suspended = True
        self.wake()


def parse(text: str) -> list[str]:
    """Names of keys, and characters."""
    found: list[str] = []
    while text:
        if text[0] == "\x1b":
            known = next((code for code in ESCAPES if text.startswith(code, 1)), None)
            if known is not None:
                found.append(ESCAPES[known])
                text = text[1 + len(known) :]
                continue
        found.append(NAMED.get(text[0], text[0]))
        text = text[1:]
    return [key for key in found if len(key) > 1 or key.isprintable()]


def _end(number: int, _frame: Any) -> NoReturn:
    raise SystemExit(128 + number)
