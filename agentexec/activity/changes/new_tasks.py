"""New tasks and their first rows: the activity, the first line of its log, its labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, update

from agentexec.activity.changes.statements import INSERT_ACTIVITY, INSERT_LABEL, INSERT_LOG, INSERT_RESULT
from agentexec.activity.models import Activity
from agentexec.activity.queries.labels import label_rows
from agentexec.payloads.offloading import is_large
from agentexec.runtime import RUNTIME
from agentexec.task import Status


class NewTask(NamedTuple):
    """A task as `enqueue` accepts it: every value is checked, and moments are aware."""

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
    keeps_key: bool = False
    """True if a task that failed keeps the idempotency key of this one."""
    fairness_key: str | None = None
    fairness_weight: float = 1.0

    lock_key: str | None = None
    concurrency_key: str | None = None

    expires_at: datetime | None = None
    debounce_key: str | None = None
    debounce_seconds: float = 0.0
    debounce_maximum: float | None = None
    webhook: str | None = None
    trace_context: str | None = None
    budget: str | None = None


def with_context(new: NewTask) -> NewTask:
    """Return a task whose context, if it is large, is in the payload store. Blocks; to be called before the transaction."""
    if new.context is None or not is_large(new.context):
        return new
    return new._replace(context=RUNTIME.offload(new.agent_id, "context", new.context))


async def with_context_async(new: NewTask) -> NewTask:
    """Do what `with_context` does, without blocking the event loop."""
    return await RUNTIME.run_in_thread(with_context, new) if is_large(new.context) else new


def free_key(connection: Connection, agent_id: UUID, statuses: Collection[Status]) -> None:
    """Take the idempotency key from a task that has one of these statuses."""
    mine = (Activity.agent_id == agent_id, Activity.status.in_(statuses))
    connection.execute(update(Activity).where(*mine).values(idempotency_key=None))


def insert_tasks(connection: Connection, tasks: Sequence[NewTask], now: datetime) -> None:
    """Add tasks with their first log line, in statements that may be `batched`.

    Raises IntegrityError, at the end of the batch, for an idempotency key that is taken.
    """
    connection.execute(INSERT_ACTIVITY, one_or_many(activity_rows(tasks, now)))
    connection.execute(INSERT_LOG, one_or_many(first_log_rows(tasks, now)))
    if labels := first_label_rows(tasks, now):
        connection.execute(INSERT_LABEL, one_or_many(labels))


def insert_ended_task(
    connection: Connection, task: NewTask, status: Status, result: str | None, now: datetime
) -> None:
    """Add a task that has ended elsewhere, with its result, which is kept for a day."""
    row = activity_rows([task], now)[0]
    connection.execute(INSERT_ACTIVITY, {**row, "status": status, "finished_at": now})
    if result is not None:
        values = {"agent_id": task.agent_id, "value": result, "expires_at": now + timedelta(days=1)}
        connection.execute(INSERT_RESULT, values)


def one_or_many(rows: list[dict[str, Any]]) -> dict[str, Any] | list[dict[str, Any]]:
    """Return the parameters for `execute`: a single row costs less by itself than in a list."""
    return rows[0] if len(rows) == 1 else rows


def activity_rows(tasks: Iterable[NewTask], now: datetime) -> list[dict[str, Any]]:
    """Return the parameters of INSERT_ACTIVITY."""
    return [
        {
            "agent_id": task.agent_id,
            "parent_id": task.parent_id,
            "agent_type": task.task_name,
            "status": task.status,
            "percentage": 0,
            "message": task.message,
            # The order of a lock's tasks that are accepted together, should their queue be lost.
            "created_at": now if task.lock_key is None else now + timedelta(microseconds=place),
            "updated_at": now,
            "started_at": now if task.status is Status.RUNNING else None,
            "queue": task.queue,
            "priority": task.priority,
            "run_at": task.run_at,
            "epoch": 0,
            "attempt": 0,
            "crashes": 0,
            "idempotency_key": task.idempotency_key,
            "lock_key": task.lock_key,
            "concurrency_key": task.concurrency_key,
            "fairness_key": task.fairness_key,
            "fairness_weight": None if task.fairness_key is None else task.fairness_weight,
            "context": task.context,
            "metadata": task.metadata,
            "trace_context": task.trace_context,
            "expires_at": task.expires_at,
            "debounce_key": task.debounce_key,
            "webhook": task.webhook,
            "budget": task.budget,
        }
        for place, task in enumerate(map(with_context, tasks))
    ]


def first_label_rows(tasks: Iterable[NewTask], now: datetime) -> list[dict[str, Any]]:
    """Return the parameters of INSERT_LABEL: a row for each value of each task's metadata."""
    return [
        {"agent_id": task.agent_id, "name": name, "value": value, "created_at": now}
        for task in tasks
        for name, value in label_rows(task.metadata)
    ]


def first_log_rows(tasks: Iterable[NewTask], now: datetime) -> list[dict[str, Any]]:
    """Return the parameters of INSERT_LOG for the first line of each task."""
    return [log_row(task.agent_id, now, task.status, task.message, 0) for task in tasks]


def log_row(
    agent_id: UUID, at: datetime, status: Status, message: str, percentage: int | None
) -> dict[str, Any]:
    """Return the parameters of INSERT_LOG."""
    return {
        "activity_id": agent_id,
        "created_at": at,
        "status": status,
        "message": message,
        "percentage": percentage,
    }
