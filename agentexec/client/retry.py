"""Requeuing tasks that failed or were canceled, on request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from agentexec.activity.changes.endings import requeue_ended
from agentexec.activity.queries.handle import find_task
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import writing
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Entry, Task, agent_id_of, stored_priority

log = logging.getLogger("agentexec.retrying")

MESSAGE = "Put back on the queue by hand."


async def retry(task: Task | UUID | str, *, metadata_filter: Mapping[str, Any] | None = None) -> bool:
    """Put a task that ended in ERROR or CANCELED back on its queue, for one more attempt and as many as its `retries`.

    Its journal stays: an agent or pipeline resumes at its last finished step, and children that failed or were canceled
    are enqueued again. If a later task has taken over its idempotency key, both run, and the key stays with the later one.

    Args:
        task: Handle or agent_id of the task.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.

    Returns:
        False if the task has not ended, is complete, or has no queue.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(_retry, agent_id_of(task), metadata_filter, utc_now())


def retry_sync(task: Task | UUID | str, *, metadata_filter: Mapping[str, Any] | None = None) -> bool:
    """Retry a task: `retry` for code without an event loop, with the same arguments, result and errors."""
    return wait_out(_retry, agent_id_of(task), metadata_filter, utc_now())


def _retry(agent_id: UUID, metadata_filter: Mapping[str, Any] | None, now: datetime) -> bool:
    """Retry a task. May be called again with the same `now` after UnavailableError."""
    find_task(RUNTIME.engine, agent_id, metadata_filter)
    return _requeue(agent_id, now)


@retry_on_deadlock
def _requeue(agent_id: UUID, now: datetime) -> bool:
    backend = RUNTIME.backend
    with writing(RUNTIME.engine) as connection:
        found = requeue_ended(connection, [agent_id], message=MESSAGE, now=now)
        entries = [Entry(task.agent_id, stored_priority(task.priority), 0.0, task.epoch) for task in found]
        if found and backend.transactional:
            backend.push(found[0].queue, entries, transaction=connection)
    if not found:
        return False
    with RUNTIME.best_effort(log, "Task %s is pushed when it is back.", agent_id):
        if backend.transactional:
            backend.wake(found[0].queue, 1)
        else:
            backend.push(found[0].queue, entries)
    return True
