"""Canceling tasks: in the record first, then in the queue, then in the worker that runs them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from agentexec.activity.changes.endings import end_from_outside, with_log_line
from agentexec.activity.changes.locks import free_locks_now, tasks_with_kept_locks
from agentexec.activity.models import Activity
from agentexec.activity.queries.handle import find_task
from agentexec.arguments.actors import phrase
from agentexec.config import CONF
from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.state.messages import CANCEL, format_message
from agentexec.task import Status, Task, agent_id_of

log = logging.getLogger("agentexec.canceling")

MESSAGE = "Canceled{by}."


async def cancel(
    task: Task | UUID | str, *, metadata_filter: Mapping[str, Any] | None = None, by: str | None = None
) -> bool:
    """Cancel a task. A queued task never starts; the handler of a running task gets CancelledError.

    The tasks that it enqueued are canceled too, and the tasks that those enqueued, except detached ones. A handler that
    is a plain function cannot be interrupted; its result is dropped. A second call, for a task that is canceled already,
    cancels what the first one may have left below it.

    Args:
        task: Handle or agent_id of the task.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.
        by: Name of who does it, for the task's log.

    Returns:
        False if the task had ended before.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(_cancel, agent_id_of(task), metadata_filter, phrase(by), utc_now())


def cancel_sync(
    task: Task | UUID | str, *, metadata_filter: Mapping[str, Any] | None = None, by: str | None = None
) -> bool:
    """Cancel a task: `cancel` for code without an event loop, with the same arguments, result and errors."""
    return wait_out(_cancel, agent_id_of(task), metadata_filter, phrase(by), utc_now())


def _cancel(agent_id: UUID, metadata_filter: Mapping[str, Any] | None, by: str, now: datetime) -> bool:
    """Cancel a task. May be called again with the same `now` after UnavailableError."""
    queue, message = find_task(RUNTIME.engine, agent_id, metadata_filter).queue_name, message_of(by)
    with writing(RUNTIME.engine) as connection:
        ended = end_from_outside(
            connection, [agent_id], status=Status.CANCELED, message=message, error=None, now=now
        )
        is_canceled = bool(ended) or agent_id in with_log_line(connection, [agent_id], message, now)
        status = select(Activity.status).where(Activity.agent_id == agent_id)
        was_canceled = not is_canceled and connection.scalar(status) is Status.CANCELED
    if is_canceled:
        tell_workers(queue, [agent_id])
    if is_canceled or was_canceled:
        # Also if it was canceled before: whoever did so may have died before its children were.
        cancel_children([agent_id])
    return is_canceled


def cancel_children(agent_ids: Sequence[UUID]) -> None:
    """Cancel all tasks below some tasks. These have ended before, so they enqueue no more of them."""
    parents, seen = list(agent_ids), set(agent_ids)
    while parents:
        children: list[UUID] = []
        for chunk in chunks(parents):
            query = select(Activity.agent_id, Activity.queue).where(Activity.parent_id.in_(chunk))
            with reading(RUNTIME.engine) as connection:
                rows = connection.execute(query).all()
            # Whoever can write to the database can close a circle of parents.
            rows = [row for row in rows if row.agent_id not in seen]
            seen.update(row.agent_id for row in rows)
            children.extend(row.agent_id for row in rows)
            queues: dict[str, list[UUID]] = {}
            for row in rows:
                queues.setdefault(row.queue or CONF.queue_name, []).append(row.agent_id)
            for queue, agent_ids in queues.items():
                for part in chunks(agent_ids):
                    if ended := _end_children(part):
                        tell_workers(queue, ended)
        # Also below tasks that have ended, because tasks that they enqueued may still run.
        parents = children


def message_of(by: str) -> str:
    """Return the log line of a cancellation; `by` is the phrase that names who does it."""
    return MESSAGE.format(by=by)


@retry_on_deadlock
def _end_children(agent_ids: Sequence[UUID]) -> list[UUID]:
    with writing(RUNTIME.engine) as connection:
        return end_from_outside(
            connection,
            agent_ids,
            status=Status.CANCELED,
            message="Canceled with the task that enqueued it.",
            error=None,
            now=utc_now(),
        )


def tell_workers(queue: str, agent_ids: Sequence[UUID]) -> None:
    """Take canceled tasks out of their queue, and stop those that run."""
    # The record says CANCELED, so a worker that claims the task drops it, and a lease renewal finds a running one.
    with RUNTIME.best_effort(log, "The workers of %d canceled task(s) learn of it later.", len(agent_ids)):
        backend = RUNTIME.backend
        removed = backend.remove(queue, agent_ids)
        for agent_id, worker in removed.items():
            backend.send(worker, [format_message(CANCEL, agent_id)])
        # The workers of the others free their locks when the handlers have stopped.
        idle = [agent_id for agent_id in agent_ids if agent_id not in removed]
        if idle and (locking := tasks_with_kept_locks(RUNTIME.engine, idle)):
            free_locks_now(RUNTIME.engine, locking)
        backend.notify_done(queue, agent_ids)
