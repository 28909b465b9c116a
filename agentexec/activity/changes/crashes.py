"""Crashes of worker processes: the tasks they ran return to the queue, or end after too many crashes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, and_, update

from agentexec.activity.changes.endings import Ending, end, find_busy, select_rows
from agentexec.activity.changes.statements import ACTIVITY, statements_for
from agentexec.activity.deaths import ended_line, requeued_line
from agentexec.policy import CrashCounts, attribute_crash, is_claim_of
from agentexec.task import Lease, Status

NO_CRASHES = CrashCounts()


class RunningTask(NamedTuple):
    """A task that a crashed process ran, with the crashes that its row counts."""

    lease: Lease
    crashes: CrashCounts
    task_name: str


class FailedTask(NamedTuple):
    """A task that has ended in ERROR without a handler that could tell."""

    agent_id: UUID
    task_name: str
    error: str


class CrashedTasks(NamedTuple):
    """The tasks of a crashed process: those to put back on the queue, those to acknowledge, and leases to drop."""

    requeue: list[Lease]
    acknowledge: list[Lease]
    contradicted: list[Lease]
    """Leases that the record contradicts: the reconciler adds their tasks again."""
    failed: list[FailedTask]
    """Those of the acknowledged that end now."""
    busy: list[Lease]
    """Those whose rows another process has locked, which may be frozen: nothing is decided about them yet."""


def record_crashes(
    connection: Connection,
    leases: Sequence[Lease],
    *,
    queue: str,
    reason: str,
    max_crashes: int,
    now: datetime,
    culprit: UUID | None = None,
) -> CrashedTasks:
    """Note the crash of a process that held leases of a queue: its tasks are QUEUED again, or ERROR after too many crashes.

    `reason` completes the sentence "The worker process …". `culprit` is the task that is known to have caused it.
    """
    ids = list(dict(leases))
    rows = select_rows(connection, statements_for(connection).select_crashed, ids)
    busy = find_busy(connection, ids, rows)
    outcome, running = _classify(queue, [lease for lease in leases if lease.agent_id not in busy], rows)
    outcome.busy.extend(lease for lease in leases if lease.agent_id in busy)
    requeued, poisoned = _attribute(running, max_crashes, culprit)
    message = requeued_line(reason)
    for counted in (True, False):
        ids = [lease.agent_id for lease, blamed in requeued if blamed is counted]
        if ids:
            ending = Ending(Lease(ids[0], 0), Status.QUEUED, message, counts_as_attempt=counted)
            end(connection, ending, ids, now, crashes=int(counted))
    outcome.requeue.extend(lease for lease, _ in requeued)
    if poisoned:
        outcome.failed.extend(fail_poison_tasks(connection, poisoned, reason, now))
        outcome.acknowledge.extend(task.lease for task in poisoned)
    return outcome


def _classify(
    queue: str, leases: Sequence[Lease], rows: Sequence[Any]
) -> tuple[CrashedTasks, list[RunningTask]]:
    """Separate the tasks that ran under their leases from those about which nothing has to be decided."""
    outcome = CrashedTasks([], [], [], [], [])
    unknown = dict(leases)
    running: list[RunningTask] = []
    for row in rows:
        lease = Lease(row.agent_id, unknown.pop(row.agent_id))
        is_ours = is_claim_of(
            queue, recorded_queue=row.queue, recorded_epoch=row.epoch, claimed_epoch=lease.epoch
        )
        if is_ours and row.status.final:
            outcome.acknowledge.append(lease)
        elif not is_ours or lease.epoch < row.epoch:
            # Its holder would have renewed it under the epoch of the record.
            outcome.contradicted.append(lease)
        elif row.status is Status.RUNNING and row.epoch == lease.epoch:
            running.append(RunningTask(lease, crashes_from_row(row), row.agent_type))
        else:
            # Claimed but not started: nothing ran, so nothing is counted.
            outcome.requeue.append(lease)
    outcome.acknowledge.extend(Lease(agent_id, epoch) for agent_id, epoch in unknown.items())
    return outcome, running


def _attribute(
    running: Sequence[RunningTask], max_crashes: int, culprit: UUID | None
) -> tuple[list[tuple[Lease, bool]], list[RunningTask]]:
    """Split the tasks of a crashed process into those that return, and whether blamed, and those that end."""
    blamed = attribute_crash([(task.lease.agent_id, task.crashes) for task in running], max_crashes, culprit)
    requeued: list[tuple[Lease, bool]] = []
    poisoned: list[RunningTask] = []
    for task in running:
        is_blamed = task.lease.agent_id in blamed
        if is_blamed and (after := task.crashes.incremented()).exceed_limit(max_crashes):
            poisoned.append(task._replace(crashes=after))
        else:
            requeued.append((task.lease, is_blamed))
    return requeued, poisoned


def fail_poison_tasks(
    connection: Connection, poisoned: Sequence[RunningTask], reason: str, now: datetime
) -> list[FailedTask]:
    """End tasks whose process crashed too often; the counts include the last crash. `reason` as above.

    Returns the tasks, to be logged once the transaction is committed.
    """
    groups: dict[CrashCounts, dict[UUID, str]] = defaultdict(dict)
    for task in poisoned:
        groups[task.crashes][task.lease.agent_id] = task.task_name
    failed: list[FailedTask] = []
    for crashes, names in groups.items():
        ids = list(names)
        times = f"for the {_ordinal(crashes.consecutive)} time"
        if crashes.total > crashes.consecutive:
            times += f" since its last recorded step ({crashes.total} times in all)"
        error = ended_line(reason, times)
        end(connection, Ending(Lease(ids[0], 0), Status.ERROR, error, error=error), ids, now, crashes=1)
        failed.extend(FailedTask(agent_id, name, error) for agent_id, name in names.items())
    return failed


def clear_crashes(connection: Connection, lease: Lease) -> None:
    """Forget the crashes of a running task, and the attempts that ended in them."""
    c = ACTIVITY.c
    held = and_(c.agent_id == lease.agent_id, c.epoch == lease.epoch, c.status == Status.RUNNING)
    connection.execute(
        update(ACTIVITY).where(held).values(attempt=c.attempt - c.crashes, crashes=0, crashes_in_row=0)
    )


def crashes_from_row(row: Any) -> CrashCounts:
    """Return the crashes that an activity's row counts."""
    return CrashCounts(row.crashes, row.crashes_in_row) if row.crashes or row.crashes_in_row else NO_CRASHES


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
