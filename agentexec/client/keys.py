"""Idempotency keys: the task that holds one, and when it is free again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from agentexec.activity.changes.new_tasks import NewTask, free_key
from agentexec.activity.models import Activity
from agentexec.client.debounce import merge_into_waiting
from agentexec.errors import UsageError
from agentexec.task import FAILED_STATUSES, Task

if TYPE_CHECKING:
    from agentexec.journal.recorder import Scope

_HOLDER = select(Activity.agent_id, Activity.agent_type, Activity.queue, Activity.status, Activity.parent_id)


def find_holder(connection: Connection, new: NewTask, scope: Scope | None) -> Task | None:
    """Return the task that holds the idempotency key of a new one, or into which a debounced one is merged.

    A task that failed or was canceled loses its key to the new one, unless that says `keep_key`.

    Args:
        scope: The running task, if the new one is enqueued in one. What it enqueued itself keeps its key: when it runs
            again after a crash, it must see the same task.
    """
    if new.debounce_key is not None:
        return merge_into_waiting(connection, new)
    if new.idempotency_key is None:
        return None
    row = connection.execute(_HOLDER.where(Activity.idempotency_key == new.idempotency_key)).one_or_none()
    if row is None:
        return None
    is_same = row.agent_id == new.agent_id  # its commit was not confirmed
    if (
        row.status in FAILED_STATUSES
        and not is_same
        and not new.keeps_key
        and not _may_be_own(row.parent_id, scope)
    ):
        free_key(connection, row.agent_id, FAILED_STATUSES)
        return None
    return Task(agent_id=row.agent_id, task_name=row.agent_type, queue_name=row.queue or "")


def contended_key(new: NewTask) -> UsageError:
    """Return the error of a task whose key others took each time that it was free."""
    return UsageError(
        f"Task {new.task_name} could not be recorded: other processes took and freed its key all the time. "
        "Call enqueue again."
    )


def _may_be_own(parent_id: object, scope: Scope | None) -> bool:
    """Return whether the running task may have enqueued a task; of a detached one the record does not say so."""
    return scope is not None and (scope.recorder.repeats or parent_id == scope.recorder.lease.agent_id)
