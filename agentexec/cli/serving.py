"""The workers that serve a queue, for commands that tell when there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import agentexec as ax
from agentexec.cli.database import session

if TYPE_CHECKING:
    from agentexec.activity.queries.overview import WorkerSchema


def serving_workers(queue: str) -> list[WorkerSchema]:
    """Return the worker processes that claim tasks from a queue: they have reported lately, and do not drain."""
    from agentexec.activity.queries.overview import workers

    with session() as db:
        return [worker for worker in workers(db) if queue in worker.queues and worker.serves]


def missing_worker(queue: str) -> str | None:
    """Return a sentence if no worker serves a queue: a task of it waits until one does."""
    if serving_workers(queue):
        return None
    from agentexec.db.urls import safe_url

    database = safe_url(ax.get_engine().url)
    hint = (
        "" if ax.CONF.worker_module else " If your worker uses another database, name its module with --app."
    )
    return f"No worker serves the queue {queue} of {database}: start one with `agentexec worker`; the task waits for it.{hint}"
