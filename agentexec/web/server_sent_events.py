"""Live events of a task as server-sent events, which an EventSource in a browser reads and resumes by itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from agentexec.activity.live.stream import ActivityStream, stream
from agentexec.activity.schemas import ActivityEvent
from agentexec.errors import AgentexecError
from agentexec.web.errors import refusal

KEEP_ALIVE_SECONDS = 15.0
"""Seconds of silence after which a comment is sent: proxies close connections that are silent for about a minute."""

CHECK_SECONDS = 5.0
"""Seconds of silence after which a response with an end looks whether it is reached."""

RETRY_MS = 2000
"""Milliseconds that a browser waits before it reconnects."""

NAMES = {"error": "failed"}
"""Names of events that differ from their type: EventSource has its own `error` event, for lost connections."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers that keep proxies from caching or buffering events."""


async def event_stream(
    agent_id: UUID | str,
    request: Request | None = None,
    *,
    after: str | None = None,
    deltas: bool = True,
    metadata_filter: Mapping[str, Any] | None = None,
    keep_alive: float = KEEP_ALIVE_SECONDS,
    until: datetime | None = None,
) -> Response:
    """Return the events of one task as server-sent events, for an endpoint to return.

    Each has the `id` and the type of the ActivityEvent (`failed` for the type `error`), and the whole event as JSON.
    A slow client misses live events, and a client that has left is noticed; the task never waits for either. After
    the last event, a further request is answered with 204, on which EventSource stops.

    Args:
        agent_id: Id of the task.
        request: Request whose header `Last-Event-ID` says where to resume; it wins over `after`.
        after: `id` of the last event that the client has seen; see `ax.activity.stream`.
        deltas: False leaves out the `text_delta` events.
        metadata_filter: Values that the task's metadata must have; otherwise the task counts as unknown.
        keep_alive: Seconds of silence after which a comment is sent.
        until: Time at which the response ends, such as the end of the permission to read; None for none.

    Returns:
        A streaming response, or an empty one with status 204 if the client has seen everything.

    Raises:
        HTTPException: 404 for an unknown task, 422 for an invalid argument, 503 while a server cannot be reached,
            or the database lacks tables.
    """
    try:
        events = await stream(
            agent_id, after=last_event_id(request) or after, deltas=deltas, metadata_filter=metadata_filter
        ).open()
    except AgentexecError as error:
        raise refusal(error) from None
    if events.exhausted:
        events.close()
        return Response(status_code=204)
    return StreamingResponse(
        _frames(events, keep_alive, until), media_type="text/event-stream", headers=HEADERS
    )


def last_event_id(request: Request | None) -> str | None:
    """Return the id after which a lost connection goes on, if the request says so."""
    return request.headers.get("last-event-id") if request is not None else None


def idle_seconds(keep_alive: float, until: datetime | None) -> float:
    """Return the seconds of silence after which a stream looks around: for its end too, if it has one."""
    return keep_alive if until is None else min(keep_alive, CHECK_SECONDS)


def is_over(until: datetime | None) -> bool:
    """Return True once the time has come at which a response ends."""
    return until is not None and datetime.now(UTC) >= until


def _frame(event: ActivityEvent) -> str:
    name = NAMES.get(event.type, event.type)
    return f"id: {event.id}\nevent: {name}\ndata: {event.model_dump_json()}\n\n"


async def _frames(events: ActivityStream, keep_alive: float, until: datetime | None) -> AsyncGenerator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    batches = events.batches(idle=idle_seconds(keep_alive, until))
    try:
        async for batch in batches:
            yield "".join(map(_frame, batch)) or ": keep-alive\n\n"
            if is_over(until):
                break
    finally:
        await batches.aclose()
