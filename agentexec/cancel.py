"""Canceling tasks: the record first, then the queue, then the worker that runs it."""

from __future__ import annotations

import logging
from uuid import UUID

from sqlalchemy import select

from agentexec.activity.models import Activity
from agentexec.activity.transitions import end_outside
from agentexec.config import CONF
from agentexec.db import reading, utc_now, writing
from agentexec.errors import ActivityNotFoundError, UnavailableError
from agentexec.runtime import RUNTIME
from agentexec.signals import CANCEL
from agentexec.task import Status, Task

log = logging.getLogger("agentexec.cancel")


async def cancel(task: Task | UUID | str) -> bool:
    """Cancel a task: queued, it never starts; running, its handler gets CancelledError.

    A handler that is a plain function cannot be interrupted; what it returns is dropped.
    Returns False if the task had ended before. Raises ActivityNotFoundError, UnavailableError.
    """
    return await RUNTIME.in_thread(cancel_sync, task)


def cancel_sync(task: Task | UUID | str) -> bool:
    """`cancel` for code without an event loop."""
    agent_id = task.agent_id if isinstance(task, Task) else UUID(str(task))
    query = select(Activity.queue).where(Activity.agent_id == agent_id)
    with reading(RUNTIME.engine) as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise ActivityNotFoundError(agent_id)
    with writing(RUNTIME.engine) as connection:
        ended = end_outside(
            connection, [agent_id], status=Status.CANCELED, message="Canceled.", error=None, now=utc_now()
        )
    if ended:
        _tell(row.queue or CONF.queue_name, agent_id)
    return bool(ended)


def _tell(queue: str, agent_id: UUID) -> None:
    backend = RUNTIME.backend
    try:
        for worker in backend.remove(queue, [agent_id]).values():
            backend.send(worker, [CANCEL + str(agent_id)])
        backend.notify_done(queue, [agent_id])
    except UnavailableError as error:
        # The record says CANCELED: a worker that claims the task drops it, and a heartbeat finds it out.
        log.warning("%s The worker of task %s hears of its cancel later.", error, agent_id)
