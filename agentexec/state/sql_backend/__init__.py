"""State backend on the record's own database: SQLite, PostgreSQL, MySQL and MariaDB.

Pushing and finishing join the record's transactions, so an accepted task never lacks its queue entry.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from agentexec.config import Settings
from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.recurring import Recurring
from agentexec.db.transactions import has_single_writer, reading, writing
from agentexec.llm.rate_limits import MICROS_PER_SECOND
from agentexec.state.answers import Inspection, PushStatement, Waiting
from agentexec.state.backend import PROTOCOL_VERSION, LostLeases
from agentexec.state.groups import is_lock
from agentexec.state.sql_backend.claims import SqlClaims
from agentexec.state.sql_backend.fair_lanes import fairness_columns, waiting_lane
from agentexec.state.sql_backend.groups import INTACT, members_of
from agentexec.state.sql_backend.wakeup import TASKS
from agentexec.state.sql_models import LEASED, QueueEntry
from agentexec.task import Entry, Lease


def create(settings: Settings, engine: Engine) -> SqlBackend:
    """Return the backend for an engine of the record."""
    return SqlBackend(engine)


class SqlBackend(SqlClaims):
    """State backend for an engine. `agentexec.state.backend.StateBackend` documents the methods."""

    protocol_version = PROTOCOL_VERSION
    transactional = True

    queue_table = QueueEntry.__tablename__
    """Table from which the record's store may remove tasks without groups in the statement that ends them."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._any_expired = Recurring(engine, self._tasks.any_expired)
        self._inspect = Recurring(engine, self._tasks.inspect)
        self._freed_in_transaction = False

    def ping(self) -> None:
        self.depth("")

    def close(self) -> None:
        self._wakeup.close()

    @retry_on_deadlock
    def push(self, queue: str, entries: Sequence[Entry], *, transaction: Connection | None = None) -> None:
        with self._transaction(transaction) as connection:
            self._insert(connection, queue, entries, leased_for=None)
        if transaction is None:
            self.wake(queue, len(entries))

    def push_statement(self, queue: str, entries: Sequence[Entry]) -> PushStatement | None:
        """Return what pushes tasks as a part of another statement, with its values; None where that takes several."""
        if self._plain is None or any(entry.groups or entry.since for entry in entries):
            return None
        # With keys, `wake` also gives tasks their turns.
        is_plain = all(entry.fairness_key is None for entry in entries)
        return PushStatement(
            *self._plain.push(queue, self._pushed_rows(queue, entries)),
            self._wakeup.statement(TASKS) if is_plain else None,
            lambda: self._wakeup.note_changes([TASKS]),
        )

    def _pushed_rows(self, queue: str, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        self._fair.note_pushed(queue, entries)
        clock = utc_now().timestamp()
        return [
            {
                "agent_id": entry.agent_id.hex,
                "priority": entry.priority,
                "lane": waiting_lane(entry),
                # Tasks of one push keep their order.
                "shift": int((entry.run_at - clock) * MICROS_PER_SECOND) if entry.run_at > clock else place,
                "epoch": entry.epoch,
                **fairness_columns(entry),
            }
            for place, entry in enumerate(entries)
        ]

    def wake(self, queue: str, count: int) -> None:
        self._wakeup.announce(TASKS)
        self._fair.help_rank(queue)

    def wait(self, queue: str | Sequence[str], timeout: float) -> None:
        marks = self._marks.__dict__.setdefault("by_queue", {})
        names = (queue,) if isinstance(queue, str) else queue
        self._wakeup.note_queues(names)
        # The earliest: a task may have come to the queue that was claimed from first.
        found = [mark for name in names if (mark := marks.pop(name, None)) is not None]
        self._wakeup.wait(min(found) if found else self._wakeup.mark(), timeout)

    @retry_on_deadlock
    def renew(self, queue: str, worker: str, leases: Sequence[Lease], lease_seconds: float) -> LostLeases:
        lost = LostLeases([], [])
        for chunk in chunks(leases):
            with writing(self._engine, relaxed=True) as connection:
                wanted = sorted(lease.agent_id for lease in chunk)
                rows = connection.execute(self._tasks.lock, {"ids": wanted}).all()
                epochs = {row.agent_id: row.epoch for row in rows}
                ours = [lease.agent_id for lease in chunk if epochs.get(lease.agent_id) == lease.epoch]
                if ours:
                    self._hold_again(connection, [row for row in rows if row.agent_id in {*ours}])
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

    def _hold_again(self, connection: Connection, rows: Sequence[Any]) -> None:
        """Let those tasks into their groups that are renewed after they went back to the queue."""
        if strays := [row.agent_id for row in rows if row.grouped and row.lane != LEASED]:
            connection.execute(self._groups.sql.hold, {"ids": strays})

    @retry_on_deadlock
    def finish(self, queue: str, leases: Sequence[Lease], *, transaction: Connection | None = None) -> None:
        """Forget finished tasks. Within a transaction with row locks those with groups stay, which `unfinished` returns."""
        if not leases:
            return
        # In the caller's transaction nobody may read a count, nor lock a group until its commit.
        reads = transaction is None or not self._groups.has_row_locks
        with self._transaction(transaction) as connection:
            freed = self._finish_by_epoch(connection, queue, leases, reads=reads)
            if transaction is not None and has_single_writer(self._engine):
                self.tell_within(transaction, [lease.agent_id for lease in leases])
        if freed and transaction is None:
            self._wakeup.announce(TASKS)
        self._freed_in_transaction |= freed and transaction is not None

    def _finish_by_epoch(
        self, connection: Connection, queue: str, leases: Sequence[Lease], *, reads: bool
    ) -> bool:
        """Forget finished tasks; return True if others go on."""
        freed = False
        by_epoch = sorted(leases, key=lambda lease: (lease.epoch, lease.agent_id.int))
        for epoch, group in itertools.groupby(by_epoch, key=lambda lease: lease.epoch):
            for chunk in chunks([lease.agent_id for lease in group]):
                left = self._finish_plain(connection, epoch, chunk, reads=reads)
                if reads and left:
                    freed |= self._finish_grouped(connection, queue, epoch, left)
        return freed

    def _finish_plain(
        self, connection: Connection, epoch: int, agent_ids: Sequence[UUID], *, reads: bool
    ) -> Sequence[UUID]:
        """Forget those of finished tasks that have no groups, and return those that may have some."""
        grouped = [agent_id for agent_id in agent_ids if agent_id in self._claimed_groups]
        plain = [agent_id for agent_id in agent_ids if agent_id not in self._claimed_groups]
        if plain:
            done = connection.execute(self._tasks.finish, {"epoch": epoch, "ids": plain})
            if reads and done.rowcount < len(plain):
                return agent_ids
        return grouped

    def unfinished(self, leases: Sequence[Lease]) -> list[Lease]:
        """Return the tasks that `finish` leaves to a call outside the caller's transaction; to be called after its commit."""
        if self._freed_in_transaction:
            # Not earlier: who wakes up before the commit finds nothing.
            self._freed_in_transaction = False
            self._wakeup.announce(TASKS)
        return [lease for lease in leases if lease.agent_id in self._claimed_groups]

    def _finish_grouped(
        self, connection: Connection, queue: str, epoch: int, agent_ids: Sequence[UUID]
    ) -> bool:
        """Forget those of finished tasks that have groups; return True if others go on."""
        members = self._groups.members(connection, agent_ids)
        self._claimed_groups.difference_update(agent_ids)
        if not members:
            return False
        self._groups.lock(connection, queue, {name for groups in members.values() for name in groups})
        rows = connection.execute(self._tasks.lock_grouped, {"epoch": epoch, "ids": sorted(members)}).all()
        return bool(rows) and self._forget_grouped(connection, sorted(row.agent_id for row in rows), members)

    def _forget_grouped(
        self, connection: Connection, agent_ids: Sequence[UUID], members: Mapping[UUID, Mapping[str, int]]
    ) -> bool:
        """Remove tasks with groups, which are locked, and let the next ones in; return True if there are any."""
        connection.execute(self._tasks.remove, {"ids": agent_ids})
        names = {name for agent_id in agent_ids for name in members[agent_id]}
        freed = self._groups.advance(connection, agent_ids, names)
        connection.execute(self._groups.sql.forget, {"ids": agent_ids})
        return freed

    @retry_on_deadlock
    def release(self, queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        values = self._params(
            id=lease.agent_id, epoch=lease.epoch, delay=int(delay * MICROS_PER_SECOND), grouped=0
        )
        with writing(self._engine, relaxed=True) as connection:
            released = connection.execute(self._tasks.release, values).rowcount > 0
            if not released:
                released = self._release_grouped(connection, queue, lease, values | {"grouped": 1})
        self._wakeup.announce(TASKS)
        return released

    def _release_grouped(
        self, connection: Connection, queue: str, lease: Lease, values: dict[str, Any]
    ) -> bool:
        """Give a task with groups back: it leaves its limits, and keeps its lock."""
        groups = self._groups.members(connection, [lease.agent_id]).get(lease.agent_id)
        if not groups:
            return False
        self._groups.lock(connection, queue, groups)
        if connection.execute(self._tasks.release, values).rowcount == 0:
            return False
        self._claimed_groups.discard(lease.agent_id)
        if limits := [name for name in groups if not is_lock(name)]:
            connection.execute(self._groups.sql.leave_limits, {"ids": [lease.agent_id]})
            self._groups.advance(connection, [lease.agent_id], limits)
        return True

    @retry_on_deadlock
    def make_ready(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        for chunk in chunks(agent_ids):
            with writing(self._engine, relaxed=True) as connection:
                connection.execute(self._tasks.make_ready, self._params(queue=queue, ids=chunk))
        self._wakeup.announce(TASKS)

    @retry_on_deadlock
    def restore(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> None:
        with writing(self._engine, relaxed=True) as connection:
            self._insert(connection, queue, entries, leased_for=lease_seconds)

    def expired_leases(self, queue: str, limit: int) -> list[Lease]:
        self._sweep()
        if not self._any_expired.read(self._params(queue=queue))[0][0]:
            return []
        return self._expired(queue, limit)

    def inspect(self, queue: str, limit: int) -> Inspection:
        """Return what `is_intact` and `expired_leases` do, with one statement: a worker asks each second."""
        self._sweep()
        [(mark, any_expired)] = self._inspect.read(self._params(queue=queue, name=INTACT + queue))
        return Inspection(bool(mark), self._expired(queue, limit) if any_expired else [])

    def _expired(self, queue: str, limit: int) -> list[Lease]:
        rows = self._read(self._tasks.expired, self._params(queue=queue, most=limit))
        return [Lease(row.agent_id, row.epoch) for row in rows]

    def worker_leases(self, queue: str, worker: str) -> list[Lease]:
        rows = self._read(self._tasks.of_worker, {"queue": queue, "worker": worker})
        return [Lease(row.agent_id, row.epoch) for row in rows]

    def holder(self, queue: str, agent_id: UUID) -> str | None:
        """Return the worker that holds the lease of a task; None if nobody does. Reads only, for display."""
        with reading(self._engine) as connection:
            return connection.execute(self._tasks.holder, {"queue": queue, "id": agent_id}).scalar()

    def waiting_for(self, queue: str, agent_id: UUID) -> Waiting | None:
        """Return the group for which a task waits, None if it does not. Reads only, for display."""
        with reading(self._engine) as connection:
            row = connection.execute(self._groups.sql.waiting_before, {"id": agent_id}).first()
            if row is None:
                return None
            values = {"queue": queue, "names": [row.name]}
            holders = connection.execute(self._groups.sql.holders, values).scalars().all()
        return Waiting(row.name, int(row.before_it), list(holders))

    @retry_on_deadlock
    def remove(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
        holders: dict[UUID, str] = {}
        freed = False
        for chunk in chunks(sorted(agent_ids)):
            with writing(self._engine) as connection:
                members = self._groups.members(connection, chunk)
                if members:
                    names = {name for groups in members.values() for name in groups}
                    self._groups.lock(connection, queue, names)
                rows = connection.execute(self._tasks.lock, {"ids": chunk}).all()
                if rows:
                    connection.execute(self._tasks.remove, {"ids": [row.agent_id for row in rows]})
                if members:
                    freed |= self._forget_grouped(connection, sorted(members), members)
            holders |= {row.agent_id: row.worker for row in rows if row.worker}
        if freed:
            self._wakeup.announce(TASKS)
        return holders

    def _transaction(self, transaction: Connection | None) -> AbstractContextManager[Connection]:
        return writing(self._engine) if transaction is None else nullcontext(transaction)

    def _insert(
        self, connection: Connection, queue: str, entries: Sequence[Entry], *, leased_for: float | None
    ) -> None:
        if leased_for is None and self._tasks.insert_alike is not None and _are_plain(entries):
            first = entries[0]
            values = self._params(
                ids=[entry.agent_id for entry in entries],
                queue=queue,
                priority=int(first.priority),
                epoch=first.epoch,
            )
            connection.execute(self._tasks.insert_alike, values)
            return
        if leased_for is None:
            self._fair.note_pushed(queue, entries)
            places = self._places(connection, entries)
        else:
            places = [{"shift": int(leased_for * MICROS_PER_SECOND), "place": None}] * len(entries)
        rows, members = [], []
        for place, entry in zip(places, entries, strict=True):
            rows.append(
                self._params(
                    id=entry.agent_id,
                    queue=queue,
                    priority=int(entry.priority),
                    lane=LEASED if leased_for is not None else waiting_lane(entry),
                    **place,
                    epoch=entry.epoch,
                    worker=None,
                    **fairness_columns(entry),
                    grouped=int(bool(entry.groups)),
                )
            )
            members += members_of(queue, entry, self._params(**place), leased=leased_for is not None)
        if members:
            self._groups.join(connection, members)
        if rows:
            connection.execute(self._tasks.insert, rows[0] if len(rows) == 1 else rows)

    def _places(self, connection: Connection, entries: Sequence[Entry]) -> list[dict[str, int | None]]:
        """Return the place of each task that is pushed: the microseconds from now to it, or the moment itself.

        A task that was accepted before others goes to its own moment. Seen from now, it would be late by the time until its
        insert, and so come after tasks that were accepted right after it.
        """
        clock, moment = utc_now().timestamp(), 0
        if any(entry.since for entry in entries):
            moment = int(connection.execute(self._tasks.clock, self._params()).scalar_one())
        places: list[dict[str, int | None]] = []
        for number, entry in enumerate(entries):
            if entry.run_at > clock:
                places.append({"shift": int((entry.run_at - clock) * MICROS_PER_SECOND), "place": None})
            elif entry.since:
                places.append({"shift": 0, "place": min(moment, round(entry.since * MICROS_PER_SECOND))})
            else:
                # Tasks of one push keep their order.
                places.append({"shift": number, "place": None})
        return places


def _are_plain(entries: Sequence[Entry]) -> bool:
    """Return True for tasks of one priority and epoch that may start now, and have no key, group or place of their own."""
    if not entries:
        return False
    first = entries[0]
    plain = Entry(first.agent_id, first.priority, epoch=first.epoch)[1:]
    return all(entry[1:] == plain for entry in entries)
