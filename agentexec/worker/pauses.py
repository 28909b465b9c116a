"""Pauses: the queues of a worker process that are paused, as the record has them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from sqlalchemy import Engine

from agentexec.activity.queries.pauses import paused_names
from agentexec.db.recurring import Recurring

log = logging.getLogger("agentexec.worker")


class Pauses:
    """The paused queues among those that a worker process serves.

    Threads: any thread may call any method. The mailbox's thread refreshes, when it is told and every few seconds; the
    thread that claims asks.

    Args:
        queues: Names of the queues that the process serves.
    """

    def __init__(self, engine: Engine, queues: Sequence[str]) -> None:
        self._query = Recurring(engine, paused_names(engine.dialect.name))
        self._values = {"queues": list(queues)}
        self._paused: frozenset[str] | None = None
        self._changed = threading.Condition()

    def refresh(self) -> None:
        """Read the record. Raises UnavailableError."""
        paused = frozenset(name for (name,) in self._query.read(self._values))
        with self._changed:
            before, self._paused = self._paused or frozenset(), paused
            if paused != before:
                self._changed.notify_all()
        for queue in sorted(paused - before):
            log.info("Queue %s is paused: its tasks are not claimed until it is resumed.", queue)
        for queue in sorted(before - paused):
            log.info("Queue %s is resumed.", queue)

    def paused(self) -> frozenset[str]:
        """Return the names of the paused queues. The first call reads the record, and may raise UnavailableError."""
        if self._paused is None:
            self.refresh()
        return self._paused or frozenset()

    def wait_for_change(self, known: frozenset[str], timeout: float) -> None:
        """Wait until other queues than `known` are paused, or for `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: known != self._paused, timeout)
