"""Messages to systemd: that the workers serve, that the supervisor lives, and that it stops."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

NOTIFY_VARIABLE = "NOTIFY_SOCKET"
"""Variable with the address of the service manager."""


class ServiceManager:
    """The service manager that started this process, if it is one that wants messages (`Type=notify`).

    The variables are taken out of the environment: processes that the workers start must not speak for this one.

    Args:
        environment: Environment of the process.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop(NOTIFY_VARIABLE, "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        micros = environment.pop("WATCHDOG_USEC", "")
        is_ours = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval = int(micros) / 2_000_000 if micros.isdigit() and is_ours else 0.0
        self._next = 0.0
        self._status = ""

    @property
    def listens(self) -> bool:
        """True if there is a service manager that wants messages."""
        return bool(self._address)

    def tell(self, *lines: str) -> None:
        """Send lines such as READY=1. A service manager that cannot be reached is left alone."""
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto("\n".join(lines).encode(), self._address)

    def beat(self, status: str) -> None:
        """Say that the supervisor's loop turns, as often as is asked for, and what it does if that has changed."""
        now = time.monotonic()
        lines = []
        if self._interval and now >= self._next:
            self._next = now + self._interval
            lines.append("WATCHDOG=1")
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if lines:
            self.tell(*lines)
