"""Watch over the servers of a host: whether database and queue answer, and what is on the queue."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from sqlalchemy import select

from agentexec.config import Settings
from agentexec.db.transactions import reading
from agentexec.errors import UnavailableError
from agentexec.runtime import Runtime

log = logging.getLogger("agentexec.maintenance")

LOOK_SECONDS = 5.0
"""Seconds between two looks."""


class ServerWatch:
    """Thread of the maintenance process that asks both servers now and then, for probes and metrics.

    Threads: its own thread asks; any other may call `state`.
    """

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self._runtime = runtime
        self._queue = settings.queue_name
        self._answered_at: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-server-watch", daemon=True)

    def start(self) -> None:
        """Start the thread, which asks immediately."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread before its next look."""
        self._stop.set()

    def state(self) -> dict[str, Any]:
        """Return the seconds since each server's last answer."""
        now = time.monotonic()
        return {server: round(now - at, 1) for server, at in list(self._answered_at.items())}

    def _run(self) -> None:
        while True:
            self.look()
            if self._stop.wait(LOOK_SECONDS):
                return

    def look(self) -> None:
        """Ask both servers once."""
        for server, ask in (("database", self._ask_database), ("queue", self._ask_queue)):
            try:
                ask()
            except UnavailableError as error:
                log.debug("%s", error)
            except Exception:
                log.debug("Cannot ask the %s.", server, exc_info=True)
            else:
                self._answered_at[server] = time.monotonic()

    def _ask_database(self) -> None:
        with reading(self._runtime.engine) as connection:
            connection.execute(select(1))

    def _ask_queue(self) -> None:
        self._runtime.backend.is_intact(self._queue)
