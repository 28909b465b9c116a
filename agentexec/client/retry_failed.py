"""Retrying all tasks that failed, or those that match, in bounded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from agentexec.activity.queries.failed import FailedFilter, lock_failed
from agentexec.activity.queries.labels import wanted_labels
from agentexec.arguments.checks import check_moment, check_text
from agentexec.client.retry import push_requeued, requeue
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import writing
from agentexec.outage import wait_out
from agentexec.registry import MAX_TASK_NAME
from agentexec.runtime import RUNTIME

BATCH = 500
"""Tasks in one transaction: none holds locks for long."""


async def retry_failed(
    *,
    task_name: str | None = None,
    since: datetime | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
) -> int:
    """Put every task that ended in ERROR back on its queue, as `retry` does for one task, the oldest failure first.

    It works in batches of 500, each a transaction. A call that was killed half-way may be made again: the tasks that it
    has retried are not in ERROR any more. A task that fails again meanwhile is left alone. Canceled tasks are left alone too.

    Args:
        task_name: Only tasks with this name.
        since: Only tasks that failed at this moment or later; it has a time zone.
        metadata_filter: Labels that the tasks must have; None retries the tasks of every tenant.

    Returns:
        The number of tasks that were retried.

    Raises:
        UsageError: An argument is invalid.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    wanted = failed_filter(task_name, since, metadata_filter)
    retried = 0
    while batch := await RUNTIME.run_patiently(retry_batch, wanted):
        retried += batch
    return retried


def retry_failed_sync(
    *,
    task_name: str | None = None,
    since: datetime | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
) -> int:
    """Retry failed tasks: `retry_failed` for code without an event loop, with the same arguments, result and errors."""
    return sum(retry_in_batches(failed_filter(task_name, since, metadata_filter)))


def failed_filter(
    task_name: str | None, since: datetime | None, metadata_filter: Mapping[str, Any] | None
) -> FailedFilter:
    """Return the filter of the tasks that have failed until now. Raises UsageError for invalid arguments."""
    wanted_labels(metadata_filter)  # so that it is checked first
    return FailedFilter(
        None if task_name is None else check_text("task_name=", task_name, MAX_TASK_NAME),
        None if since is None else check_moment("since=", since),
        utc_now(),
        metadata_filter,
    )


def retry_in_batches(wanted: FailedFilter) -> Iterator[int]:
    """Retry the tasks that match, and yield the number of each batch."""
    while batch := wait_out(retry_batch, wanted):
        yield batch


@retry_on_deadlock
def retry_batch(wanted: FailedFilter) -> int:
    """Retry the tasks of the next batch, and return their number; 0 if none is left."""
    with writing(RUNTIME.engine) as connection:
        agent_ids = lock_failed(connection, wanted, BATCH)
        queues = requeue(connection, agent_ids, utc_now()) if agent_ids else {}
    push_requeued(queues)
    return len(agent_ids)
