"""Endpoints about tasks that failed for good."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query

from agentexec.activity.queries.failed import (
    FailedFilter,
    count_failed,
    failed_groups,
    looks_everywhere,
    newest_failed,
)
from agentexec.activity.queries.labels import storable_text
from agentexec.arguments.actors import phrase
from agentexec.arguments.checks import check_moment
from agentexec.client.retry_failed import retry_in_batches
from agentexec.db.clock import utc_now
from agentexec.web.access import Actor, Reader, scope_of
from agentexec.web.bulk import COUNTED, acting_on_many
from agentexec.web.caller import Caller
from agentexec.web.endpoints import Endpoints
from agentexec.web.parameters import Pairs, QueueName, TaskName, parse_pairs, reading_session
from agentexec.web.schemas import (
    BulkRetryBody,
    BulkSchema,
    FailedGroupListSchema,
    FailedGroupSchema,
    FailedListSchema,
    FailedTaskSchema,
)

ENDPOINTS = Endpoints("Failed tasks")

MAX_TOTAL = 3_000
"""Number of failed tasks, the newest by creation, that are listed and grouped."""

Since = Annotated[datetime | None, Query(description="Only tasks that failed at this time or later.")]


@ENDPOINTS.get("/failed", summary="List failed tasks")
def list_failed(
    caller: Reader,
    task_name: TaskName = None,
    queue: QueueName = None,
    since: Since = None,
    metadata: Pairs = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of tasks.")] = 50,
) -> FailedListSchema:
    """List the tasks that failed for good, the latest failure first, among the 3,000 that were created last."""
    wanted = _wanted(caller, task_name, queue, since, parse_pairs(metadata))
    with reading_session() as db:
        total = count_failed(db, wanted)
        rows = newest_failed(db, wanted, limit)
        is_exact = looks_everywhere(db, wanted)
    return FailedListSchema(
        items=[_task(row) for row in rows],
        total=total,
        total_is_exact=is_exact,
    )


@ENDPOINTS.get("/failed/groups", summary="Group failed tasks by error")
def group_failed(
    caller: Reader,
    task_name: TaskName = None,
    queue: QueueName = None,
    since: Since = None,
    metadata: Pairs = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of groups.")] = 20,
) -> FailedGroupListSchema:
    """Count failed tasks by name and error, among the 3,000 that were created last, the largest groups first."""
    wanted = _wanted(caller, task_name, queue, since, parse_pairs(metadata))
    with reading_session() as db:
        groups = failed_groups(db, wanted, limit)
        is_complete = looks_everywhere(db, wanted)
    return FailedGroupListSchema(
        groups=[
            FailedGroupSchema(
                task_name=group.task_name,
                error=group.message,
                count=group.count,
                latest_at=group.latest,
                latest_agent_id=group.example,
            )
            for group in groups
        ],
        is_complete=is_complete,
    )


@ENDPOINTS.post("/failed/retry", summary="Retry all failed tasks that match")
def retry_failed(body: BulkRetryBody, caller: Actor) -> BulkSchema:
    """Put the failed tasks that match back on their queues, up to `limit`; `dry_run` counts them."""
    wanted = FailedFilter(**body.filters(), until=utc_now(), metadata=scope_of(caller, body.metadata))
    with reading_session() as db:
        matched = count_failed(db, wanted, COUNTED + 1)
    return acting_on_many(body, matched, lambda: retry_in_batches(wanted, phrase(caller.name), body.limit))


def _wanted(
    caller: Caller,
    task_name: str | None,
    queue: str | None,
    since: datetime | None,
    labels: dict[str, Any],
) -> FailedFilter:
    """Return the filter of tasks that have failed until now."""
    return FailedFilter(
        None if task_name is None else storable_text(task_name),
        None if since is None else check_moment("since", since),
        utc_now(),
        scope_of(caller, labels),
        None if queue is None else storable_text(queue),
        newest=MAX_TOTAL,
    )


def _task(row: Any) -> FailedTaskSchema:
    text = (row.error or row.message or "").strip()
    return FailedTaskSchema(
        agent_id=row.agent_id,
        task_name=row.agent_type,
        queue=row.queue,
        attempts=row.attempt,
        crashes=row.crashes,
        created_at=row.created_at,
        failed_at=row.finished_at,
        error=text.splitlines()[0] if text else "",
    )
