"""The reconciler: makes the state backend agree with the record. One leader for each queue among all hosts.

It returns expired leases to the queue, pushes tasks whose push was lost, and rebuilds an emptied index.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, bindparam, delete, select
from sqlalchemy.orm import aliased

from agentexec.activity.changes.crashes import record_crashes
from agentexec.activity.models import Activity, ActivityResult, WorkerProcess
from agentexec.activity.queries import counts
from agentexec.activity.queries.overview import FORGET_SECONDS
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading, writing
from agentexec.journal import events, trackers
from agentexec.journal.wake_ups import WAIT_KINDS, mark_woken, tasks_to_wake
from agentexec.runtime import Runtime
from agentexec.task import ACTIVE_STATUSES, Entry, Lease, Priority, Status

log = logging.getLogger("agentexec.reconciler")

BATCH = 500
PUSH_GRACE = 2.0
"""Seconds after which an accepted task that the index does not know counts as never pushed."""

OVERLAP = 60.0
"""Seconds that each look at recent tasks reaches back beyond the last one: transactions commit late."""

FULL_SWEEP_SHARE = 20
"""A look at every queued task is made at most once in this many times its own duration."""

EXPIRY_SECONDS = 60.0
COUNT_SECONDS = 30.0
OUTAGE_SECONDS = 1.5
"""A longer pause between two turns (and longer than half a lease) means that something was away."""


_OPEN = select(
    Activity.agent_id,
    Activity.status,
    Activity.priority,
    Activity.run_at,
    Activity.epoch,
    Activity.created_at,
).where(Activity.queue == bindparam("queue"))


class Reconciler:
    """Keeps one queue's index in agreement with the record, as long as it leads."""

    def __init__(self, runtime: Runtime, settings: Settings, owner: str) -> None:
        self._runtime = runtime
        self._settings = settings
        self._queue = settings.queue_name
        self._owner = owner
        self._looked_until: datetime | None = None
        self._next_full = 0.0
        self._next_expiry = 0.0
        self._next_count = 0.0
        self._leading = False
        self._last_turn: float | None = None
        self._trust_leases_from = 0.0

    def run_once(self) -> None:
        """One turn, about once a second. Raises UnavailableError."""
        backend = self._runtime.backend
        role = f"reconciler:{self._queue}"
        leading = backend.acquire_leadership(role, self._owner, max(5.0, self._settings.lease_seconds))
        if not leading:
            self._leading, self._last_turn = False, None
            return
        if not self._leading:
            # What the last leader has looked at is not known.
            self._leading, self._looked_until, self._next_full = True, None, 0.0
        if not backend.is_intact(self._queue):
            self._rebuild()
        if self._leases_are_true():
            self._return_expired()
        self._push_lost()
        self._wake_answered()
        self._expire_results()
        self._count()

    def resign(self) -> None:
        """Let another lead at once."""
        if self._leading:
            self._runtime.backend.release_leadership(f"reconciler:{self._queue}", self._owner)

    def recover(self, worker_id: str, reason: str) -> int:
        """Give back the tasks of a worker process that is known to be dead; returns how many it held.

        `reason` completes the sentence "The worker process …".
        """
        leases = self._runtime.backend.worker_leases(self._queue, worker_id)
        self._return(leases, reason)
        return len(leases)

    def _leases_are_true(self) -> bool:
        """False for one lease time after an outage: while no heartbeat got through, a lease that ran out says nothing."""
        clock = time.monotonic()
        if self._last_turn is not None and clock - self._last_turn > max(
            OUTAGE_SECONDS, self._settings.lease_seconds / 2
        ):
            self._trust_leases_from = clock + self._settings.lease_seconds
        self._last_turn = clock
        return clock >= self._trust_leases_from

    def _return_expired(self) -> None:
        while leases := self._runtime.backend.expired_leases(self._queue, BATCH):
            self._return(leases, f"did not answer for {self._settings.lease_seconds:g} s")
            if len(leases) < BATCH:
                return

    def _return(self, leases: Sequence[Lease], reason: str) -> None:
        if not leases:
            return
        backend = self._runtime.backend
        with writing(self._runtime.engine) as connection:
            deaths = record_crashes(
                connection, leases, reason=reason, max_crashes=self._settings.max_crashes, now=utc_now()
            )
        for lease in deaths.requeue:
            backend.release(self._queue, lease)
        if deaths.requeue:
            backend.wake(self._queue, len(deaths.requeue))
            log.warning(
                "%d task(s) go back to the queue: their worker process %s.", len(deaths.requeue), reason
            )
        if deaths.acknowledge:
            backend.finish(self._queue, deaths.acknowledge)
            backend.notify_done(self._queue, [lease.agent_id for lease in deaths.acknowledge])

    def _push_lost(self) -> None:
        """Find accepted tasks that the index does not know: recent ones each turn, all of them now and then."""
        now = utc_now()
        until = now - timedelta(seconds=PUSH_GRACE)
        clock = time.monotonic()
        if clock >= self._next_full:
            self._look_at(Activity.created_at <= until)
            took = time.monotonic() - clock
            self._next_full = clock + max(self._settings.lease_seconds / 2, took * FULL_SWEEP_SHARE)
        elif self._looked_until is not None:
            self._look_at(and_(Activity.created_at > self._looked_until, Activity.created_at <= until))
        self._looked_until = until - timedelta(seconds=OVERLAP)

    def _rebuild(self) -> None:
        number = self._look_at(Activity.created_at <= utc_now())
        self._runtime.backend.mark_intact(self._queue)
        if number:
            log.warning(
                "The state backend knew nothing of queue %s; %d task(s) were put back from the database.",
                self._queue,
                number,
            )

    def _look_at(self, condition: Any) -> int:
        """Bring tasks that match into the index if it lacks them; returns how many it lacked."""
        number = 0
        for status in (Status.RUNNING, Status.QUEUED):
            query = _OPEN.where(Activity.status == status, condition).order_by(
                Activity.created_at, Activity.agent_id
            )
            last: Any = None
            while True:
                page = query.limit(BATCH)
                if last is not None:
                    page = page.where(
                        (Activity.created_at > last.created_at)
                        | and_(Activity.created_at == last.created_at, Activity.agent_id > last.agent_id)
                    )
                with reading(self._runtime.engine) as connection:
                    rows = connection.execute(page, {"queue": self._queue}).all()
                number += self._bring_back(status, rows)
                if len(rows) < BATCH:
                    break
                last = rows[-1]
        return number

    def _bring_back(self, status: Status, rows: Sequence[Any]) -> int:
        if not rows:
            return 0
        backend = self._runtime.backend
        unknown: set[UUID] = set(backend.unknown_tasks(self._queue, [row.agent_id for row in rows]))
        entries = [
            Entry(
                row.agent_id, Priority(row.priority), row.run_at.timestamp() if row.run_at else 0.0, row.epoch
            )
            for row in rows
            if row.agent_id in unknown
        ]
        if not entries:
            return 0
        if status is Status.RUNNING:
            # Its worker may live: then it renews the lease; else the lease runs out.
            backend.restore(self._queue, entries, self._settings.lease_seconds)
        else:
            backend.push(self._queue, entries)
            backend.wake(self._queue, len(entries))
        return len(entries)

    def _wake_answered(self) -> None:
        """Start tasks for which an answer or an event came from somebody who then could not tell the queue."""
        engine = self._runtime.engine
        before = utc_now() - timedelta(seconds=PUSH_GRACE)
        for kind in WAIT_KINDS:
            while agent_ids := tasks_to_wake(engine, kind, self._queue, before, BATCH):
                self._runtime.backend.make_ready(self._queue, agent_ids)
                mark_woken(engine, kind, agent_ids)

    def _count(self) -> None:
        clock = time.monotonic()
        if clock < self._next_count:
            return
        counts.refresh(self._runtime.engine)
        took = time.monotonic() - clock
        self._next_count = clock + max(COUNT_SECONDS, took * FULL_SWEEP_SHARE)

    def _expire_results(self) -> None:
        clock = time.monotonic()
        if clock < self._next_expiry:
            return
        self._next_expiry = clock + EXPIRY_SECONDS
        for kind in (events, trackers):
            while kind.expire(self._runtime.engine, utc_now(), BATCH) == BATCH:
                pass
        with writing(self._runtime.engine) as connection:
            connection.execute(
                delete(WorkerProcess).where(
                    WorkerProcess.seen_at < utc_now() - timedelta(seconds=FORGET_SECONDS)
                )
            )
        # A task that has enqueued others may run again from its top, and ask for their results again.
        child, parent = aliased(Activity), aliased(Activity)
        wanted = (
            select(child.agent_id)
            .join(parent, parent.agent_id == child.parent_id)
            .where(child.agent_id == ActivityResult.agent_id, parent.status.in_(ACTIVE_STATUSES))
        )
        expired = (ActivityResult.expires_at < utc_now(), ~wanted.exists())
        query = select(ActivityResult.agent_id).where(*expired).limit(BATCH)
        while True:
            with writing(self._runtime.engine) as connection:
                ids = connection.execute(query).scalars().all()
                if ids:
                    connection.execute(delete(ActivityResult).where(ActivityResult.agent_id.in_(ids)))
            if len(ids) < BATCH:
                return
