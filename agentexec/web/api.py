"""Router of the HTTP API, made from the lists of its endpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from agentexec.errors import UsageError
from agentexec.web import activities, approvals, conversations, failures, forks, front_ends, installation
from agentexec.web.endpoints import Endpoint, add_endpoints
from agentexec.web.server_sent_events import event_stream

RESOURCES = (
    installation.ENDPOINTS,
    activities.ENDPOINTS,
    forks.ENDPOINTS,
    front_ends.ENDPOINTS,
    approvals.ENDPOINTS,
    conversations.ENDPOINTS,
    failures.ENDPOINTS,
)

EVENTS = "/activity/{agent_id}/events"


def router(
    *,
    caller: Callable[..., Any] | None = None,
    path: str = EVENTS,
    metadata_filter: Callable[..., Any] | None = None,
    dependencies: Sequence[Any] = (),
) -> APIRouter:
    """Return a router with the HTTP API, or without `caller` with one endpoint: the live events of a task.

    Args:
        caller: FastAPI dependency that returns the `ax.web.Caller` of a request: what it may see and do, and its name for
            the logs of the tasks that it acts on. It may raise an HTTPException; None is answered with 401. A request with a
            read token, see `ax.web.read_token`, is answered without it.
        path: Path of the only endpoint, with `{agent_id}`; without `caller`.
        metadata_filter: FastAPI dependency that returns the values that the task's metadata must have, such as
            `{"organization_id": …}` of the caller; without `caller`. With neither, everyone who knows an agent_id can read
            its events.
        dependencies: Dependencies of all endpoints, such as a limit of requests.

    Returns:
        The router, for `app.include_router`.

    Raises:
        UsageError: `caller` is given together with `path` or `metadata_filter`, or is a class.
    """
    if caller is None:
        return _events_router(path, metadata_filter, dependencies)
    if path != EVENTS or metadata_filter is not None:
        raise UsageError(
            "router(caller=...) has the paths of the whole API, and its Caller has the metadata_filter; leave out path= and metadata_filter=."
        )
    if isinstance(caller, type):
        raise UsageError(
            "router(caller=...) takes a function that returns an ax.web.Caller; a class would take rights from the request."
        )
    api_router = APIRouter()
    add_endpoints(api_router, endpoints(), caller, dependencies)
    return api_router


def endpoints() -> list[Endpoint]:
    """Return all endpoints of the API. Fixed paths come before those with a parameter in the same place."""
    found = [endpoint for resource in RESOURCES for endpoint in resource]
    return sorted(found, key=lambda endpoint: endpoint.path.count("{"))


def _events_router(
    path: str, metadata_filter: Callable[..., Any] | None, dependencies: Sequence[Any]
) -> APIRouter:
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
