"""Index repair: the state backend learns of tasks, and of answers to tasks, that only the record knows.

Whoever can write to the state backend can put anything there. What the record contradicts is removed and, if it is a task
of this queue, added again from the record.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, bindparam, or_, select, true, tuple_

from agentexec.activity.changes.endings import end_from_outside
from agentexec.activity.changes.locks import find_kept_locks, free_locks_now
from agentexec.activity.models import Activity
from agentexec.config import Settings
from agentexec.db.chunks import CHUNK_SIZE, chunks
from agentexec.db.clock import utc_now
from agentexec.db.recurring import Recurring
from agentexec.db.transactions import reading, writing
from agentexec.journal.wake_ups import WAIT_KINDS, answered_tasks, mark_woken, tasks_to_wake
from agentexec.policy import MAX_EPOCH
from agentexec.runtime import Runtime
from agentexec.state.backend import Comparison
from agentexec.task import ACTIVE_STATUSES, FINAL_STATUSES, Entry, Status, stored_entry

log = logging.getLogger("agentexec.reconciler")

PUSH_GRACE = 2.0
"""Seconds after which an accepted task that the index does not know counts as never pushed."""

OVERLAP = 60.0
"""Seconds by which each look at recent tasks reaches back beyond the last one, as transactions commit late."""

RECENT = timedelta(seconds=2 * OVERLAP)
"""Age of the tasks that the common query of a turn looks for: a usual look of this module goes half as far back."""

SWEEP_SHARE = 20
"""Inverse of the share of time spent on looks at open tasks: at most a twentieth for all of them, and for recent ones."""

PAGES_PER_SWEEP = 10
"""Pages of the index that each look at every open task compares with the record."""

PLACE_STEP = 1e-6
"""Seconds between the places of two tasks that were accepted at the same moment."""

_OPEN = select(
    Activity.agent_id,
    Activity.status,
    Activity.priority,
    Activity.run_at,
    Activity.epoch,
    Activity.created_at,
    Activity.fairness_key,
    Activity.fairness_weight,
    Activity.agent_type,
    Activity.lock_key,
    Activity.concurrency_key,
    Activity.held_lock,
).where(Activity.queue == bindparam("queue"))

_FIRST, _LAST = datetime(1000, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
"""A moment before that of every task, and one after it."""


def any_open(of_queue: Any) -> Any:
    """Return the condition that a queue has open tasks that were accepted in a span of time, `accepted_after` to `accepted_until`."""
    return or_(*(_open_within(of_queue, status) for status in ACTIVE_STATUSES))


def _open_within(of_queue: Any, status: Status) -> Any:
    moment = Activity.created_at.type
    query = select(Activity.agent_id).where(
        of_queue,
        Activity.status == status,
        Activity.created_at > bindparam("accepted_after", type_=moment),
        Activity.created_at <= bindparam("accepted_until", type_=moment),
    )
    return query.exists()


_ANY_OPEN = select(any_open(Activity.queue == bindparam("queue")))


class IndexRepair:
    """Pushes the tasks of one queue that its index lacks."""

    def __init__(self, runtime: Runtime, settings: Settings, queue: str | None = None) -> None:
        self._runtime = runtime
        self._queue = settings.queue_name if queue is None else queue
        self._lease_seconds = settings.lease_seconds
        self._any_open = Recurring(runtime.engine, _ANY_OPEN)
        self._swept_until: datetime | None = None
        self._next_full_sweep = 0.0
        self._next_look = 0.0
        self._cursor = ""
        self._ended: set[UUID] = set()
        self._latest_place = 0.0

    def reset(self) -> None:
        """Forget what was looked at: another host led until now."""
        self._swept_until, self._next_full_sweep = None, 0.0

    def rebuild_if_emptied(self, *, is_intact: bool = False) -> None:
        """Push every open task if the index was emptied. `is_intact`: it is known not to be. Raises UnavailableError."""
        if is_intact or self._runtime.backend.is_intact(self._queue):
            return
        if number := self.add_all():
            log.warning(
                "The state backend had lost queue %s; restored %d task(s) from the database.",
                self._queue,
                number,
            )

    def add_running(self) -> None:
        """Add the running tasks that the index lacks: their leases expire unless somebody runs them. Raises UnavailableError."""
        self._push_unknown(true(), (Status.RUNNING,))

    def add_all(self) -> int:
        """Push every open task that the index lacks, and return their number. Raises UnavailableError."""
        number = self._push_unknown(true())
        self._runtime.backend.mark_intact(self._queue)
        # What came meanwhile and has a lock waits in the queue, where it was pushed, until it is its turn.
        self._push_unknown(Activity.lock_key.is_not(None))
        return number

    def push_lost(self, clock: float, none_until: datetime | None = None) -> None:
        """Push tasks whose push was lost: looks at recent ones each time, and at all of them now and then.

        Less often where it takes long: tasks that were just enqueued by the thousand are also about to be claimed.
        `clock` is monotonic; `none_until` as of `Due`. Raises UnavailableError.
        """
        until = utc_now() - timedelta(seconds=PUSH_GRACE)
        if clock >= self._next_full_sweep:
            began = time.monotonic()
            if self._has_open(None, None):
                self._push_unknown(_before(Activity.created_at, until))
            self._remove_foreign()
            self._free_locks(until)
            took = time.monotonic() - began
            self._next_full_sweep = clock + max(self._lease_seconds / 2, took * SWEEP_SHARE)
        elif self._swept_until is not None:
            # Where a push is part of the transaction that accepts its tasks, it is not lost.
            if self._runtime.backend.transactional or clock < self._next_look:
                return
            if none_until is not None and self._swept_until >= none_until - RECENT:
                until = none_until
            else:
                self._push_recent(clock, self._swept_until, until)
        self._swept_until = until - timedelta(seconds=OVERLAP)

    def _push_recent(self, clock: float, after: datetime, until: datetime) -> None:
        began = time.monotonic()
        if self._has_open(after, until):
            self._push_unknown(and_(Activity.created_at > after, Activity.created_at <= until))
        self._next_look = clock + (time.monotonic() - began) * SWEEP_SHARE

    def _has_open(self, after: datetime | None, until: datetime | None) -> bool:
        """Return whether tasks are open that were accepted in a span of time: one look-up, where nothing is to be done."""
        span = {"accepted_after": after or _FIRST, "accepted_until": until or _LAST}
        return bool(self._any_open.read({"queue": self._queue, **span})[0][0])

    def wake_answered(self) -> None:
        """Make tasks ready whose answer or event came from a process that could not tell the queue.

        Raises UnavailableError.
        """
        engine = self._runtime.engine
        before = utc_now() - timedelta(seconds=PUSH_GRACE)
        for kind in WAIT_KINDS:
            while agent_ids := tasks_to_wake(engine, kind, self._queue, before, CHUNK_SIZE, OVERLAP):
                self._runtime.backend.make_ready(self._queue, agent_ids)
                mark_woken(engine, kind, agent_ids)

    def _push_unknown(
        self, condition: Any, statuses: Sequence[Status] = (Status.RUNNING, Status.QUEUED)
    ) -> int:
        """Bring the open tasks that match into the index if it lacks them, and return the number it lacked."""
        number = 0
        for status in statuses:
            last: Any = None
            self._latest_place = 0.0
            while True:
                lacked, last = self.repair_page(status, condition, last)
                number += lacked
                if last is None:
                    break
        return number

    def repair_page(self, status: Status, condition: Any, last: Any) -> tuple[int, Any]:
        """Bring the next open tasks with a status after `last` into the index, None for the first ones.

        Returns the number that it lacked, and the last task of the page, None if no further ones follow.
        """
        page = _OPEN.where(Activity.status == status, condition).limit(CHUNK_SIZE)
        if last is not None:
            page = page.where(self._is_after(last))
        rows = self._rows(page.order_by(Activity.created_at, Activity.agent_id), in_index_order=True)
        return self._repair(rows), None if len(rows) < CHUNK_SIZE else rows[-1]

    def _is_after(self, row: Any) -> Any:
        """Return the condition that a task comes after another one: where reading the index starts, not a filter of it."""
        after = tuple_(Activity.created_at, Activity.agent_id) > (row.created_at, row.agent_id)
        if self._runtime.engine.dialect.name in ("mysql", "mariadb"):
            # They search no index by two columns at once, and SQLite none by two conditions on the same column.
            return and_(Activity.created_at >= row.created_at, after)
        return after

    def _repair(self, rows: Sequence[Any]) -> int:
        """Bring tasks into the index that it lacks, and return their number; also correct those that it has wrongly."""
        rows = self._end_unclaimable(rows)
        if not rows:
            return 0
        found = self._compare(rows)
        missing = {*found.missing}
        self._add([row for row in rows if row.agent_id in missing])
        if found.wrong:
            self._correct(found.wrong)
        return len(missing)

    def _correct(self, agent_ids: Sequence[UUID]) -> None:
        """Replace entries that the record contradicts."""
        # Compared with rows that are read again: a task that moved on in between is not wrong.
        query = _OPEN.where(Activity.status.in_(ACTIVE_STATUSES), Activity.agent_id.in_(agent_ids)).order_by(
            Activity.created_at, Activity.agent_id
        )
        rows = self._rows(query, in_index_order=False)
        wrong = {*self._compare(rows).wrong}
        if wrong:
            # Also not one that moves on while it is compared: its entry is newer than its row.
            wrong &= {row.agent_id for row in {*rows} & {*self._rows(query, in_index_order=False)}}
        if not wrong:
            return
        log.warning(
            "Replaced %d forged or broken entry(ies) of queue %s, such as that of task %s: the queue and the database "
            "disagreed about their epochs, leases or start times.",
            len(wrong),
            self._queue,
            min(wrong),
        )
        self._runtime.backend.remove(self._queue, sorted(wrong))
        self._add([row for row in rows if row.agent_id in wrong])

    def _remove_foreign(self) -> None:
        """Remove tasks from the index that the record does not have on this queue, or has ended; a part of them each time."""
        ended: set[UUID] = set()
        for _ in range(PAGES_PER_SWEEP):
            agent_ids, self._cursor = self._runtime.backend.list_tasks(self._queue, self._cursor)
            # Read after the index, because a task is in the record first.
            known = self._find_ended(agent_ids)
            foreign = [agent_id for agent_id in agent_ids if agent_id not in known]
            ended.update(agent_id for agent_id, has_ended in known.items() if has_ended)
            if foreign:
                log.warning(
                    "Removed %d entry(ies) from queue %s, such as that of task %s: the database has no such task on it.",
                    len(foreign),
                    self._queue,
                    foreign[0],
                )
                self._runtime.backend.remove(self._queue, foreign)
            if not self._cursor:
                break
        # A task that has just ended is acknowledged in a moment.
        if left := sorted(ended & self._ended):
            self._runtime.backend.remove(self._queue, left)
        self._ended = ended

    def _free_locks(self, until: datetime) -> None:
        """Free the locks of tasks that have ended and that nobody runs: their workers died before they could."""
        engine = self._runtime.engine
        ended = find_kept_locks(engine, self._queue, until - timedelta(seconds=self._lease_seconds))
        if ended and (unknown := self._runtime.backend.unknown_tasks(self._queue, ended)):
            free_locks_now(engine, unknown)

    def _find_ended(self, agent_ids: Sequence[UUID]) -> dict[UUID, bool]:
        """Return whether they have ended, of those tasks that the record has on this queue."""
        found: dict[UUID, bool] = {}
        # Decided by the database: a status that is none cannot be read, and must not stop the repair of all others.
        has_ended = Activity.status.in_(FINAL_STATUSES).label("has_ended")
        for chunk in chunks(agent_ids):
            query = select(Activity.agent_id, has_ended).where(
                Activity.agent_id.in_(chunk), Activity.queue == self._queue
            )
            with reading(self._runtime.engine, by_key_only=True) as connection:
                found.update((row.agent_id, bool(row.has_ended)) for row in connection.execute(query))
        return found

    def _rows(self, query: Any, *, in_index_order: bool) -> Sequence[Any]:
        with reading(self._runtime.engine, by_key_only=True, in_index_order=in_index_order) as connection:
            return connection.execute(query, {"queue": self._queue}).all()

    def _end_unclaimable(self, rows: Sequence[Any]) -> list[Any]:
        """End the tasks whose epochs no claim can raise, and return the rows of the others."""
        bad = [row for row in rows if not (type(row.epoch) is int and 0 <= row.epoch < MAX_EPOCH)]
        if not bad:
            return list(rows)
        agent_ids = [row.agent_id for row in bad]
        error = "The record holds an epoch that cannot be raised, so no worker can start the task; enqueue it again."
        with writing(self._runtime.engine) as connection:
            end_from_outside(
                connection, agent_ids, status=Status.ERROR, message=error, error=error, now=utc_now()
            )
        log.error("Ended %d task(s), such as %s: %s", len(bad), agent_ids[0], error)
        self._runtime.backend.remove(self._queue, agent_ids)
        self._runtime.backend.notify_done(self._queue, agent_ids)
        return [row for row in rows if row not in bad]

    def _compare(self, rows: Sequence[Any]) -> Comparison:
        entries = [_entry(row) for row in rows]
        return self._runtime.backend.compare(self._queue, entries, self._lease_seconds)

    def _waiting_entry(self, row: Any) -> Entry:
        """Return the entry of a task that the index has lost, to be put before those that were accepted after it."""
        entry = _entry(row)
        if entry.run_at:
            return entry._replace(since=entry.run_at)
        # The rows come in the order of their acceptance, which those keep that were accepted together.
        self._latest_place = max(row.created_at.timestamp(), self._latest_place + PLACE_STEP)
        return entry._replace(since=self._latest_place)

    def _add(self, rows: Sequence[Any]) -> None:
        """Add tasks to the index as the record had them."""
        if not rows:
            return
        running = [_entry(row) for row in rows if row.status is Status.RUNNING]
        if running:
            # If its worker lives, that renews the lease; if not, the lease expires.
            self._runtime.backend.restore(self._queue, running, self._lease_seconds)
        waiting = [self._waiting_entry(row) for row in rows if row.status is not Status.RUNNING]
        if waiting:
            self._push(waiting)
        # Some may have ended since the record was read, and nobody else would take those out before their leases expire.
        known = self._find_ended([row.agent_id for row in rows])
        if ended := [agent_id for agent_id, has_ended in known.items() if has_ended]:
            self._runtime.backend.remove(self._queue, ended)

    def _push(self, waiting: Sequence[Entry]) -> None:
        backend = self._runtime.backend
        backend.push(self._queue, waiting)
        backend.wake(self._queue, len(waiting))
        # A task that was ready because of an answer is delayed again by its deadline in the record.
        delayed = [entry.agent_id for entry in waiting if entry.run_at]
        if delayed and (answered := answered_tasks(self._runtime.engine, delayed)):
            backend.make_ready(self._queue, answered)


def _before(column: Any, moment: datetime) -> Any:
    """Return the condition that a host's time is before a moment, or far after it: then that host's clock is wrong."""
    return or_(column <= moment, column > moment + timedelta(seconds=OVERLAP))


def _entry(row: Any) -> Entry:
    run_at = row.run_at.timestamp() if row.run_at else 0.0
    return stored_entry(row, run_at)
