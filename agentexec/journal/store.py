"""The journal in the database: read as a whole, appended one row at a time, each append fenced by the task's epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnClause, Connection, Engine, Executable, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from agentexec.activity.models import Activity
from agentexec.db.columns import id_in
from agentexec.db.lock_limits import limiting_columns
from agentexec.db.round_trips import batched
from agentexec.db.transactions import has_single_writer, reading, writing
from agentexec.errors import AgentexecError, JournalConflictError, LeaseLostError
from agentexec.journal.facts import COUNTS, SAFE_KINDS, STEPS, Fact, FactKind, Usage, add_usage
from agentexec.journal.ledger import settle
from agentexec.journal.models import JournalEntry
from agentexec.payloads.columns import stored
from agentexec.payloads.sealing import unseal
from agentexec.task import Lease, Status

ACTIVITY: Any = Activity.__table__
JOURNAL: Any = JournalEntry.__table__

_THE_TASK = ACTIVITY.c.agent_id == bindparam("id", type_=ACTIVITY.c.agent_id.type)
_INSERT = insert(JOURNAL)
_LOCK = (
    select(ACTIVITY.c.status, ACTIVITY.c.epoch, ACTIVITY.c.usage, ACTIVITY.c.crashes_in_row)
    .where(_THE_TASK)
    .with_for_update()
)
_STATE = select(ACTIVITY.c.status, ACTIVITY.c.epoch).where(_THE_TASK)
_ADD_USAGE = (
    update(ACTIVITY)
    .where(_THE_TASK)
    .values(
        usage=bindparam("spent", type_=ACTIVITY.c.usage.type),
        **{name: func.coalesce(ACTIVITY.c[name], 0) + bindparam(f"more_{name}") for name in COUNTS},
    )
)
_RESET_CRASH_STREAK = update(ACTIVITY).where(_THE_TASK).values(crashes_in_row=0)


class Append(NamedTuple):
    """A fact to record, and the usage that belongs to it."""

    lease: Lease
    fact: Fact
    usage: Usage | None
    now: datetime


class JournalStore:
    """Store of recorded facts, for any database. Each append is one transaction.

    A subclass overrides what its database does in fewer round trips, and leaves the same rows.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Tasks whose rows others have locked are left out, also a single one: neither a frozen process nor a long
        # transaction of a user must keep the other tasks' facts from being written.
        self._lock_free = (
            select(ACTIVITY.c.agent_id, ACTIVITY.c.status, ACTIVITY.c.epoch, ACTIVITY.c.usage)
            .add_columns(ACTIVITY.c.crashes_in_row)
            .where(id_in(ACTIVITY.c.agent_id, engine.dialect.name))
            .order_by(ACTIVITY.c.agent_id)
            .with_for_update(skip_locked=True)
        )

    def append(self, lease: Lease, fact: Fact, usage: Usage | None, now: datetime) -> None:
        """Record one fact and the usage that belongs to it.

        A second call after an error with an unknown outcome is safe: a fact that is there already is not added twice.
        Raises LeaseLostError if another worker has the task, JournalConflictError if another fact is recorded in
        its place, UnavailableError.
        """
        try:
            # If the database server crashes, it may lose a response, which is asked for again, or an outcome, whose
            # intent then says that the outcome is unknown. An intent must be on disk before its call is made, and so must the
            # id of a background response before anybody waits for it.
            self._append(lease, fact, usage, now, relaxed=fact.kind not in SAFE_KINDS)
        except IntegrityError as error:
            if not self.is_recorded(lease, fact):
                raise JournalConflictError(lease.agent_id, fact.path) from error

    def _append(self, lease: Lease, fact: Fact, usage: Usage | None, now: datetime, *, relaxed: bool) -> None:
        with writing(self._engine, relaxed=relaxed) as connection:
            insert_fact(connection, lease, fact, usage, now, commit=True)

    def append_together(self, appends: Sequence[Append]) -> frozenset[int]:
        """Record facts of several tasks in one transaction, and return the places of those that are recorded.

        The others are to be appended alone: their tasks are lost, or locked by others. No task's usage may come twice,
        and none with a charge, whose accounts are locked in an order of their own.
        Raises UnavailableError, and whatever one of the facts causes: then none is known to be recorded.
        """
        if len(appends) == 1 and has_single_writer(self._engine):
            self.append(*appends[0])
            return frozenset([0])
        relaxed = all(append.fact.kind not in SAFE_KINDS for append in appends)
        return self._append_together(appends, relaxed=relaxed)

    def _append_together(self, appends: Sequence[Append], *, relaxed: bool) -> frozenset[int]:
        with writing(self._engine, relaxed=relaxed) as connection:
            ids = sorted({append.lease.agent_id for append in appends})
            found = {row.agent_id: row for row in connection.execute(self._lock_free, {"ids": ids})}
            rows = {
                place: row
                for place, append in enumerate(appends)
                if (row := found.get(append.lease.agent_id)) is not None and _is_held(row, append.lease)
            }
            if rows:
                with batched(connection, commit=True):
                    _insert_facts(connection, {appends[place]: row for place, row in rows.items()})
        return frozenset(rows)

    def is_recorded(self, lease: Lease, fact: Fact) -> bool:
        """Return True if this very fact is recorded: the commit of an earlier try was not confirmed."""
        query = select(stored(JOURNAL.c.value), JOURNAL.c.epoch).where(
            JOURNAL.c.agent_id == lease.agent_id, JOURNAL.c.path == fact.path, JOURNAL.c.seq == fact.seq
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None or row.epoch != lease.epoch:
            return False
        return row.value == fact.value or unseal(row.value) == fact.value

    def close(self) -> None:
        """Do nothing: the runtime closes the engine."""


def load_facts(engine: Engine, agent_id: UUID) -> list[Fact]:
    """Return every fact of a task, ordered by path and seq. Raises UnavailableError."""
    query = (
        select(JOURNAL.c.path, JOURNAL.c.seq, JOURNAL.c.kind, JOURNAL.c.input_hash, stored(JOURNAL.c.value))
        .where(JOURNAL.c.agent_id == agent_id)
        .order_by(JOURNAL.c.path, JOURNAL.c.seq)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    try:
        return [
            Fact(row.path, row.seq, FactKind(row.kind), row.input_hash, unseal(row.value)) for row in rows
        ]
    except ValueError:
        raise AgentexecError(
            f"The journal of task {agent_id} holds a row of an unknown kind, so the task cannot go on."
        ) from None


def insert_fact(
    connection: Connection,
    lease: Lease,
    fact: Fact,
    usage: Usage | None,
    now: datetime,
    *,
    commit: bool = False,
    was_users: bool = False,
) -> None:
    """Record one fact within the caller's transaction; `commit`: the transaction ends with it.

    `was_users`: users' code has run in the transaction, which gets its limits only now.
    Raises LeaseLostError, and IntegrityError if a fact is recorded in its place.
    """
    row = _lock(connection, lease, limiting_columns(connection) if was_users else ())
    with batched(connection, commit=commit):
        _insert_facts(connection, {Append(lease, fact, usage, now): row})


def _insert_facts(connection: Connection, appends: Mapping[Append, Any]) -> None:
    """Insert facts, with what follows from them for their tasks, whose rows are locked."""
    _execute(
        connection,
        _INSERT,
        [
            {
                "agent_id": append.lease.agent_id,
                "epoch": append.lease.epoch,
                "created_at": append.now,
                **append.fact._asdict(),
            }
            for append in appends
        ],
    )
    _add_usages(connection, appends)
    gone_on = {
        append.lease.agent_id
        for append, row in appends.items()
        if row.crashes_in_row and append.fact.kind in STEPS
    }
    _execute(connection, _RESET_CRASH_STREAK, [{"id": agent_id} for agent_id in gone_on])


def _add_usages(connection: Connection, appends: Mapping[Append, Any]) -> None:
    spending = [(append, append.usage, row) for append, row in appends.items() if append.usage is not None]
    _execute(
        connection,
        _ADD_USAGE,
        [
            {
                "id": append.lease.agent_id,
                "spent": add_usage(row.usage or {}, usage),
                **{f"more_{name}": count for name, count in usage.counts.items()},
            }
            for append, usage, row in spending
        ],
    )
    for append, usage, _ in spending:
        if usage.charge is not None:
            settle(connection, usage.charge, append.now)


def _execute(connection: Connection, statement: Executable, rows: Sequence[dict[str, Any]]) -> None:
    """Execute a statement for each of some rows; a single one goes without the work that many need."""
    if rows:
        connection.execute(statement, rows if len(rows) > 1 else rows[0])


def require_lease(connection: Connection, lease: Lease, *more: ColumnClause[Any]) -> Any:
    """Lock a task's row for the rest of the transaction, and return it with `more` columns.

    Raises LeaseLostError unless the task is RUNNING under the lease: its worker was taken for dead, or the task was
    canceled.
    """
    return _lock(connection, lease, more)


def check_lease(engine: Engine, lease: Lease) -> None:
    """Raise LeaseLostError unless the task is RUNNING under the lease now. Raises UnavailableError."""
    with reading(engine) as connection:
        row = connection.execute(_STATE, {"id": lease.agent_id}).one_or_none()
    _require_held(row, lease)


def is_canceled(engine: Engine, agent_id: UUID) -> bool:
    """Return True if a task is canceled. Raises UnavailableError."""
    with reading(engine) as connection:
        row = connection.execute(_STATE, {"id": agent_id}).one_or_none()
    return row is not None and row.status is Status.CANCELED


def _lock(connection: Connection, lease: Lease, more: Sequence[ColumnClause[Any]] = ()) -> Any:
    lock = _LOCK.add_columns(*more) if more else _LOCK
    row = connection.execute(lock, {"id": lease.agent_id}).one_or_none()
    _require_held(row, lease)
    return row


def _is_held(row: Any, lease: Lease) -> bool:
    return row.status is Status.RUNNING and row.epoch == lease.epoch


def _require_held(row: Any, lease: Lease) -> None:
    if row is None or not _is_held(row, lease):
        raise LeaseLostError(lease.agent_id)
