"""Index repair: the state backend learns of tasks, and of answers to tasks, that only the record knows."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, bindparam, select

from agentexec.activity.models import Activity
from agentexec.config import Settings
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading
from agentexec.journal.wake_ups import WAIT_KINDS, mark_woken, tasks_to_wake
from agentexec.runtime import Runtime
from agentexec.task import Entry, Priority, Status

log = logging.getLogger("agentexec.reconciler")

PUSH_GRACE = 2.0
"""Seconds after which an accepted task that the index does not know counts as never pushed."""

OVERLAP = 60.0
"""Seconds by which each look at recent tasks reaches back beyond the last one, as transactions commit late."""

FULL_SWEEP_SHARE = 20
"""Inverse of the share of time spent on looks at every open task: at most a twentieth."""

_OPEN = select(
    Activity.agent_id,
    Activity.status,
    Activity.priority,
    Activity.run_at,
    Activity.epoch,
    Activity.created_at,
).where(Activity.queue == bindparam("queue"))


class IndexRepair:
    """Pushes the tasks of one queue that its index lacks."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self._runtime = runtime
        self._queue = settings.queue_name
        self._lease_seconds = settings.lease_seconds
        self._swept_until: datetime | None = None
        self._next_full_sweep = 0.0

    def reset(self) -> None:
        """Forget what was looked at: another host led until now."""
        self._swept_until, self._next_full_sweep = None, 0.0

    def rebuild_if_emptied(self) -> None:
        """Push every open task if the index was emptied. Raises UnavailableError."""
        if self._runtime.backend.is_intact(self._queue):
            return
        number = self._push_unknown(Activity.created_at <= utc_now())
        self._runtime.backend.mark_intact(self._queue)
        if number:
            log.warning(
                "The state backend had lost queue %s; restored %d task(s) from the database.",
                self._queue,
                number,
            )

    def push_lost(self, clock: float) -> None:
        """Push tasks whose push was lost: looks at recent ones each time, and at all of them now and then.

        `clock` is monotonic. Raises UnavailableError.
        """
        until = utc_now() - timedelta(seconds=PUSH_GRACE)
        if clock >= self._next_full_sweep:
            began = time.monotonic()
            self._push_unknown(Activity.created_at <= until)
            took = time.monotonic() - began
            self._next_full_sweep = clock + max(self._lease_seconds / 2, took * FULL_SWEEP_SHARE)
        elif self._swept_until is not None:
            self._push_unknown(and_(Activity.created_at > self._swept_until, Activity.created_at <= until))
        self._swept_until = until - timedelta(seconds=OVERLAP)

    def wake_answered(self) -> None:
        """Make tasks ready whose answer or event came from a process that could not tell the queue.

        Raises UnavailableError.
        """
        engine = self._runtime.engine
        before = utc_now() - timedelta(seconds=PUSH_GRACE)
        for kind in WAIT_KINDS:
            while agent_ids := tasks_to_wake(engine, kind, self._queue, before, CHUNK_SIZE):
                self._runtime.backend.make_ready(self._queue, agent_ids)
                mark_woken(engine, kind, agent_ids)

    def _push_unknown(self, condition: Any) -> int:
        """Bring the open tasks that match into the index if it lacks them, and return the number it lacked."""
        number = 0
        for status in (Status.RUNNING, Status.QUEUED):
            query = _OPEN.where(Activity.status == status, condition).order_by(
                Activity.created_at, Activity.agent_id
            )
            last: Any = None
            while True:
                page = query.limit(CHUNK_SIZE)
                if last is not None:
                    page = page.where(
                        (Activity.created_at > last.created_at)
                        | and_(Activity.created_at == last.created_at, Activity.agent_id > last.agent_id)
                    )
                with reading(self._runtime.engine) as connection:
                    rows = connection.execute(page, {"queue": self._queue}).all()
                number += self._restore_unknown(status, rows)
                if len(rows) < CHUNK_SIZE:
                    break
                last = rows[-1]
        return number

    def _restore_unknown(self, status: Status, rows: Sequence[Any]) -> int:
        if not rows:
            return 0
        backend = self._runtime.backend
        unknown: set[UUID] = set(backend.unknown_tasks(self._queue, [row.agent_id for row in rows]))
        entries = [_entry(row) for row in rows if row.agent_id in unknown]
        if not entries:
            return 0
        if status is Status.RUNNING:
            # If its worker lives, that renews the lease; if not, the lease expires.
            backend.restore(self._queue, entries, self._lease_seconds)
        else:
            backend.push(self._queue, entries)
            backend.wake(self._queue, len(entries))
        return len(entries)


def _entry(row: Any) -> Entry:
    run_at = row.run_at.timestamp() if row.run_at else 0.0
    return Entry(row.agent_id, Priority(row.priority), run_at, row.epoch)
