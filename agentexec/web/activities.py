"""Endpoints about activities: list, numbers, details, contents, live events, and the acts on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Request, Response

from agentexec.activity.queries.active import ActiveFilter, count_matching
from agentexec.activity.queries.contents import contents
from agentexec.activity.queries.detail import detail, numbers_active
from agentexec.activity.queries.listing import list_activities as find_activities
from agentexec.activity.schemas import ActivityDetailSchema, ActivityListSchema
from agentexec.arguments.actors import phrase
from agentexec.client.budgets import set_budget_sync
from agentexec.client.cancel import cancel_sync
from agentexec.client.cancel_matching import cancel_in_batches
from agentexec.client.retry import retry_sync
from agentexec.config import CONF
from agentexec.errors import AccessDeniedError, UsageError
from agentexec.task import Priority, Status
from agentexec.values.presentation import Bounds, Presenter, read_json
from agentexec.web.access import Actor, Reader, TaskReader, scope_of, source_of
from agentexec.web.bulk import COUNTED, acting_on_many
from agentexec.web.endpoints import Endpoints
from agentexec.web.parameters import ListQuery, Pairs, parse_pairs, reading_session
from agentexec.web.schemas import (
    ActivityCountSchema,
    ActSchema,
    BudgetBody,
    BulkCancelBody,
    BulkSchema,
    ContentsSchema,
    RetryBody,
)
from agentexec.web.server_sent_events import event_stream

ENDPOINTS = Endpoints("Activities")

PRIORITIES: dict[int, Literal["high", "low"]] = {Priority.HIGH.value: "high", Priority.LOW.value: "low"}

MAX_SKIPPED = 20_000
"""Activities before the last page that a number leads to: the database reads them all."""

SHOWN = Bounds(total=20_000, text=5_000, entries=200)
"""Bounds of a context or result."""


@ENDPOINTS.get("/activity", summary="List activities")
def list_activities(caller: Reader, query: Annotated[ListQuery, Query()]) -> ActivityListSchema:
    """List activities: running ones first, then queued ones, then ended ones, each newest first.

    A text is searched for in the newest 3,000 activities of each status that match the other filters; so is a queue, but
    in 10,000 if status and time are the only other filters.
    """
    given: dict[str, Any] = query.model_dump(exclude={"metadata"})
    labels = scope_of(caller, parse_pairs(query.metadata))
    if (query.page - 1) * query.page_size > MAX_SKIPPED:
        raise UsageError(
            f"page: the first {MAX_SKIPPED:,} activities have pages; go on with `after`, or add a filter."
        )
    with reading_session() as db:
        return find_activities(db, **given, metadata_filter=labels)


@ENDPOINTS.get("/activity/count", summary="Count active tasks")
def count_activities(caller: Reader, metadata: Pairs = None) -> ActivityCountSchema:
    """Count the tasks that have not ended."""
    with reading_session() as db:
        numbers = numbers_active(db, scope_of(caller, parse_pairs(metadata)))
    queued, running = numbers[Status.QUEUED], numbers[Status.RUNNING]
    return ActivityCountSchema(queued=queued, running=running, active=queued + running)


@ENDPOINTS.get("/activity/{agent_id}", summary="Get an activity")
def get_activity(agent_id: UUID, caller: TaskReader) -> ActivityDetailSchema:
    """Get one activity with its whole log and the tree of its children."""
    with reading_session() as db:
        return detail(db, agent_id, metadata_filter=caller.metadata_filter)


@ENDPOINTS.get("/activity/{agent_id}/contents", summary="Get context and result of a task")
def get_contents(agent_id: UUID, caller: TaskReader) -> ContentsSchema:
    """Get what a task was asked and answered, and what its queue knows, for people who look after it.

    Secrets that are known, have a telling name or a known form are hidden, and long values are cut. Not for read tokens.
    """
    with reading_session() as db:
        task = detail(db, agent_id, metadata_filter=caller.metadata_filter)
        if caller.expires_at is not None:
            raise AccessDeniedError(
                "A read token does not show the context of a task; its result is in the task's events."
            )
        found = contents(db, agent_id)
    presenter = Presenter(CONF.secrets, SHOWN, "see `agentexec show --full`")
    return ContentsSchema(
        agent_id=agent_id,
        queue=task.queue,
        priority=None if task.queue is None else PRIORITIES.get(task.priority),
        run_at=task.run_at,
        metadata=presenter.present(task.metadata),
        lock_key=task.lock_key,
        concurrency_key=task.concurrency_key,
        context=None if found.context is None else presenter.present(read_json(found.context)),
        result=None if found.result is None else presenter.present(read_json(found.result)),
        result_expired=found.expired,
    )


@ENDPOINTS.get("/activity/{agent_id}/events", summary="Live events of a task", stream=True)
async def stream_events(
    agent_id: UUID,
    request: Request,
    caller: TaskReader,
    after: Annotated[
        str | None, Query(description="`id` of the last event seen; the header `Last-Event-ID` wins.")
    ] = None,
    deltas: Annotated[bool, Query(description="False leaves out the text of the model.")] = True,
) -> Response:
    """Stream the events of a task as server-sent events, up to its end, or to that of the read token."""
    return await event_stream(
        agent_id,
        request,
        after=after,
        deltas=deltas,
        metadata_filter=caller.metadata_filter,
        until=caller.expires_at,
    )


@ENDPOINTS.post("/activity/{agent_id}/cancel", summary="Cancel a task")
def cancel_activity(agent_id: UUID, caller: Actor) -> ActSchema:
    """Cancel a task and the tasks that it enqueued; `changed` is false if it had ended before."""
    return ActSchema(changed=cancel_sync(agent_id, metadata_filter=caller.metadata_filter, by=caller.name))


@ENDPOINTS.post("/activity/{agent_id}/retry", summary="Retry a task")
def retry_activity(agent_id: UUID, caller: Actor, body: RetryBody | None = None) -> ActSchema:
    """Put a failed or canceled task back on its queue; `changed` is false if it has not ended, or is complete."""
    budget = None if body is None else body.budget
    return ActSchema(
        changed=retry_sync(agent_id, budget=budget, metadata_filter=caller.metadata_filter, by=caller.name)
    )


@ENDPOINTS.post("/activity/{agent_id}/budget", summary="Set the budget of a task")
def set_activity_budget(agent_id: UUID, body: BudgetBody, caller: Actor, request: Request) -> ActSchema:
    """Give a task another limit, which counts from its next model call; `changed` is false if it has ended."""
    return ActSchema(
        changed=set_budget_sync(
            agent_id,
            body.budget,
            metadata_filter=caller.metadata_filter,
            by=caller.name,
            source=source_of(request),
        )
    )


@ENDPOINTS.post("/activity/cancel", summary="Cancel all tasks that match")
def cancel_activities(body: BulkCancelBody, caller: Actor) -> BulkSchema:
    """Cancel the queued and running tasks that match, up to `limit`; `dry_run` counts them."""
    wanted = ActiveFilter(**body.filters(), metadata=scope_of(caller, body.metadata))
    with reading_session() as db:
        matched = count_matching(db, wanted, COUNTED + 1)
    return acting_on_many(body, matched, lambda: cancel_in_batches(wanted, phrase(caller.name), body.limit))
