"""Retrying all tasks that failed, or those that match, in bounded batches."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from agentexec.activity.queries.failed import FailedFilter, lock_failed
from agentexec.activity.queries.labels import wanted_labels
from agentexec.arguments.actors import phrase
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
    by: str | None = None,
) -> int:
    """Put every task that ended in ERROR back on its queue, as `retry` does for one task, the oldest failure first.

    It works in batches of 500, each a transaction. A call that was killed half-way may be made again: the tasks that it
    has retried are not in ERROR any more. A task that fails again meanwhile is left alone. Canceled tasks are left alone too.

    Args:
        task_name: Only tasks with this name.
        since: Only tasks that failed at this moment or later; it has a time zone.
        metadata_filter: Labels that the tasks must have; None retries the tasks of every tenant.
        by: Name of who does it, for the logs of the tasks.

    Returns:
        The number of tasks that were retried.

    Raises:
        UsageError: An argument is invalid.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    wanted, actor = failed_filter(task_name, since, metadata_filter), phrase(by)
    retried = 0
    while batch := await RUNTIME.run_patiently(RetryBatch(wanted, actor).retry):
        retried += batch
    return retried


def retry_failed_sync(
    *,
    task_name: str | None = None,
    since: datetime | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> int:
    """Retry failed tasks: `retry_failed` for code without an event loop, with the same arguments, result and errors."""
    return sum(retry_in_batches(failed_filter(task_name, since, metadata_filter), phrase(by)))


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


def retry_in_batches(wanted: FailedFilter, by: str = "", limit: int | None = None) -> Iterator[int]:
    """Retry the tasks that match, up to `limit` of them, and yield the number of each batch."""
    left = sys.maxsize if limit is None else limit
    while left > 0 and (batch := wait_out(RetryBatch(wanted, by, min(BATCH, left)).retry)):
        left -= batch
        yield batch


class RetryBatch:
    """The next failed tasks that match, to be retried in one transaction. `by` is the phrase that names who does it."""

    def __init__(self, wanted: FailedFilter, by: str = "", size: int | None = None) -> None:
        self._wanted = wanted
        self._by = by
        self._size = BATCH if size is None else size
        self._now = utc_now()
        self._agent_ids: list[UUID] | None = None

    @retry_on_deadlock
    def retry(self) -> int:
        """Retry the tasks, and return their number; 0 if none is left.

        May be called again after UnavailableError: if the commit was not confirmed, the tasks that it has retried count.
        """
        with writing(RUNTIME.engine) as connection:
            if self._agent_ids is None:
                found = lock_failed(connection, self._wanted, self._size)
            else:
                found = self._agent_ids
            queues = requeue(connection, found, self._now, self._by) if found else {}
            self._agent_ids = found
        push_requeued(queues)
        return sum(map(len, queues.values()))
