"""State backend on the record's own database: SQLite, PostgreSQL, MySQL and MariaDB.

Pushing and finishing join the record's transactions, so an accepted task never lacks its queue entry.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.exc import IntegrityError

from agentexec.config import Settings
from agentexec.db.chunks import CHUNK_SIZE, chunks
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.llm.rate_limits import MICROS_PER_SECOND, Demand
from agentexec.policy import MAX_EPOCH, fits_record
from agentexec.state.backend import ClaimResult, Comparison, Depth, LostLeases, TaskPage, longest_leadership
from agentexec.state.sql_backend.buckets import Buckets
from agentexec.state.sql_backend.fair_lanes import (
    RANKED_LANES,
    FairClaim,
    FairLanes,
    NextTasks,
    fairness_columns,
    fits_lane,
    waiting_lane,
)
from agentexec.state.sql_backend.messages import SqlMessages
from agentexec.state.sql_backend.statements import ControlStatements, QueueStatements
from agentexec.state.sql_models import LEASED, QueueEntry
from agentexec.task import Entry, Lease, Priority

log = logging.getLogger("agentexec.sql_queue")

INTACT = "intact:"
"""Start of the name of the counter that says that a queue's index is complete."""


def create(settings: Settings, engine: Engine) -> SqlBackend:
    """Return the backend for an engine of the record."""
    return SqlBackend(engine)


class SqlBackend(SqlMessages):
    """State backend for an engine. `agentexec.state.backend.StateBackend` documents the methods."""

    transactional = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._tasks = QueueStatements(self._dialect)
        self._control = ControlStatements(self._dialect)
        self._buckets = Buckets(engine, self._dialect)
        self._fair = FairLanes(engine, self._dialect, self._readable)
        self._marks = threading.local()

    def ping(self) -> None:
        self.depth("")

    def close(self) -> None:
        self._wakeup.close()

    def push(self, queue: str, entries: Sequence[Entry], *, transaction: Connection | None = None) -> None:
        with self._transaction(transaction) as connection:
            self._insert(connection, queue, entries, leased_for=None)
        if transaction is None:
            self._wakeup.announce()

    def wake(self, queue: str, count: int) -> None:
        self._wakeup.announce()

    @retry_on_deadlock
    def claim(
        self, queue: str, worker: str, *, limit: int, low_quota: int, lease_seconds: float
    ) -> ClaimResult:
        self._marks.mark = self._wakeup.mark()
        with reading(self._engine) as connection:
            # Without a lock, so idle workers do not block a writer.
            first = self._fair.read_next(connection, queue)
        next_due = _seconds_until_due(first)
        if next_due is None or next_due > 0 or limit < 1:
            return ClaimResult([], next_due)
        if is_fair := any(map(first.is_fair, Priority)):
            self._fair.rank(queue, first)
        leases: list[Lease] = []
        with writing(self._engine, relaxed=True) as connection:
            fair = self._fair.open(connection, queue) if is_fair else None
            for lane, lane_limit in (
                (Priority.LOW, low_quota),
                (Priority.HIGH, limit),
                (Priority.LOW, limit),
            ):
                lane_limit = min(lane_limit, limit - len(leases))
                if lane_limit < 1:
                    continue
                rows = self._ready_rows(connection, queue, lane, lane_limit, first, fair)
                if not rows:
                    continue
                ids = [row.agent_id for row in rows]
                lease = self._params(ids=ids, lease=int(lease_seconds * MICROS_PER_SECOND), worker=worker)
                connection.execute(self._tasks.lease, lease)
                leases.extend(Lease(row.agent_id, row.epoch + 1) for row in rows)
            # A worker that filled its slots claims again before it waits.
            if len(leases) == limit:
                return ClaimResult(leases, None)
            return ClaimResult(leases, _seconds_until_due(self._fair.read_next(connection, queue)))

    def wait(self, queue: str, timeout: float) -> None:
        mark = getattr(self._marks, "mark", None)
        self._marks.mark = None
        self._wakeup.wait(self._wakeup.mark() if mark is None else mark, timeout)

    @retry_on_deadlock
    def renew(self, queue: str, worker: str, leases: Sequence[Lease], lease_seconds: float) -> LostLeases:
        lost = LostLeases([], [])
        for chunk in chunks(leases):
            with writing(self._engine, relaxed=True) as connection:
                epochs = dict(self._select_epochs(connection, [lease.agent_id for lease in chunk]))
                ours = [lease.agent_id for lease in chunk if epochs.get(lease.agent_id) == lease.epoch]
                if ours:
                    values = self._params(
                        ids=ours, lease=int(lease_seconds * MICROS_PER_SECOND), worker=worker
                    )
                    connection.execute(self._tasks.renew, values)
            for lease in chunk:
                epoch = epochs.get(lease.agent_id)
                if epoch is None:
                    lost.missing.append(lease.agent_id)
                elif epoch != lease.epoch:
                    lost.taken.append(lease.agent_id)
        return lost

    def finish(self, queue: str, leases: Sequence[Lease], *, transaction: Connection | None = None) -> None:
        if not leases:
            return
        with self._transaction(transaction) as connection:
            by_epoch = sorted(leases, key=lambda lease: (lease.epoch, lease.agent_id))
            for epoch, group in itertools.groupby(by_epoch, key=lambda lease: lease.epoch):
                for chunk in chunks([lease.agent_id for lease in group]):
                    connection.execute(self._tasks.finish, {"epoch": epoch, "ids": chunk})

    @retry_on_deadlock
    def release(self, queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        values = self._params(id=lease.agent_id, epoch=lease.epoch, delay=int(delay * MICROS_PER_SECOND))
        with writing(self._engine, relaxed=True) as connection:
            released = connection.execute(self._tasks.release, values).rowcount > 0
        self._wakeup.announce()
        return released

    @retry_on_deadlock
    def make_ready(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        for chunk in chunks(agent_ids):
            with writing(self._engine, relaxed=True) as connection:
                connection.execute(self._tasks.make_ready, self._params(queue=queue, ids=chunk))
        self._wakeup.announce()

    @retry_on_deadlock
    def restore(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> None:
        with writing(self._engine, relaxed=True) as connection:
            self._insert(connection, queue, entries, leased_for=lease_seconds)

    def expired_leases(self, queue: str, limit: int) -> list[Lease]:
        self._sweep()
        rows = self._read(self._tasks.expired, self._params(queue=queue, most=limit))
        return [Lease(row.agent_id, row.epoch) for row in rows]

    def worker_leases(self, queue: str, worker: str) -> list[Lease]:
        rows = self._read(self._tasks.of_worker, {"queue": queue, "worker": worker})
        return [Lease(row.agent_id, row.epoch) for row in rows]

    def holder(self, queue: str, agent_id: UUID) -> str | None:
        """Return the worker that holds the lease of a task; None if nobody does. Reads only, for display."""
        with reading(self._engine) as connection:
            return connection.execute(self._tasks.holder, {"queue": queue, "id": agent_id}).scalar()

    def remove(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
        holders: dict[UUID, str] = {}
        for chunk in chunks(sorted(agent_ids)):
            with writing(self._engine) as connection:
                rows = connection.execute(self._tasks.lock, {"ids": chunk}).all()
                if rows:
                    connection.execute(self._tasks.remove, {"ids": [row.agent_id for row in rows]})
            holders |= {row.agent_id: row.worker for row in rows if row.worker}
        return holders

    def unknown_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        known: set[UUID] = set()
        with reading(self._engine) as connection:
            for chunk in chunks(agent_ids):
                known.update(connection.execute(self._tasks.known, {"ids": chunk, "queue": queue}).scalars())
        return [agent_id for agent_id in agent_ids if agent_id not in known]

    def compare(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> Comparison:
        known: dict[UUID, Any] = {}
        with reading(self._engine) as connection:
            for chunk in chunks([entry.agent_id for entry in entries]):
                rows = connection.execute(self._tasks.entries, self._params(ids=chunk))
                known.update((row.agent_id, row) for row in rows)
        missing = [entry.agent_id for entry in entries if entry.agent_id not in known]
        wrong = [
            entry.agent_id
            for entry in entries
            if entry.agent_id in known and not _fits(known[entry.agent_id], queue, entry, lease_seconds)
        ]
        return Comparison(missing, wrong)

    def list_tasks(self, queue: str, cursor: str) -> TaskPage:
        try:
            after = UUID(cursor)
        except ValueError:
            after = UUID(int=0)
        rows = self._read(self._tasks.page, {"queue": queue, "after": after, "most": CHUNK_SIZE})
        ids = [row.agent_id for row in rows]
        # A page that is shorter because rows were removed ends the walk; the next one finds what follows.
        return TaskPage(ids, str(ids[-1]) if len(ids) == CHUNK_SIZE else "")

    def depth(self, queue: str) -> Depth:
        with reading(self._engine) as connection:
            return Depth(*map(int, connection.execute(self._tasks.depth, self._params(queue=queue)).one()))

    def is_intact(self, queue: str) -> bool:
        with reading(self._engine) as connection:
            return bool(connection.execute(self._control.count, {"name": INTACT + queue}).scalar())

    def mark_intact(self, queue: str) -> None:
        values = {"name": INTACT + queue, "amount": 1}
        try:
            with writing(self._engine) as connection:
                if connection.execute(self._control.add, values).rowcount == 0:
                    connection.execute(self._control.new_counter, values)
        except IntegrityError:
            return  # another process noted it at the same moment

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        length, longest = (int(s * MICROS_PER_SECOND) for s in (seconds, longest_leadership(seconds)))
        values = self._params(role=role, owner=owner, seconds=length, longest=longest)
        with writing(self._engine, relaxed=True) as connection:
            if connection.execute(self._control.keep_leadership, values).rowcount > 0:
                return True
            return connection.execute(self._control.take_leadership, values).rowcount > 0

    def release_leadership(self, role: str, owner: str) -> None:
        with writing(self._engine, relaxed=True) as connection:
            connection.execute(self._control.release_leadership, {"role": role, "owner": owner})

    def reserve(self, demands: Sequence[Demand], max_wait: float) -> float:
        return self._buckets.take(demands, max_wait)

    def settle(self, demands: Sequence[Demand]) -> None:
        self._buckets.take(demands, None)

    def _transaction(self, transaction: Connection | None) -> AbstractContextManager[Connection]:
        return writing(self._engine) if transaction is None else nullcontext(transaction)

    def _insert(
        self, connection: Connection, queue: str, entries: Sequence[Entry], *, leased_for: float | None
    ) -> None:
        clock = utc_now().timestamp()
        rows = []
        for place, entry in enumerate(entries):
            if leased_for is not None:
                shift = int(leased_for * MICROS_PER_SECOND)
            elif entry.run_at > clock:
                shift = int((entry.run_at - clock) * MICROS_PER_SECOND)
            else:
                # Tasks of one push keep their order.
                shift = place
            rows.append(
                self._params(
                    id=entry.agent_id,
                    queue=queue,
                    priority=int(entry.priority),
                    lane=LEASED if leased_for is not None else waiting_lane(entry),
                    shift=shift,
                    epoch=entry.epoch,
                    worker=None,
                    **fairness_columns(entry),
                )
            )
        if rows:
            connection.execute(self._tasks.insert, rows[0] if len(rows) == 1 else rows)

    def _readable(self, connection: Connection, rows: Sequence[Any]) -> list[Any]:
        """Return the rows of tasks, and remove others: if the record has their tasks, the reconciler pushes them again."""
        readable = [row for row in rows if _is_readable(row)]
        if len(readable) < len(rows):
            bad = [row.agent_id for row in rows if not _is_readable(row)]
            known = [agent_id for agent_id in bad if isinstance(agent_id, UUID)]
            if known:
                connection.execute(self._tasks.remove, {"ids": known})
            for raw in bad:
                if not isinstance(raw, UUID):
                    connection.execute(self._tasks.remove_unreadable, {"raw": raw})
            log.warning("Removed %d row(s) of %s that no task can have.", len(bad), QueueEntry.__tablename__)
        return readable

    def _ready_rows(
        self,
        connection: Connection,
        queue: str,
        lane: Priority,
        most: int,
        first: NextTasks,
        fair: FairClaim | None,
    ) -> list[Any]:
        """Lock and return the next tasks of a priority."""
        if fair is not None and first.is_fair(lane):
            return fair.take(lane, most, with_plain=first.is_due(first.plain[lane]))
        wanted = self._params(queue=queue, lane=lane, most=most)
        return self._readable(connection, connection.execute(self._tasks.ready, wanted).all())

    def _read(self, statement: Executable, values: dict[str, Any]) -> list[Any]:
        """Return the rows of tasks that a query finds."""
        with reading(self._engine) as connection:
            rows = connection.execute(statement, values).all()
        if all(map(_is_readable, rows)):
            return list(rows)
        with writing(self._engine, relaxed=True) as connection:
            return self._readable(connection, rows)

    def _select_epochs(self, connection: Connection, agent_ids: Sequence[UUID]) -> list[tuple[UUID, int]]:
        rows = connection.execute(self._tasks.lock, {"ids": sorted(agent_ids)})
        return [(row.agent_id, row.epoch) for row in rows]


def _seconds_until_due(first: NextTasks) -> float | None:
    """Return the seconds until the first task may start, None for an empty queue."""
    soonest = first.soonest
    return None if soonest is None else max(0.0, (soonest - first.now) / MICROS_PER_SECOND)


def _is_readable(row: Any) -> bool:
    """Return True for a row of a task with an epoch that a claim can raise."""
    return isinstance(row.agent_id, UUID) and type(row.epoch) is int and 0 <= row.epoch < MAX_EPOCH


def _fits(row: Any, queue: str, entry: Entry, lease_seconds: float) -> bool:
    """Return True if a row of the queue's table can follow from the record."""
    if row.queue != queue or any(
        type(value) is not int for value in (row.priority, row.lane, row.at, row.epoch)
    ):
        return False
    if not fits_lane(row):
        return False
    return fits_record(
        recorded_epoch=entry.epoch,
        due=entry.run_at,
        epoch=row.epoch,
        leased=row.lane == LEASED,
        at=0.0 if row.lane in RANKED_LANES else row.at / MICROS_PER_SECOND,
        now=row.now_us / MICROS_PER_SECOND,
        lease_seconds=lease_seconds,
    )
