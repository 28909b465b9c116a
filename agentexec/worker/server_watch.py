"""Watch over the servers of a host: whether database and queue answer, and what is on the queue."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from sqlalchemy import select

from agentexec.activity.models import Activity
from agentexec.activity.queries.overview import oldest_queued
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading
from agentexec.errors import UnavailableError
from agentexec.runtime import Runtime
from agentexec.telemetry.names import OUTAGES

log = logging.getLogger("agentexec.maintenance")

LOOK_SECONDS = 5.0
"""Seconds between two looks."""


COUNT_SHARE = 20
"""Inverse of the share of time that counting may take."""


class ServerWatch:
    """Thread of the maintenance process that asks both servers now and then, for probes and metrics.

    With a meter in the runtime it also counts the queues and the outages.

    Threads: its own thread asks; any other may call `state`.
    """

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self._runtime = runtime
        self._queues = [queue.name for queue in settings.served_queues]
        self._answered_at: dict[str, float] = {}
        self._away: set[str] = set()
        self._depth: dict[str, Any] = {}
        self._next_count = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-server-watch", daemon=True)

    def start(self) -> None:
        """Start the thread, which asks immediately."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread before its next look."""
        self._stop.set()

    def state(self) -> dict[str, Any]:
        """Return the seconds since each server's last answer, and the latest counts of the queues."""
        now = time.monotonic()
        ages = {server: round(now - at, 1) for server, at in list(self._answered_at.items())}
        return {**ages, **self._depth}

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
            except Exception as error:
                if not isinstance(error, UnavailableError):
                    log.debug("Cannot ask the %s.", server, exc_info=True)
                self._note_outage(server)
            else:
                self._away.discard(server)
                self._answered_at[server] = time.monotonic()
        if self._runtime.meter is not None and not self._away and time.monotonic() >= self._next_count:
            self._count()

    def _note_outage(self, server: str) -> None:
        if server not in self._away and self._runtime.meter is not None:
            self._runtime.meter.add(OUTAGES, server)
        self._away.add(server)

    def _count(self) -> None:
        """Count the tasks of the queues. The database may need a while for many tasks, and is then asked less often."""
        began = time.monotonic()
        try:
            depth = {queue: self._runtime.backend.depth(queue)._asdict() for queue in self._queues}
            oldest = {queue: self._oldest_age(queue) for queue in self._queues}
        except Exception:
            log.debug("Cannot count the tasks of the queues.", exc_info=True)
            return
        self._depth = {"depth": depth, "oldest": oldest}
        self._next_count = time.monotonic() + (time.monotonic() - began) * COUNT_SHARE

    def _oldest_age(self, queue: str) -> float:
        now = utc_now()
        with reading(self._runtime.engine) as connection:
            created = connection.execute(oldest_queued(now, [Activity.queue == queue])).scalar()
        return 0.0 if created is None else max(0.0, (now - created).total_seconds())

    def _ask_database(self) -> None:
        with reading(self._runtime.engine) as connection:
            connection.execute(select(1))

    def _ask_queue(self) -> None:
        self._runtime.backend.is_intact(self._queues[0])
