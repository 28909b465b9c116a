"""How attempts and tasks end: by their handler, by the death of their process, from outside; and back to the queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.sql import Executable

from agentexec.activity.changes.statements import statements
from agentexec.db.chunks import chunks
from agentexec.policy import CrashCounts, attribute_crash
from agentexec.task import ACTIVE_STATUSES, Lease, Status


class Ending(NamedTuple):
    """The end of an attempt. COMPLETE and ERROR are the task's end; QUEUED gives it back.

    `delay`: seconds until it may start again; `counts_as_attempt`: False gives the attempt back too (a drain is no fault);
    `awaited_kinds`: the kinds of what it waits for, which may be there by now.
    """

    lease: Lease
    status: Status
    message: str
    result: str | None = None
    error: str | None = None
    delay: float = 0.0
    counts_as_attempt: bool = True
    awaited_kinds: frozenset[str] = frozenset()


def end(connection: Connection, like: Ending, ids: list[UUID], now: datetime, *, deaths: int = 0) -> None:
    """Give tasks the same ending, with its log line."""
    sql = statements(connection.dialect.name)
    values = {
        "new_status": like.status,
        "new_percentage": 100 if like.status is Status.COMPLETE else None,
        "new_message": like.message,
        "new_error": like.error,
        "now": now,
        "finished": now if like.status.final else None,
        "new_run_at": now + timedelta(seconds=like.delay) if like.delay else None,
        "uncounted": 0 if like.counts_as_attempt else 1,
        "deaths": deaths,
    }
    for chunk in chunks(ids):
        connection.execute(sql.end, {"ids": chunk, **values})
        connection.execute(sql.insert_log_lines, {"ids": chunk, "now": now})


class Deaths(NamedTuple):
    """What became of the tasks of a dead process: to be put back on the queue, and to be acknowledged."""

    requeue: list[Lease]
    acknowledge: list[Lease]


def record_crashes(
    connection: Connection, leases: Sequence[Lease], *, reason: str, max_crashes: int, now: datetime
) -> Deaths:
    """Note the death of a process that held leases: its tasks are QUEUED again, or ERROR after too many deaths.

    `reason` completes the sentence "The worker process …".
    """
    sql = statements(connection.dialect.name)
    outcome = Deaths([], [])
    epochs = dict(leases)
    running: list[tuple[UUID, CrashCounts]] = []
    for row in select_rows(connection, sql.select_state, list(epochs)):
        lease = Lease(row.agent_id, epochs.pop(row.agent_id))
        if row.status.final:
            outcome.acknowledge.append(lease)
        elif row.status is Status.RUNNING and row.epoch == lease.epoch:
            running.append((row.agent_id, crashes_from_row(row)))
        else:
            # Claimed but not started: nothing ran, so nothing is counted.
            outcome.requeue.append(lease)
    outcome.acknowledge.extend(Lease(agent_id, epoch) for agent_id, epoch in epochs.items())
    epochs = dict(leases)
    blamed = attribute_crash(running, max_crashes)
    back = {True: [], False: []}  # type: dict[bool, list[UUID]]
    buried: list[tuple[Lease, CrashCounts]] = []
    for agent_id, crashes in running:
        lease = Lease(agent_id, epochs[agent_id])
        if agent_id in blamed and (after := crashes.incremented()).exceed_limit(max_crashes):
            buried.append((lease, after))
        else:
            back[agent_id in blamed].append(agent_id)
            outcome.requeue.append(lease)
    message = f"The worker process {reason}; the task goes back to the queue."
    for counted, ids in back.items():
        if ids:
            ending = Ending(Lease(ids[0], 0), Status.QUEUED, message, counts_as_attempt=counted)
            end(connection, ending, ids, now, deaths=int(counted))
    if buried:
        fail_poison_tasks(connection, buried, reason, now)
        outcome.acknowledge.extend(lease for lease, _ in buried)
    return outcome


def fail_poison_tasks(
    connection: Connection, buried: Sequence[tuple[Lease, CrashCounts]], reason: str, now: datetime
) -> None:
    """End tasks whose process died too often; the deaths include the last one. `reason` as above."""
    groups: dict[CrashCounts, list[UUID]] = defaultdict(list)
    for lease, crashes in buried:
        groups[crashes].append(lease.agent_id)
    for crashes, ids in groups.items():
        times = f"for the {_ordinal(crashes.consecutive)} time"
        if crashes.total > crashes.consecutive:
            times += f" since its last recorded step ({crashes.total} times in all)"
        error = f"The worker process {reason} while it ran this task, {times}; it is not tried again."
        end(connection, Ending(Lease(ids[0], 0), Status.ERROR, error, error=error), ids, now, deaths=1)


def crashes_from_row(row: Any) -> CrashCounts:
    """The deaths that an activity's row has."""
    return CrashCounts(row.crashes, row.crashes_in_row)


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


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
    """End active tasks from outside a worker (cancel, `activity.complete`); returns those that were ended."""
    sql = statements(connection.dialect.name)
    rows = select_rows(connection, sql.select_state, agent_ids)
    ids = [row.agent_id for row in rows if row.status in from_statuses]
    if ids:
        end(connection, Ending(Lease(ids[0], 0), status, message, error=error), ids, now)
    return ids


def put_back(connection: Connection, leases: Sequence[Lease], *, message: str, now: datetime) -> list[Lease]:
    """Make tasks that a stopping worker did not finish QUEUED again; returns those that were still its own."""
    sql = statements(connection.dialect.name)
    rows = {
        row.agent_id: row
        for row in select_rows(connection, sql.select_state, [lease.agent_id for lease in leases])
    }
    ours = [
        lease
        for lease in leases
        if (row := rows.get(lease.agent_id)) and row.status is Status.RUNNING and row.epoch == lease.epoch
    ]
    if ours:
        ending = Ending(ours[0], Status.QUEUED, message, counts_as_attempt=False)
        end(connection, ending, [lease.agent_id for lease in ours], now)
    return ours


def select_rows(connection: Connection, statement: Executable, ids: Sequence[UUID]) -> list[Any]:
    # In the order of the key: two transactions that lock the same rows in different orders would dead-lock.
    ordered = sorted(ids)
    return [row for chunk in chunks(ordered) for row in connection.execute(statement, {"ids": chunk})]


class Revived(NamedTuple):
    """A task that is QUEUED again, and what its queue needs to know of it."""

    agent_id: UUID
    queue: str
    priority: int
    epoch: int


def requeue_ended(
    connection: Connection, agent_ids: Sequence[UUID], *, message: str, now: datetime
) -> list[Revived]:
    """Make tasks QUEUED again that ended in ERROR or CANCELED; returns them. Their crashes are forgotten."""
    sql = statements(connection.dialect.name)
    rows = [
        row
        for row in select_rows(connection, sql.select_state, agent_ids)
        if row.status in (Status.ERROR, Status.CANCELED) and row.queue is not None
    ]
    if rows:
        ids = [row.agent_id for row in rows]
        end(connection, Ending(Lease(ids[0], 0), Status.QUEUED, message), ids, now)
        for chunk in chunks(ids):
            connection.execute(sql.reset_crashes, {"ids": chunk})
    return [Revived(row.agent_id, row.queue, row.priority, row.epoch) for row in rows]
