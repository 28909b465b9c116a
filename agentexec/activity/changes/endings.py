"""Endings of attempts and tasks: by their handler, from outside a worker, and back to the queue."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.sql import Executable

from agentexec.activity.changes.statements import LOG, statements_for
from agentexec.db.chunks import chunks
from agentexec.task import ACTIVE_STATUSES, FAILED_STATUSES, Lease, Status

_BY_INT = operator.attrgetter("int")
"""Order of UUIDs; much faster than their own comparison, which is Python."""


class Ending(NamedTuple):
    """The end of an attempt. COMPLETE and ERROR end the task too; QUEUED gives it back to the queue.

    `delay`: seconds until it may start again; `counts_as_attempt`: False gives the attempt back too, because a drain is
    not the task's fault; `awaited_kinds`: the kinds of what it waits for, which may have arrived before it is back on
    the queue.
    """

    lease: Lease
    status: Status
    message: str
    result: str | None = None
    error: str | None = None
    delay: float = 0.0
    counts_as_attempt: bool = True
    awaited_kinds: frozenset[str] = frozenset()

    @property
    def row_values(self) -> tuple[object, ...]:
        """The values that it gives the activity's row; endings with the same values share a statement."""
        return (self.status, self.message, self.error, self.delay, self.counts_as_attempt)


def end(
    connection: Connection,
    template: Ending,
    ids: Sequence[UUID],
    now: datetime,
    *,
    crashes: int = 0,
    is_failure: bool | None = None,
    may_have_webhooks: bool = True,
    frees_lock: bool = True,
) -> None:
    """End tasks as `template` says, with a log line each, and add `crashes` to their counts.

    `is_failure`: what follows a failure follows the ending too, by default if it is ERROR. `may_have_webhooks`: False saves
    a statement where the caller has seen the rows. `frees_lock`: False keeps the lock of tasks whose handlers still run.
    """
    sql = statements_for(connection)
    values = {
        "new_status": template.status,
        "ends": template.status.final and frees_lock,
        "new_percentage": 100 if template.status is Status.COMPLETE else None,
        "new_message": template.message,
        "new_error": template.error,
        "now": now,
        "finished": now if template.status.final else None,
        "new_run_at": now + timedelta(seconds=template.delay) if template.delay else None,
        "uncounted": 0 if template.counts_as_attempt else 1,
        "more_crashes": crashes,
    }
    for chunk in chunks(ids):
        connection.execute(sql.end, {"ids": chunk, **values})
        connection.execute(sql.insert_log_lines, {"ids": chunk, "now": now})
        if template.status is Status.ERROR or is_failure:
            connection.execute(sql.follow_failures, {"ids": chunk, "now": now})
        elif template.status.final and may_have_webhooks:
            connection.execute(sql.follow_others, {"ids": chunk, "now": now})


def end_from_outside(
    connection: Connection,
    agent_ids: Sequence[UUID],
    *,
    status: Status,
    message: str,
    error: str | None,
    now: datetime,
    from_statuses: frozenset[Status] = ACTIVE_STATUSES,
) -> list[UUID]:
    """End active tasks from outside a worker (cancel, `activity.complete`); return the ids of those that ended.

    A task that runs keeps its lock until its handler has stopped, see `activity.changes.locks`.
    """
    sql = statements_for(connection)
    rows = select_rows(connection, sql.select_state, agent_ids)
    rows = [row for row in rows if row.status in from_statuses]
    locking = {row.agent_id for row in rows if row.status is Status.RUNNING and row.held_lock is not None}
    ids = [row.agent_id for row in rows]
    for part, frees_lock in (
        ([known for known in ids if known not in locking], True),
        (sorted(locking), False),
    ):
        if part:
            ending = Ending(Lease(part[0], 0), status, message, error=error)
            end(connection, ending, part, now, frees_lock=frees_lock)
    return ids


class Requeued(NamedTuple):
    """A task that is QUEUED again, with the values that its queue needs."""

    agent_id: UUID
    queue: str
    priority: int
    epoch: int
    fairness_key: str | None
    fairness_weight: float | None
    agent_type: str
    lock_key: str | None
    concurrency_key: str | None
    held_lock: None = None


def requeue_ended(
    connection: Connection, agent_ids: Sequence[UUID], *, message: str, now: datetime
) -> list[Requeued]:
    """Make tasks that ended in ERROR or CANCELED QUEUED again, forget their crashes and versions, and return them.

    Tasks that a call with the same `message` and `now` has requeued are left as they are, and returned too.
    """
    sql = statements_for(connection)
    rows = [row for row in select_rows(connection, sql.select_state, agent_ids) if row.queue is not None]
    done = with_log_line(connection, [row.agent_id for row in rows], message, now)
    rows = [row for row in rows if row.status in FAILED_STATUSES or row.agent_id in done]
    if ids := [row.agent_id for row in rows if row.agent_id not in done]:
        end(connection, Ending(Lease(ids[0], 0), Status.QUEUED, message), ids, now)
        for chunk in chunks(ids):
            connection.execute(sql.begin_again, {"ids": chunk})
    return [_requeued(row) for row in rows]


def _requeued(row: Any) -> Requeued:
    return Requeued(*(getattr(row, name) for name in Requeued._fields[:-1]))


def with_log_line(connection: Connection, agent_ids: Sequence[UUID], message: str, at: datetime) -> set[UUID]:
    """Return the activities with this very log line: a change was made by an earlier try, whose commit was not confirmed."""
    found: set[UUID] = set()
    for chunk in chunks(agent_ids):
        lines = select(LOG.c.activity_id).where(
            LOG.c.activity_id.in_(chunk), LOG.c.created_at == at, LOG.c.message == message
        )
        found.update(connection.execute(lines).scalars())
    return found


def select_rows(connection: Connection, statement: Executable, ids: Sequence[UUID]) -> list[Any]:
    """Lock and return the rows of activities."""
    # In key order: two transactions that lock the same rows in different orders would deadlock.
    ordered = sorted(ids, key=_BY_INT)
    rows: list[Any] = []
    for chunk in chunks(ordered):
        rows += connection.execute(statement, {"ids": chunk}).all()
    return rows


def find_busy(connection: Connection, ids: Collection[UUID], rows: Sequence[Any]) -> set[UUID]:
    """Return the activities that a statement with SKIP LOCKED has left out of `rows`: others have locked them.

    `ids` are different ones.
    """
    if len(rows) == len(ids) or not (missing := {*ids} - {row.agent_id for row in rows}):
        return set()
    known = statements_for(connection).select_known
    return {row.agent_id for row in select_rows(connection, known, list(missing))}
