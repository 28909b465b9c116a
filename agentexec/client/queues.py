"""Queues for people who look after them: `ax.queues.list`, `ax.queues.pause`, `ax.queues.resume`."""

from __future__ import annotations

import logging
import socket
from datetime import datetime

from agentexec.activity.changes.queue_pauses import record_pause, record_resumption
from agentexec.activity.models import MAX_NAME
from agentexec.activity.queries.pauses import PauseSchema
from agentexec.activity.queries.queues import QueueSchema, live_workers
from agentexec.activity.queries.queues import list_queues as list
from agentexec.arguments.actors import current_user
from agentexec.arguments.checks import check_storable, check_text
from agentexec.arguments.queue_names import check_queue_name, check_stored_queue
from agentexec.db.clock import utc_now
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.state.messages import QUEUES

log = logging.getLogger("agentexec.queues")

__all__ = ["PauseSchema", "QueueSchema", "list", "pause", "pause_sync", "resume", "resume_sync"]

MAX_REASON = 2_000
"""Characters of the reason of a pause."""


async def pause(queue: str, *, reason: str | None = None, by: str | None = None) -> bool:
    """Pause a queue: workers claim no more of its tasks until it is resumed. Running tasks go on, and new ones are accepted.

    The pause is recorded in the database, and outlives workers and an emptied Redis.

    Args:
        queue: Name of the queue, which need not have any tasks or workers yet.
        reason: Text for those who look, up to 2,000 characters.
        by: Name of who pauses it; by default the user and host of this process.

    Returns:
        False if it was paused before: that pause stays as it is.

    Raises:
        UsageError: An argument is invalid.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(_pause, queue, reason, by, utc_now())


def pause_sync(queue: str, *, reason: str | None = None, by: str | None = None) -> bool:
    """Pause a queue: `pause` for code without an event loop, with the same arguments, result and errors."""
    return wait_out(_pause, queue, reason, by, utc_now())


async def resume(queue: str, *, by: str | None = None) -> bool:
    """Resume a paused queue.

    Args:
        queue: Name of the queue.
        by: Name of who resumes it; by default the user and host of this process.

    Returns:
        False if it was not paused.

    Raises:
        UsageError: An argument is invalid.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(_resume, queue, by, utc_now())


def resume_sync(queue: str, *, by: str | None = None) -> bool:
    """Resume a paused queue: `resume` for code without an event loop, with the same arguments, result and errors."""
    return wait_out(_resume, queue, by, utc_now())


def _pause(queue: str, reason: str | None, by: str | None, now: datetime) -> bool:
    queue = check_queue_name("queue=", queue)
    if reason is not None:
        reason = check_storable("reason=", reason)[:MAX_REASON]
    is_new = record_pause(RUNTIME.engine, queue, by=_name(by), reason=reason, now=now)
    _tell_workers(queue)
    return is_new


def _resume(queue: str, by: str | None, now: datetime) -> bool:
    queue = check_stored_queue("queue=", queue)
    was_paused = record_resumption(RUNTIME.engine, queue, by=_name(by), now=now)
    _tell_workers(queue)
    return was_paused


def _tell_workers(queue: str) -> None:
    """Tell the workers of a queue to read the record, which they also do every few seconds by themselves."""
    workers = live_workers(RUNTIME.engine, queue)
    with RUNTIME.best_effort(log, "The workers of queue %s notice it within some seconds.", queue):
        for worker_id in workers:
            RUNTIME.backend.send(worker_id, [QUEUES])


def _name(by: str | None) -> str:
    if by is not None:
        return check_text("by=", by, MAX_NAME)
    return f"{current_user()}@{socket.gethostname()}"[:MAX_NAME].strip()
