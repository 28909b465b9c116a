"""The state backend on the record's own database: SQLite, PostgreSQL, MySQL and MariaDB.

Pushing and acknowledging join the record's transactions, so an accepted task cannot lack its queue entry.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Engine, Uuid, bindparam, text
from sqlalchemy.exc import IntegrityError

from agentexec.config import Settings
from agentexec.db.chunks import chunks
from agentexec.db.columns import IdList
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.llm.rate_limits import Demand
from agentexec.state.backend import ClaimResult, Depth, LostLeases
from agentexec.state.messages import DONE, format_message
from agentexec.state.sql_backend.buckets import Buckets
from agentexec.state.sql_backend.messages import SqlEvents
from agentexec.state.sql_models import (
    LEASED,
    MICROS_PER_SECOND,
    NOW_SQL,
    Counter,
    Leader,
    Message,
    QueueEntry,
    Watch,
)
from agentexec.task import Entry, Lease, Priority

WATCH_SECONDS = 3600
MESSAGE_SECONDS = 60
SWEEP_SECONDS = 30.0
INTACT = "intact:"
"""Name of the counter that says that a queue's index is whole."""


IDS = {
    "sqlite": (bindparam("ids", type_=IdList()), "IN (SELECT value FROM json_each(:ids))"),
    "postgresql": (bindparam("ids", type_=ARRAY(Uuid())), "= ANY(CAST(:ids AS UUID[]))"),
}
"""One parameter for any number of ids: see `columns.id_in`."""


def create(settings: Settings, engine: Engine) -> SqlBackend:
    """The backend for an engine of the record."""
    return SqlBackend(engine)


class _Statements:
    """The SQL of one dialect."""

    def __init__(self, dialect: str) -> None:
        family = "mysql" if dialect == "mariadb" else dialect
        self.now = now = NOW_SQL.get(family, NOW_SQL["postgresql"])
        q, w, m, c, leader = (model.__tablename__ for model in (QueueEntry, Watch, Message, Counter, Leader))
        lock = "" if family == "sqlite" else " FOR UPDATE"
        skip = "" if family == "sqlite" else " FOR UPDATE SKIP LOCKED"
        insert, ignore = ("INSERT IGNORE", "") if family == "mysql" else ("INSERT", " ON CONFLICT DO NOTHING")
        ids, among = IDS.get(family, (bindparam("ids", expanding=True, type_=Uuid()), "IN :ids"))
        message_ids = bindparam("ids", expanding=True)
        one = bindparam("id", type_=Uuid())

        self.insert = text(
            f"{insert} INTO {q} (agent_id, queue, priority, lane, at, epoch, worker) "
            f"VALUES (:id, :queue, :priority, :lane, {now} + :shift, :epoch, :worker){ignore}"
        ).bindparams(one)
        self.peek = text(
            f"SELECT (SELECT MIN(at) FROM {q} WHERE queue = :queue AND lane = 0) AS high, "
            f"(SELECT MIN(at) FROM {q} WHERE queue = :queue AND lane = 1) AS low, {now} AS now_us"
        )
        self.pick = text(
            f"SELECT agent_id, epoch FROM {q} WHERE queue = :queue AND lane = :lane AND at <= {now} "
            f"ORDER BY at, agent_id LIMIT :most{skip}"
        ).columns(agent_id=Uuid())
        self.lease = text(
            f"UPDATE {q} SET lane = {LEASED}, at = {now} + :lease, epoch = epoch + 1, worker = :worker "
            f"WHERE agent_id {among}"
        ).bindparams(ids)
        self.select = (
            text(f"SELECT agent_id, epoch, worker FROM {q} WHERE agent_id {among}{lock}")
            .bindparams(ids)
            .columns(agent_id=Uuid())
        )
        self.known = (
            text(f"SELECT agent_id FROM {q} WHERE queue = :queue AND agent_id {among}")
            .bindparams(ids)
            .columns(agent_id=Uuid())
        )
        self.renew = text(
            f"UPDATE {q} SET lane = {LEASED}, at = {now} + :lease, worker = :worker WHERE agent_id {among}"
        ).bindparams(ids)
        self.finish = text(f"DELETE FROM {q} WHERE epoch = :epoch AND agent_id {among}").bindparams(ids)
        self.remove = text(f"DELETE FROM {q} WHERE agent_id {among}").bindparams(ids)
        self.release = text(
            f"UPDATE {q} SET lane = priority, at = CASE WHEN :delay > 0 THEN {now} + :delay ELSE -({now}) END, "
            f"worker = NULL WHERE agent_id = :id AND epoch = :epoch AND lane = {LEASED}"
        ).bindparams(one)
        self.make_ready = text(
            f"UPDATE {q} SET at = {now} WHERE queue = :queue AND lane < {LEASED} AND at > {now} AND agent_id {among}"
        ).bindparams(ids)
        self.expired = text(
            f"SELECT agent_id, epoch FROM {q} WHERE queue = :queue AND lane = {LEASED} AND at < {now} "
            f"ORDER BY at LIMIT :most"
        ).columns(agent_id=Uuid())
        self.held = text(
            f"SELECT agent_id, epoch FROM {q} WHERE queue = :queue AND lane = {LEASED} AND worker = :worker"
        ).columns(agent_id=Uuid())
        self.depth = text(
            f"SELECT COALESCE(SUM(CASE WHEN lane < {LEASED} AND at <= {now} THEN 1 ELSE 0 END), 0), "
            f"COALESCE(SUM(CASE WHEN lane < {LEASED} AND at > {now} THEN 1 ELSE 0 END), 0), "
            f"COALESCE(SUM(CASE WHEN lane = {LEASED} THEN 1 ELSE 0 END), 0) FROM {q} WHERE queue = :queue"
        )
        self.watch = text(
            f"{insert} INTO {w} (agent_id, mailbox, lapses_at) VALUES (:id, :mailbox, {now} + :seconds){ignore}"
        ).bindparams(one)
        self.rewatch = text(
            f"UPDATE {w} SET lapses_at = {now} + :seconds WHERE mailbox = :mailbox AND agent_id {among}"
        ).bindparams(ids)
        self.watchers = (
            text(f"SELECT agent_id, mailbox FROM {w} WHERE agent_id {among}")
            .bindparams(ids)
            .columns(agent_id=Uuid())
        )
        self.unwatch = text(f"DELETE FROM {w} WHERE agent_id {among}").bindparams(ids)
        self.send = text(f"INSERT INTO {m} (mailbox, text, sent_at) VALUES (:mailbox, :text, {now})")
        self.read = text(f"SELECT id, text FROM {m} WHERE mailbox = :mailbox ORDER BY id")
        self.forget = text(f"DELETE FROM {m} WHERE id IN :ids").bindparams(message_ids)
        self.sweep = (
            text(f"DELETE FROM {m} WHERE sent_at < {now} - {MESSAGE_SECONDS * MICROS_PER_SECOND}"),
            text(f"DELETE FROM {w} WHERE lapses_at < {now}"),
        )
        self.add = text(f"UPDATE {c} SET value = value + :amount WHERE name = :name")
        self.new_counter = text(f"INSERT INTO {c} (name, value) VALUES (:name, :amount)")
        self.count = text(f"SELECT value FROM {c} WHERE name = :name")
        self.keep_lead = text(
            f"UPDATE {leader} SET owner = :owner, until = {now} + :seconds "
            f"WHERE role = :role AND (owner = :owner OR until < {now})"
        )
        self.take_lead = text(
            f"{insert} INTO {leader} (role, owner, until) VALUES (:role, :owner, {now} + :seconds){ignore}"
        )
        self.resign = text(f"DELETE FROM {leader} WHERE role = :role AND owner = :owner")


class SqlBackend(SqlEvents):
    """See `agentexec.state.backend.StateBackend`."""

    transactional = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._sql = _Statements(engine.dialect.name)
        self._buckets = Buckets(engine, self._sql.now)
        self._marks = threading.local()
        self._next_sweep = 0.0

    def ping(self) -> None:
        self.depth("")

    def close(self) -> None:
        self._wakeup.close()

    # ---- queue -------------------------------------------------------------------------------------------

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
            # Without a lock, so that idle workers do not stand in the way of a writer.
            next_due = self._next_due(connection, queue)
        if next_due is None or next_due > 0 or limit < 1:
            return ClaimResult([], next_due)
        leases: list[Lease] = []
        with writing(self._engine, relaxed=True) as connection:
            for lane, most in ((Priority.LOW, low_quota), (Priority.HIGH, limit), (Priority.LOW, limit)):
                most = min(most, limit - len(leases))
                if most < 1:
                    continue
                rows = connection.execute(self._sql.pick, self._now(queue=queue, lane=lane, most=most)).all()
                if not rows:
                    continue
                ids = [row.agent_id for row in rows]
                lease = self._now(ids=ids, lease=int(lease_seconds * MICROS_PER_SECOND), worker=worker)
                connection.execute(self._sql.lease, lease)
                leases.extend(Lease(row.agent_id, row.epoch + 1) for row in rows)
            # With its slots filled a worker will claim again before it waits.
            return ClaimResult(leases, self._next_due(connection, queue) if len(leases) < limit else None)

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
                    values = self._now(ids=ours, lease=int(lease_seconds * MICROS_PER_SECOND), worker=worker)
                    connection.execute(self._sql.renew, values)
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
                    connection.execute(self._sql.finish, {"epoch": epoch, "ids": chunk})

    @retry_on_deadlock
    def release(self, queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        values = self._now(id=lease.agent_id, epoch=lease.epoch, delay=int(delay * MICROS_PER_SECOND))
        with writing(self._engine, relaxed=True) as connection:
            released = connection.execute(self._sql.release, values).rowcount > 0
        self._wakeup.announce()
        return released

    @retry_on_deadlock
    def make_ready(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        for chunk in chunks(agent_ids):
            with writing(self._engine, relaxed=True) as connection:
                connection.execute(self._sql.make_ready, self._now(queue=queue, ids=chunk))
        self._wakeup.announce()

    @retry_on_deadlock
    def restore(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> None:
        with writing(self._engine, relaxed=True) as connection:
            self._insert(connection, queue, entries, leased_for=lease_seconds)

    def expired_leases(self, queue: str, limit: int) -> list[Lease]:
        self._sweep()
        with reading(self._engine) as connection:
            rows = connection.execute(self._sql.expired, self._now(queue=queue, most=limit))
            return [Lease(row.agent_id, row.epoch) for row in rows]

    def worker_leases(self, queue: str, worker: str) -> list[Lease]:
        with reading(self._engine) as connection:
            rows = connection.execute(self._sql.held, {"queue": queue, "worker": worker})
            return [Lease(row.agent_id, row.epoch) for row in rows]

    def remove(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
        holders: dict[UUID, str] = {}
        for chunk in chunks(sorted(agent_ids)):
            with writing(self._engine) as connection:
                rows = connection.execute(self._sql.select, {"ids": chunk}).all()
                if rows:
                    connection.execute(self._sql.remove, {"ids": [row.agent_id for row in rows]})
            holders |= {row.agent_id: row.worker for row in rows if row.worker}
        return holders

    def unknown_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        known: set[UUID] = set()
        with reading(self._engine) as connection:
            for chunk in chunks(agent_ids):
                known.update(connection.execute(self._sql.known, {"ids": chunk, "queue": queue}).scalars())
        return [agent_id for agent_id in agent_ids if agent_id not in known]

    def depth(self, queue: str) -> Depth:
        with reading(self._engine) as connection:
            return Depth(*map(int, connection.execute(self._sql.depth, self._now(queue=queue)).one()))

    def is_intact(self, queue: str) -> bool:
        with reading(self._engine) as connection:
            return bool(connection.execute(self._sql.count, {"name": INTACT + queue}).scalar())

    def mark_intact(self, queue: str) -> None:
        values = {"name": INTACT + queue, "amount": 1}
        try:
            with writing(self._engine) as connection:
                if connection.execute(self._sql.add, values).rowcount == 0:
                    connection.execute(self._sql.new_counter, values)
        except IntegrityError:
            return  # another process noted it in the same moment

    # ---- signals -----------------------------------------------------------------------------------------

    def watch(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        seconds = WATCH_SECONDS * MICROS_PER_SECOND
        for chunk in chunks(agent_ids):
            rows = [self._now(id=agent_id, mailbox=mailbox, seconds=seconds) for agent_id in chunk]
            with writing(self._engine, relaxed=True) as connection:
                connection.execute(self._sql.rewatch, self._now(ids=chunk, mailbox=mailbox, seconds=seconds))
                connection.execute(self._sql.watch, rows)

    def notify_done(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        told = False
        for chunk in chunks(agent_ids):
            with reading(self._engine) as connection:
                # Most tasks are not waited for: no transaction for those.
                rows = connection.execute(self._sql.watchers, {"ids": chunk}).all()
            if not rows:
                continue
            told = True
            with writing(self._engine, relaxed=True) as connection:
                connection.execute(self._sql.unwatch, {"ids": [row.agent_id for row in rows]})
                messages = [
                    self._now(mailbox=row.mailbox, text=format_message(DONE, row.agent_id)) for row in rows
                ]
                connection.execute(self._sql.send, messages)
        if told:
            self._wakeup.announce()

    def send(self, mailbox: str, messages: Sequence[str]) -> None:
        if not messages:
            return
        with writing(self._engine, relaxed=True) as connection:
            connection.execute(
                self._sql.send, [self._now(mailbox=mailbox, text=message) for message in messages]
            )
        self._wakeup.announce()

    def receive(self, mailbox: str, timeout: float) -> list[str]:
        deadline = time.monotonic() + timeout
        while True:
            mark = self._wakeup.mark()
            with reading(self._engine) as connection:
                rows = connection.execute(self._sql.read, {"mailbox": mailbox}).all()
            if rows:
                with writing(self._engine, relaxed=True) as connection:
                    for chunk in chunks(rows):
                        connection.execute(self._sql.forget, {"ids": [row.id for row in chunk]})
                return [row.text for row in rows]
            left = deadline - time.monotonic()
            if left <= 0:
                return []
            self._wakeup.wait(mark, left)

    # ---- leadership --------------------------------------------------------------------------------------

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        values = self._now(role=role, owner=owner, seconds=int(seconds * MICROS_PER_SECOND))
        with writing(self._engine, relaxed=True) as connection:
            if connection.execute(self._sql.keep_lead, values).rowcount > 0:
                return True
            return connection.execute(self._sql.take_lead, values).rowcount > 0

    def release_leadership(self, role: str, owner: str) -> None:
        with writing(self._engine, relaxed=True) as connection:
            connection.execute(self._sql.resign, {"role": role, "owner": owner})

    def reserve(self, demands: Sequence[Demand], max_wait: float) -> float:
        return self._buckets.take(demands, max_wait)

    def settle(self, demands: Sequence[Demand]) -> None:
        self._buckets.take(demands, None)

    # ---- parts -------------------------------------------------------------------------------------------

    def _transaction(self, transaction: Connection | None) -> AbstractContextManager[Connection]:
        return writing(self._engine) if transaction is None else nullcontext(transaction)

    def _insert(
        self, connection: Connection, queue: str, entries: Sequence[Entry], *, leased_for: float | None
    ) -> None:
        clock = time.time()
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
                self._now(
                    id=entry.agent_id,
                    queue=queue,
                    priority=int(entry.priority),
                    lane=LEASED if leased_for is not None else int(entry.priority),
                    shift=shift,
                    epoch=entry.epoch,
                    worker=None,
                )
            )
        if rows:
            connection.execute(self._sql.insert, rows[0] if len(rows) == 1 else rows)

    def _next_due(self, connection: Connection, queue: str) -> float | None:
        """Seconds until a task may start, 0 if one may now; None if there is none."""
        high_at, low_at, now = connection.execute(self._sql.peek, self._now(queue=queue)).one()
        soonest = min((at for at in (high_at, low_at) if at is not None), default=None)
        return None if soonest is None else max(0.0, (soonest - now) / MICROS_PER_SECOND)

    def _select_epochs(self, connection: Connection, agent_ids: Sequence[UUID]) -> list[tuple[UUID, int]]:
        rows = connection.execute(self._sql.select, {"ids": sorted(agent_ids)})
        return [(row.agent_id, row.epoch) for row in rows]

    def _sweep(self) -> None:
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + SWEEP_SECONDS
        with writing(self._engine, relaxed=True) as connection:
            for statement in self._sql.sweep:
                connection.execute(statement, self._now())
            self._sweep_events(connection)
