"""Router of the HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from agentexec.web.server_sent_events import event_stream


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
