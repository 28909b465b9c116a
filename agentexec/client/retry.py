"""Requeuing tasks that failed or were canceled, on request."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from agentexec.activity.changes.endings import requeue_ended
from agentexec.activity.queries.handle import find_task
from agentexec.arguments.actors import phrase
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import writing
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Entry, Task, agent_id_of, stored_entry

log = logging.getLogger("agentexec.retrying")

MESSAGE = "Put back on the queue{by}."


async def retry(
    task: Task | UUID | str, *, metadata_filter: Mapping[str, Any] | None = None, by: str | None = None
) -> bool:
    """Put a task that ended in ERROR or CANCELED back on its queue, for one more attempt and as many as its `retries`.

    Its journal stays: an agent or pipeline resumes at its last finished step, and children that failed or were canceled
    are enqueued again. If a later task has taken over its idempotency key, both run, and the key stays with the later one.

    Args:
        task: Handle or agent_id of the task.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.
        by: Name of who does it, for the task's log.

    Returns:
        False if the task has not ended, is complete, or has no queue.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(_retry, agent_id_of(task), metadata_filter, phrase(by), utc_now())


def retry_sync(
    task: Task | UUID | str, *, metadata_filter: Mapping[str, Any] | None = None, by: str | None = None
) -> bool:
    """Retry a task: `retry` for code without an event loop, with the same arguments, result and errors."""
    return wait_out(_retry, agent_id_of(task), metadata_filter, phrase(by), utc_now())


def _retry(agent_id: UUID, metadata_filter: Mapping[str, Any] | None, by: str, now: datetime) -> bool:
    """Retry a task. May be called again with the same `now` after UnavailableError."""
    find_task(RUNTIME.engine, agent_id, metadata_filter)
    return _requeue(agent_id, by, now)


@retry_on_deadlock
def _requeue(agent_id: UUID, by: str, now: datetime) -> bool:
    with writing(RUNTIME.engine) as connection:
        queues = requeue(connection, [agent_id], now, by)
    push_requeued(queues)
    return bool(queues)


def requeue(
    connection: Connection, agent_ids: Sequence[UUID], now: datetime, by: str = ""
) -> dict[str, list[Entry]]:
    """Make ended tasks QUEUED again, and return the entries of each queue, for `push_requeued` after the commit.

    `by` is the phrase that names who does it.
    """
    queues: dict[str, list[Entry]] = defaultdict(list)
    for task in requeue_ended(connection, agent_ids, message=MESSAGE.format(by=by or " by hand"), now=now):
        queues[task.queue].append(stored_entry(task))
    if RUNTIME.backend.transactional:
        for queue, entries in queues.items():
            RUNTIME.backend.push(queue, entries, transaction=connection)
    return queues


def push_requeued(queues: Mapping[str, Sequence[Entry]]) -> None:
    """Push tasks that were requeued, or wake the workers if the push was part of the transaction."""
    backend = RUNTIME.backend
    for queue, entries in queues.items():
        with RUNTIME.best_effort(log, "%d retried task(s) are pushed when it is back.", len(entries)):
            if backend.transactional:
                backend.wake(queue, len(entries))
            else:
                backend.push(queue, entries)
