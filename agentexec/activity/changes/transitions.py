"""New tasks, starts and reports; with `endings`, every change of a status, as functions on a transaction.

Each takes rows under a lock first (on SQLite the transaction holds the write lock), decides, then writes in as
few statements as there are different values: a batch of a hundred tasks costs about what one does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, and_, update

from agentexec.activity.changes.endings import Ending, crashes_from_row, end, fail_poison_tasks, select_rows
from agentexec.activity.changes.statements import (
    ACTIVITY,
    INSERT_ACTIVITY,
    INSERT_LABEL,
    INSERT_LOG,
    INSERT_RESULT,
    UPDATE_PROGRESS,
    insert_task_statement,
    statements,
)
from agentexec.activity.queries.labels import label_rows
from agentexec.db.chunks import chunks
from agentexec.db.round_trips import batched
from agentexec.db.transactions import autocommitting
from agentexec.policy import Admission, CrashCounts, admit
from agentexec.task import ACTIVE_STATUSES, Lease, Status


class NewTask(NamedTuple):
    """A task as `enqueue` accepts it, all values checked. Moments are aware."""

    agent_id: UUID
    task_name: str
    context: str | None
    queue: str | None
    priority: int
    run_at: datetime | None
    metadata: dict[str, Any] | None
    idempotency_key: str | None
    message: str
    status: Status = Status.QUEUED
    parent_id: UUID | None = None


class Admitted(NamedTuple):
    """A task that may start now."""

    lease: Lease
    task_name: str
    context: str | None
    attempt: int
    crashes: CrashCounts


@dataclass(slots=True)
class Admissions:
    """What became of a batch of claims."""

    started: list[Admitted] = field(default_factory=list)
    ended: list[Lease] = field(default_factory=list)
    """To be acknowledged: the record has their end, or does not know them."""
    held: list[Lease] = field(default_factory=list)
    refused: list[Lease] = field(default_factory=list)
    poisoned: list[tuple[Lease, CrashCounts]] = field(default_factory=list)


class Progress(NamedTuple):
    """A progress report. `epoch` None: from outside a worker, accepted while the activity is active."""

    agent_id: UUID
    epoch: int | None
    message: str
    percentage: int | None
    at: datetime


def insert_tasks(connection: Connection, tasks: Sequence[NewTask], now: datetime) -> None:
    """Add tasks with their first log line, in `batched` statements.

    Raises IntegrityError, at the end of the batch, for an idempotency key that is taken.
    """
    connection.execute(INSERT_ACTIVITY, one_or_many(activity_rows(tasks, now)))
    connection.execute(INSERT_LOG, one_or_many(first_log_rows(tasks, now)))
    if labels := first_label_rows(tasks, now):
        connection.execute(INSERT_LABEL, one_or_many(labels))


def insert_single_task(engine: Engine, task: NewTask, now: datetime) -> None:
    """`insert_tasks` of one as a statement that is a transaction by itself: one round trip. PostgreSQL only."""
    [row] = activity_rows([task], now)
    labels = label_rows(task.metadata)
    row |= {"label_names": [name for name, _ in labels], "label_values": [value for _, value in labels]}
    with autocommitting(engine) as connection:
        connection.execute(insert_task_statement(), row)


def one_or_many(rows: list[dict[str, Any]]) -> dict[str, Any] | list[dict[str, Any]]:
    """Parameters for `execute`: a single row costs less by itself than as a list of one."""
    return rows[0] if len(rows) == 1 else rows


def activity_rows(tasks: Iterable[NewTask], now: datetime) -> list[dict[str, Any]]:
    """Parameters of INSERT_ACTIVITY."""
    return [
        {
            "agent_id": task.agent_id,
            "parent_id": task.parent_id,
            "agent_type": task.task_name,
            "status": task.status,
            "percentage": 0,
            "message": task.message,
            "created_at": now,
            "updated_at": now,
            "started_at": now if task.status is Status.RUNNING else None,
            "queue": task.queue,
            "priority": task.priority,
            "run_at": task.run_at,
            "epoch": 0,
            "attempt": 0,
            "crashes": 0,
            "idempotency_key": task.idempotency_key,
            "context": task.context,
            "metadata": task.metadata,
        }
        for task in tasks
    ]


def first_label_rows(tasks: Iterable[NewTask], now: datetime) -> list[dict[str, Any]]:
    """Parameters of INSERT_LABEL: a row for each value of each task's metadata."""
    return [
        {"agent_id": task.agent_id, "name": name, "value": value, "created_at": now}
        for task in tasks
        for name, value in label_rows(task.metadata)
    ]


def first_log_rows(tasks: Iterable[NewTask], now: datetime) -> list[dict[str, Any]]:
    """Parameters of INSERT_LOG for the first line of each task."""
    return [log_row(task.agent_id, now, task.status, task.message, 0) for task in tasks]


def log_row(
    agent_id: UUID, at: datetime, status: Status, message: str, percentage: int | None
) -> dict[str, Any]:
    """Parameters of INSERT_LOG."""
    return {
        "activity_id": agent_id,
        "created_at": at,
        "status": status,
        "message": message,
        "percentage": percentage,
    }


def admit_claims(
    connection: Connection,
    claims: Sequence[Lease],
    *,
    now: datetime,
    started_message: str,
    max_crashes: int,
    suspect_running: bool,
) -> Admissions:
    """Make claimed tasks RUNNING under their new epoch, where the record agrees. The transaction ends with it."""
    sql = statements(connection.dialect.name)
    outcome = Admissions()
    epochs = dict(claims)
    groups: dict[tuple[int, CrashCounts, bool], list[UUID]] = defaultdict(list)
    seen: set[UUID] = set()
    for row in select_rows(connection, sql.select_claimed, list(epochs)):
        lease = Lease(row.agent_id, epochs[row.agent_id])
        seen.add(row.agent_id)
        decision, crashes = admit(
            status=row.status,
            recorded_epoch=row.epoch,
            claimed_epoch=lease.epoch,
            crashes=crashes_from_row(row),
            max_crashes=max_crashes,
            suspect_running=suspect_running,
        )
        if decision is Admission.START:
            suspect_running = suspect_running or crashes.is_suspect(max_crashes)
            outcome.started.append(Admitted(lease, row.agent_type, row.context, row.attempt + 1, crashes))
            groups[lease.epoch, crashes, row.attempt > 0].append(row.agent_id)
        elif decision is Admission.ACKNOWLEDGE:
            outcome.ended.append(lease)
        elif decision is Admission.REFUSE:
            outcome.refused.append(lease)
        elif decision is Admission.HOLD:
            outcome.held.append(lease)
        else:
            outcome.poisoned.append((lease, crashes))
    # Not in the record: the enqueuing transaction was rolled back, or retention removed it.
    outcome.ended.extend(lease for lease in claims if lease.agent_id not in seen)
    with batched(connection, commit=True):
        for (epoch, crashes, again), ids in groups.items():
            message = started_message
            if again and crashes.total:
                message += f" (attempt after {crashes.total} crash(es))"
            start = {
                "new_epoch": epoch,
                "new_crashes": crashes.total,
                "new_in_row": crashes.consecutive,
                "new_message": message,
                "now": now,
            }
            for chunk in chunks(ids):
                connection.execute(sql.start, {"ids": chunk, **start})
                connection.execute(sql.insert_log_lines, {"ids": chunk, "now": now})
        if outcome.poisoned:
            fail_poison_tasks(connection, outcome.poisoned, "died without a word", now)
    return outcome


def clear_crashes(connection: Connection, lease: Lease) -> None:
    """Forget the crashes of a running task, and the attempts that ended in them."""
    c = ACTIVITY.c
    held = and_(c.agent_id == lease.agent_id, c.epoch == lease.epoch, c.status == Status.RUNNING)
    connection.execute(
        update(ACTIVITY).where(held).values(attempt=c.attempt - c.crashes, crashes=0, crashes_in_row=0)
    )


def record_changes(
    connection: Connection,
    progress: Sequence[Progress],
    endings: Sequence[Ending],
    *,
    now: datetime,
    result_ttl: int,
    acknowledge: Callable[[Connection, Sequence[Ending]], None] | None = None,
) -> Recorded:
    """Write progress reports, then endings, each fenced by its epoch. The transaction ends with it.

    `acknowledge` is called within it with the endings that are written, for statements whose result nobody reads.
    """
    sql = statements(connection.dialect.name)
    ids = list({*(report.agent_id for report in progress), *(ending.lease.agent_id for ending in endings)})
    rows = {row.agent_id: row for row in select_rows(connection, sql.select_state, ids)}
    refused: list[Lease] = []
    written: list[Ending] = []
    groups: dict[Hashable, list[Ending]] = defaultdict(list)
    results: list[dict[str, Any]] = []
    for ending in endings:
        row = rows.get(ending.lease.agent_id)
        if row is None or row.status is not Status.RUNNING or row.epoch != ending.lease.epoch:
            refused.append(ending.lease)
            continue
        written.append(ending)
        groups[ending.status, ending.message, ending.error, ending.delay, ending.counts_as_attempt].append(
            ending
        )
        if ending.status is Status.COMPLETE and ending.result is not None:
            results.append(
                {
                    "agent_id": ending.lease.agent_id,
                    "value": ending.result,
                    "expires_at": now + timedelta(seconds=result_ttl),
                }
            )
    with batched(connection, commit=True):
        _record_progress(connection, progress, rows)
        for group in groups.values():
            end(connection, group[0], [ending.lease.agent_id for ending in group], now)
        if results:
            connection.execute(INSERT_RESULT, one_or_many(results))
        if acknowledge is not None and written:
            acknowledge(connection, written)
    return Recorded(refused, [agent_id for agent_id in ids if agent_id not in rows])


def _record_progress(connection: Connection, progress: Sequence[Progress], rows: dict[UUID, Any]) -> None:
    accepted: list[Progress] = []
    for report in progress:
        row = rows.get(report.agent_id)
        if row is None or row.status not in ACTIVE_STATUSES:
            continue
        if report.epoch is None or (row.status is Status.RUNNING and row.epoch == report.epoch):
            accepted.append(report)
    if not accepted:
        return
    # An activity that the application runs by itself starts with its first report.
    begun = {
        r.agent_id
        for r in accepted
        if rows[r.agent_id].queue is None and rows[r.agent_id].status is Status.QUEUED
    }
    if begun:
        sql = statements(connection.dialect.name)
        connection.execute(sql.begin, {"ids": list(begun), "now": accepted[0].at})
    connection.execute(
        INSERT_LOG,
        [
            log_row(
                r.agent_id,
                r.at,
                Status.RUNNING if r.agent_id in begun else rows[r.agent_id].status,
                r.message,
                r.percentage,
            )
            for r in accepted
        ],
    )
    latest: dict[UUID, Progress] = {}
    for report in accepted:
        before = latest.get(report.agent_id)
        if report.percentage is None and before is not None:
            report = report._replace(percentage=before.percentage)
        latest[report.agent_id] = report
    connection.execute(
        UPDATE_PROGRESS,
        [
            {"id": r.agent_id, "new_message": r.message, "new_percentage": r.percentage, "now": r.at}
            for r in latest.values()
        ],
    )


class Recorded(NamedTuple):
    """What `record_changes` did not write: endings whose epoch was refused, and activities that are not there."""

    refused: list[Lease]
    unknown: list[UUID]
