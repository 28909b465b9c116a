"""Live events of tasks as server-sent events, for FastAPI and Starlette.

    from agentexec.contrib.fastapi import router
    app.include_router(router())

serves `GET /activity/{agent_id}/events`, which a browser's EventSource reads and resumes by itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from agentexec.activity.live.stream import ActivityStream, stream
from agentexec.activity.schemas import ActivityEvent
from agentexec.errors import ActivityNotFoundError, UnavailableError, UsageError

try:
    from fastapi import APIRouter, Depends, HTTPException, Request, Response
    from fastapi.responses import StreamingResponse
except ModuleNotFoundError as error:
    raise UsageError(
        f"agentexec.contrib.fastapi needs {error.name}, which is not installed; run `pip install fastapi`."
    ) from error

KEEP_ALIVE_SECONDS = 15.0
"""Proxies close connections on which nothing comes for a minute or so."""

RETRY_MS = 2000
"""How long a browser waits before it connects again."""

NAMES = {"error": "failed"}
"""EventSource has an event `error` of its own, for lost connections."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""No proxy may keep events back."""


async def event_stream(
    agent_id: UUID | str,
    request: Request | None = None,
    *,
    after: str | None = None,
    deltas: bool = True,
    metadata_filter: Mapping[str, Any] | None = None,
    keep_alive: float = KEEP_ALIVE_SECONDS,
) -> Response:
    """The events of one task as server-sent events, to be returned from an endpoint.

    Each has the `id` and the type of the ActivityEvent (`failed` for the type `error`) and the whole of it as JSON. With
    `request` its header Last-Event-ID says where to go on, else `after` does. `deltas` and `metadata_filter` are
    those of `ax.activity.stream`. A comment is sent after each `keep_alive` seconds of silence. A client that is
    slow misses short-lived events, one that has left is noticed; the task notices neither. After the last event
    the answer to a further request is 204, on which EventSource stops.

    Raises HTTPException: 404 for an unknown task, 400 for an id that is none, 503 while a server is away.
    """
    resumed = request.headers.get("last-event-id") if request is not None else None
    try:
        events = await stream(
            agent_id, after=resumed or after, deltas=deltas, metadata_filter=metadata_filter
        ).open()
    except ActivityNotFoundError as error:
        raise HTTPException(404, str(error)) from None
    except UsageError as error:
        raise HTTPException(400, str(error)) from None
    except UnavailableError as error:
        raise HTTPException(503, str(error)) from None
    if events.exhausted:
        events.close()
        return Response(status_code=204)
    return StreamingResponse(_frames(events, keep_alive), media_type="text/event-stream", headers=HEADERS)


def router(
    *,
    path: str = "/activity/{agent_id}/events",
    metadata_filter: Callable[..., Any] | None = None,
    dependencies: Sequence[Any] = (),
) -> APIRouter:
    """A router with the one endpoint `path`.

    `metadata_filter`: a FastAPI dependency that returns what the task's metadata must hold, such as
    `{"organization_id": …}` of the caller; without it everyone who knows an agent_id may read. `dependencies`: as of an
    APIRouter, for authentication.
    """
    made = APIRouter(dependencies=list(dependencies))
    scope = metadata_filter or _everything

    @made.get(path, response_class=StreamingResponse, summary="Live events of a task")
    async def activity_events(
        agent_id: UUID,
        request: Request,
        after: str | None = None,
        deltas: bool = True,
        wanted: Any = Depends(scope),  # noqa: B008 - how FastAPI is told of it
    ) -> Response:
        return await event_stream(agent_id, request, after=after, deltas=deltas, metadata_filter=wanted)

    return made


def _everything() -> None:
    return None


def _frame(event: ActivityEvent) -> str:
    name = NAMES.get(event.type, event.type)
    return f"id: {event.id}\nevent: {name}\ndata: {event.model_dump_json()}\n\n"


async def _frames(events: ActivityStream, keep_alive: float) -> AsyncGenerator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    batches = events.batches(idle=keep_alive)
    try:
        async for batch in batches:
            yield "".join(map(_frame, batch)) or ": keep-alive\n\n"
    finally:
        await batches.aclose()
