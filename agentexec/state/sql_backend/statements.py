"""Statements of the SQL backend, built for one dialect."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import (
    BindParameter,
    Dialect,
    TextClause,
    TextualSelect,
    TypeDecorator,
    Uuid,
    bindparam,
    text,
)

from agentexec.llm.rate_limits import MICROS_PER_SECOND
from agentexec.state.backend import EVENT_TTL_SECONDS, FOLLOW_TTL_SECONDS, MAIL_TTL_SECONDS, WATCH_TTL_SECONDS
from agentexec.state.sql_backend.dialects import SqlDialect
from agentexec.state.sql_models import (
    LEASED,
    PARKED,
    RANKED,
    UNRANKED,
    Counter,
    EventRow,
    Follow,
    Leader,
    Message,
    QueueEntry,
    Watch,
)

_ID_TEXT = re.compile("[0-9a-f]{32}")
_ID: BindParameter[Any] = bindparam("id", type_=Uuid())


class _FoundId(TypeDecorator[Any]):
    """Id of a task in a table that may hold anything: another value stays as it is, to be removed."""

    impl = Uuid
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        process = super().result_processor(dialect, coltype)
        if process is None or dialect.supports_native_uuid:
            return process  # the column holds ids only

        def read(value: Any) -> Any:
            # Strict: a row that UUID() reads, but that no query by id finds, would be claimed again and again.
            is_id = isinstance(value, str) and _ID_TEXT.fullmatch(value)
            return process(value) if is_id else value

        return read


def by_id(sql: str) -> TextClause:
    """Return a statement on one task, `id`."""
    return text(sql).bindparams(_ID)


def found_rows(sql: str, *parameters: BindParameter[Any]) -> TextualSelect:
    """Return a SELECT whose `agent_id` is a UUID, unless the table holds something else there."""
    return text(sql).bindparams(*parameters).columns(agent_id=_FoundId())


class QueueStatements:
    """Statements on tasks and their leases."""

    def __init__(self, dialect: SqlDialect) -> None:
        queue, now, ids = QueueEntry.__tablename__, dialect.now, dialect.ids
        in_ids = f"agent_id {dialect.in_ids}"
        waiting = f"(lane < {LEASED} OR lane >= {UNRANKED})"
        ranked = f"(lane >= {RANKED} AND lane < {UNRANKED})"

        self.clock = text(f"SELECT {now}")
        self.insert = by_id(
            f"{dialect.insert} INTO {queue} (agent_id, queue, priority, lane, at, epoch, worker, flow, step, grouped) "
            f"VALUES (:id, :queue, :priority, :lane, COALESCE(:place, {now} + :shift), :epoch, :worker, :flow, :step, "
            f":grouped){dialect.on_conflict}"
        )
        self.insert_alike = None
        if dialect.listed is not None:
            self.insert_alike = text(
                f"{dialect.insert} INTO {queue} (agent_id, queue, priority, lane, at, epoch, grouped) "
                f"SELECT value, :queue, :priority, :priority, {now} + key, :epoch, 0 FROM {dialect.listed} "
                f"WHERE true{dialect.on_conflict}"
            ).bindparams(ids)
        self.ready = found_rows(
            f"SELECT agent_id, epoch, lane, at, grouped FROM {queue} WHERE queue = :queue AND lane = :lane AND at <= {dialect.start} "
            f"ORDER BY at LIMIT :most{dialect.skip_locked}"
        )
        self.lease = text(
            f"UPDATE {queue} SET lane = {LEASED}, at = {now} + :lease, epoch = epoch + 1, worker = :worker "
            f"WHERE {in_ids}"
        ).bindparams(ids)
        self.lock = found_rows(
            f"SELECT agent_id, epoch, worker, lane, grouped FROM {queue} WHERE {in_ids}{dialect.for_update}",
            ids,
        )
        self.known = found_rows(f"SELECT agent_id FROM {queue} WHERE queue = :queue AND {in_ids}", ids)
        self.entries = found_rows(
            f"SELECT agent_id, queue, priority, lane, at, epoch, flow, grouped, {now} AS now_us FROM {queue} WHERE {in_ids}",
            ids,
        )
        self.page = found_rows(
            f"SELECT agent_id, epoch FROM {queue} WHERE queue = :queue AND agent_id > :after ORDER BY agent_id LIMIT :most",
            bindparam("after", type_=Uuid()),
        )
        self.renew = text(
            f"UPDATE {queue} SET lane = {LEASED}, at = {now} + :lease, worker = :worker WHERE {in_ids}"
        ).bindparams(ids)
        self.finish = text(
            f"DELETE FROM {queue} WHERE epoch = :epoch AND grouped = 0 AND {in_ids}"
        ).bindparams(ids)
        self.lock_grouped = found_rows(
            f"SELECT agent_id, epoch FROM {queue} WHERE epoch = :epoch AND grouped <> 0 AND {in_ids}"
            f"{dialect.for_update}",
            ids,
        )
        self.remove = text(f"DELETE FROM {queue} WHERE {in_ids}").bindparams(ids)
        self.remove_unreadable = text(f"DELETE FROM {queue} WHERE agent_id = :raw")
        self.release = by_id(
            f"UPDATE {queue} SET lane = CASE WHEN flow IS NULL THEN priority WHEN :delay > 0 THEN {UNRANKED} + priority "
            f"ELSE {RANKED} + priority END, at = CASE WHEN :delay > 0 THEN {now} + :delay ELSE -({now}) END, "
            f"worker = NULL WHERE agent_id = :id AND epoch = :epoch AND lane = {LEASED} AND grouped <= :grouped"
        )
        self.make_ready = text(
            f"UPDATE {queue} SET at = {now} WHERE queue = :queue AND {waiting} AND at > {now} AND {in_ids}"
        ).bindparams(ids)
        self.expired = found_rows(
            # Without those that a frozen process has locked: they cannot be given back, and must not hold up the others.
            f"SELECT agent_id, epoch FROM {queue} WHERE queue = :queue AND lane = {LEASED} AND at < {dialect.start} "
            f"ORDER BY at LIMIT :most{dialect.skip_locked}"
        )
        any_expired = f"EXISTS (SELECT 1 FROM {queue} WHERE queue = :queue AND lane = {LEASED} AND at < {dialect.start})"
        self.any_expired = text(f"SELECT {any_expired}")
        self.inspect = text(
            f"SELECT (SELECT value FROM {Counter.__tablename__} WHERE name = :name), {any_expired}"
        )
        self.of_worker = found_rows(
            f"SELECT agent_id, epoch FROM {queue} WHERE queue = :queue AND lane = {LEASED} AND worker = :worker"
        )
        self.holder = by_id(
            f"SELECT worker FROM {queue} WHERE agent_id = :id AND queue = :queue AND lane = {LEASED}"
        )
        self.depth = text(
            f"SELECT COALESCE(SUM(CASE WHEN {ranked} OR {waiting} AND at <= {now} THEN 1 ELSE 0 END), 0), "
            f"COALESCE(SUM(CASE WHEN {waiting} AND at > {now} THEN 1 ELSE 0 END), 0), "
            f"COALESCE(SUM(CASE WHEN lane = {LEASED} THEN 1 ELSE 0 END), 0), "
            f"COALESCE(SUM(CASE WHEN lane = {PARKED} THEN 1 ELSE 0 END), 0) FROM {queue} WHERE queue = :queue"
        )


class MessageStatements:
    """Statements on mailboxes, watches, live events and followers."""

    def __init__(self, dialect: SqlDialect) -> None:
        now, ids, ids_list = dialect.now, dialect.ids, bindparam("ids", expanding=True, type_=Uuid())
        watches, messages, events, follows = (
            model.__tablename__ for model in (Watch, Message, EventRow, Follow)
        )

        self.watch = _subscribe(dialect, watches)
        self.extend_watches = text(
            f"UPDATE {watches} SET lapses_at = {now} + :seconds WHERE mailbox = :mailbox AND agent_id {dialect.in_ids}"
        ).bindparams(ids)
        self.watchers = found_rows(
            f"SELECT agent_id, mailbox FROM {watches} WHERE agent_id {dialect.in_ids}", ids
        )
        self.unwatch = text(f"DELETE FROM {watches} WHERE agent_id {dialect.in_ids}").bindparams(ids)

        self.send = text(f"INSERT INTO {messages} (mailbox, text, sent_at) VALUES (:mailbox, :text, {now})")
        self.read = text(f"SELECT id, text FROM {messages} WHERE mailbox = :mailbox ORDER BY id")
        self.delete = text(f"DELETE FROM {messages} WHERE id IN :ids").bindparams(
            bindparam("ids", expanding=True)
        )

        self.last_events = found_rows(
            f"SELECT agent_id, MAX(number) AS last FROM {events} WHERE agent_id IN :ids GROUP BY agent_id",
            ids_list,
        )
        self.append_event = by_id(
            f"{dialect.insert} INTO {events} (agent_id, number, text, at) VALUES (:id, :number, :text, {now})"
            f"{dialect.on_conflict}"
        )
        self.trim_events = by_id(f"DELETE FROM {events} WHERE agent_id = :id AND number <= :oldest")
        self.drop_forged_events = by_id(f"DELETE FROM {events} WHERE agent_id = :id AND number > :newest")
        self.read_events = by_id(
            f"SELECT number, text FROM {events} WHERE agent_id = :id AND number > :after ORDER BY number"
        )

        self.follow = _subscribe(dialect, follows)
        self.extend_follows = text(
            f"UPDATE {follows} SET lapses_at = {now} + :seconds WHERE mailbox = :mailbox AND agent_id IN :ids"
        ).bindparams(ids_list)
        self.any_follower = text(f"SELECT 1 FROM {follows} LIMIT 1")
        self.followers = found_rows(
            f"SELECT agent_id, mailbox FROM {follows} WHERE agent_id IN :ids AND lapses_at > {now}", ids_list
        )

        self.sweep = (
            _sweep(dialect, messages, "sent_at", -MAIL_TTL_SECONDS, MAIL_TTL_SECONDS),
            _sweep(dialect, watches, "lapses_at", 0, 2 * WATCH_TTL_SECONDS),
            _sweep(dialect, events, "at", -EVENT_TTL_SECONDS, EVENT_TTL_SECONDS),
            _sweep(dialect, follows, "lapses_at", 0, 2 * FOLLOW_TTL_SECONDS),
        )
        """Statements that delete expired rows, and those that would never expire, which were forged."""


class ControlStatements:
    """Statements on counters and leaderships."""

    def __init__(self, dialect: SqlDialect) -> None:
        now, counters, leaders = dialect.now, Counter.__tablename__, Leader.__tablename__

        self.add = text(f"UPDATE {counters} SET value = value + :amount WHERE name = :name")
        self.new_counter = text(f"INSERT INTO {counters} (name, value) VALUES (:name, :amount)")
        self.count = text(f"SELECT value FROM {counters} WHERE name = :name")

        self.keep_leadership = text(
            f"UPDATE {leaders} SET owner = :owner, until = {now} + :seconds "
            f"WHERE role = :role AND (owner = :owner OR until < {now} OR until > {now} + :longest)"
        )
        self.take_leadership = text(
            f"{dialect.insert} INTO {leaders} (role, owner, until) VALUES (:role, :owner, {now} + :seconds)"
            f"{dialect.on_conflict}"
        )
        self.release_leadership = text(f"DELETE FROM {leaders} WHERE role = :role AND owner = :owner")


class BucketStatements:
    """Statements on token buckets, which are counters."""

    def __init__(self, dialect: SqlDialect) -> None:
        counters = Counter.__tablename__

        # In the order of the key, so two calls that want the same buckets never wait for each other.
        self.lock = text(
            f"SELECT name, value, {dialect.now} AS now_us FROM {counters} WHERE name IN :names ORDER BY name"
            f"{dialect.for_update}"
        ).bindparams(bindparam("names", expanding=True))
        self.create = text(
            f"{dialect.insert} INTO {counters} (name, value) VALUES (:name, 0){dialect.on_conflict}"
        )
        self.update = text(f"UPDATE {counters} SET value = :value WHERE name = :name")


def _sweep(dialect: SqlDialect, table: str, column: str, earliest: int, latest: int) -> TextClause:
    """Return the DELETE of rows whose time is not between two moments, in seconds from now."""
    first, last = (f"{dialect.now} + {seconds * MICROS_PER_SECOND}" for seconds in (earliest, latest))
    return text(f"DELETE FROM {table} WHERE {column} < {first} OR {column} > {last}")


def _subscribe(dialect: SqlDialect, table: str) -> TextClause:
    """Return the INSERT of a watch or follower, which leaves an existing one as it is."""
    return by_id(
        f"{dialect.insert} INTO {table} (agent_id, mailbox, lapses_at) VALUES (:id, :mailbox, {dialect.now} + :seconds)"
        f"{dialect.on_conflict}"
    )
