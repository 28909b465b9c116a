"""Move of a queue from one state backend to another, while producers run.

The queue is paused, so no worker of either backend claims its tasks. The record has every task: the new index is made from
it, and an entry leaves the old one only when the new one has the task. So the move may be killed anywhere, and begun again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import Engine, func, select

from agentexec.activity.models import Activity
from agentexec.config import Settings
from agentexec.db.chunks import chunks
from agentexec.db.transactions import reading
from agentexec.runtime import Runtime
from agentexec.state.backend import StateBackend
from agentexec.task import Status
from agentexec.worker.index_repair import IndexRepair
from agentexec.worker.lease_recovery import LeaseRecovery


class _Side(NamedTuple):
    """The record and one of the indexes, in the form in which the reconciler's parts take them."""

    engine: Engine
    backend: StateBackend


class Look(NamedTuple):
    """Result of one look at a queue that moves: entries that left the old index, and tasks that still run."""

    moved: int
    running: int


class QueueMove:
    """Move of one paused queue to another state backend.

    Args:
        engine: Engine of the record.
        source: The state backend that has the queue.
        target: The state backend that gets it.
        queue: Name of the queue.
    """

    def __init__(
        self, engine: Engine, source: StateBackend, target: StateBackend, queue: str, settings: Settings
    ) -> None:
        self._engine = engine
        self._source = source
        self._target = target
        self._queue = queue
        self._leases = LeaseRecovery(cast(Runtime, _Side(engine, source)), settings, queue)
        self._repair = IndexRepair(cast(Runtime, _Side(engine, target)), settings, queue)

    def look(self) -> Look:
        """Move the tasks that do not run. Raises UnavailableError."""
        # The old workers may all be dead: nobody else would give back what they ran.
        self._leases.return_expired(time.monotonic())
        self._repair.add_all()
        removed = 0
        for agent_ids in self._pages():
            leaving = self._leaving(agent_ids)
            self._source.remove(self._queue, leaving)
            removed += len(leaving)
        return Look(removed, self._running())

    def _pages(self) -> list[list[UUID]]:
        # All pages first: removals must not move the cursor.
        pages, cursor = [], ""
        while True:
            agent_ids, cursor = self._source.list_tasks(self._queue, cursor)
            pages.append(agent_ids)
            if not cursor:
                return pages

    def _leaving(self, agent_ids: Sequence[UUID]) -> list[UUID]:
        """Return the tasks that the old index may forget: not those that run, or that the new one lacks."""
        kept: set[UUID] = set()
        for chunk in chunks(agent_ids):
            query = select(Activity.agent_id, Activity.status).where(
                Activity.agent_id.in_(chunk), Activity.queue == self._queue
            )
            with reading(self._engine, by_key_only=True) as connection:
                status: dict[Any, Any] = {row.agent_id: row.status for row in connection.execute(query)}
            kept.update(agent_id for agent_id, found in status.items() if found is Status.RUNNING)
            queued = [agent_id for agent_id, found in status.items() if found is Status.QUEUED]
            kept.update(self._target.unknown_tasks(self._queue, queued))
        return [agent_id for agent_id in agent_ids if agent_id not in kept]

    def _running(self) -> int:
        query = select(func.count()).where(Activity.queue == self._queue, Activity.status == Status.RUNNING)
        with reading(self._engine) as connection:
            return connection.execute(query).scalar_one()
