"""Live events of tasks as server-sent events, and answers to agentexec's errors, for FastAPI.

    from agentexec.contrib.fastapi import add_error_handlers, router
    app.include_router(router())
    add_error_handlers(app)

serves `GET /activity/{agent_id}/events`, which an EventSource in a browser reads and resumes by itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from agentexec.activity.live.stream import ActivityStream, stream
from agentexec.activity.schemas import ActivityEvent
from agentexec.errors import (
    ActivityNotFoundError,
    AgentexecError,
    ApprovalNotFoundError,
    PayloadTooLargeError,
    ResultExpiredError,
    TaskEndedError,
    UnavailableError,
    UsageError,
)

try:
    from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
    from fastapi.responses import JSONResponse, StreamingResponse
except ModuleNotFoundError as error:
    raise UsageError(
        f"agentexec.contrib.fastapi needs {error.name}, which is not installed; run `pip install fastapi`."
    ) from error

KEEP_ALIVE_SECONDS = 15.0
"""Seconds of silence after which a comment is sent: proxies close connections that are silent for about a minute."""

RETRY_MS = 2000
"""Milliseconds that a browser waits before it reconnects."""

NAMES = {"error": "failed"}
"""Names of events that differ from their type: EventSource has its own `error` event, for lost connections."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers that keep proxies from caching or buffering events."""


STATUS_CODES: Mapping[type[AgentexecError], int] = {
    ActivityNotFoundError: 404,
    ApprovalNotFoundError: 404,
    ResultExpiredError: 404,
    TaskEndedError: 409,
    PayloadTooLargeError: 413,
    UsageError: 422,
    UnavailableError: 503,
}
"""Errors that are the caller's, or pass, and the status codes that say so. All others are the server's: 500."""


def add_error_handlers(app: FastAPI) -> None:
    """Answer agentexec's errors in all endpoints of an application with a status code and a sentence.

    A bad argument, such as a `page`, a cursor or a status from the browser, is answered with 422; an unknown task, call
    or expired result with 404; a failed or canceled task with 409; a context that is too large with 413; a server that
    cannot be reached with 503. The body is `{"detail": …}`, like that of an HTTPException.

    Args:
        app: The application.
    """
    for kind in STATUS_CODES:
        app.add_exception_handler(kind, _answer)


def _answer(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=_status_code(error))


def _status_code(error: Exception) -> int:
    return next((code for kind, code in STATUS_CODES.items() if isinstance(error, kind)), 500)


async def event_stream(
    agent_id: UUID | str,
    request: Request | None = None,
    *,
    after: str | None = None,
    deltas: bool = True,
    metadata_filter: Mapping[str, Any] | None = None,
    keep_alive: float = KEEP_ALIVE_SECONDS,
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

    Returns:
        A streaming response, or an empty one with status 204 if the client has seen everything.

    Raises:
        HTTPException: 404 for an unknown task, 422 for an invalid argument, 503 while a server cannot be reached.
    """
    resumed = request.headers.get("last-event-id") if request is not None else None
    try:
        events = await stream(
            agent_id, after=resumed or after, deltas=deltas, metadata_filter=metadata_filter
        ).open()
    except (ActivityNotFoundError, UsageError, UnavailableError) as error:
        raise HTTPException(_status_code(error), str(error)) from None
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
    """Return a router with one endpoint: the live events of a task.

    Args:
        path: Path of the endpoint, with `{agent_id}`.
        metadata_filter: FastAPI dependency that returns the values that the task's metadata must have, such as
            `{"organization_id": …}` of the caller. Without it, everyone who knows an agent_id can read its events.
        dependencies: Dependencies of the APIRouter, such as authentication.

    Returns:
        The router, for `app.include_router`.
    """
    api_router = APIRouter(dependencies=list(dependencies))
    scope = metadata_filter or _no_filter

    @api_router.get(path, response_class=StreamingResponse, summary="Live events of a task")
    async def activity_events(
        agent_id: UUID,
        request: Request,
        after: str | None = None,
        deltas: bool = True,
        wanted: Any = Depends(scope),  # noqa: B008 - the way to declare a dependency
    ) -> Response:
        return await event_stream(agent_id, request, after=after, deltas=deltas, metadata_filter=wanted)

    return api_router


def _no_filter() -> None:
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
