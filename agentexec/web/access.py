"""Access to the HTTP API: who calls, by `caller=` or a read token, and the dependencies of endpoints that check its rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from fastapi import Depends, HTTPException, Request

from agentexec.activity.queries.labels import wanted_labels
from agentexec.arguments.actors import MAX_ACTOR
from agentexec.errors import AccessDeniedError, ActivityNotFoundError, UsageError
from agentexec.task import parse_agent_id
from agentexec.web.caller import Caller
from agentexec.web.invalid import refuse_unknown_parameters, refuse_unwanted_body
from agentexec.web.tokens import PREFIX

CALLER = "agentexec.caller"
"""Key of a request's scope that holds its Caller."""

PARAMETER = "read_token"
"""Query parameter with a read token, for an EventSource, which cannot send headers."""

UNKNOWN = "The caller is not known; sign in, or send a read token as `Authorization: Bearer …`."


def setting_caller(dependency: Callable[..., Any]) -> Callable[..., Any]:
    """Return a dependency that notes in the request which Caller another dependency has returned."""

    async def note_caller(request: Request, found: Any = Depends(dependency)) -> None:  # noqa: B008 - the way to declare a dependency
        if found is None:
            raise HTTPException(401, UNKNOWN, {"WWW-Authenticate": "Bearer"})
        if not isinstance(found, Caller):
            raise TypeError(
                f"The dependency caller= must return an ax.web.Caller, not {type(found).__name__}."
            )
        request.scope[CALLER] = found

    return note_caller


def presented_token(request: Request, *, in_query: bool) -> str | None:
    """Return the read token of a request, or None. One in the query is taken out of the request's URL.

    What logs the URL later, such as the access log of uvicorn, does not see the token then.

    Args:
        request: The request.
        in_query: Whether a token in the query counts.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    token = value.strip() if scheme.lower() == "bearer" and value.strip().startswith(PREFIX) else None
    query: bytes = request.scope.get("query_string", b"")
    if PARAMETER.encode() not in query:
        return token
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    given = [value for name, value in pairs if name == PARAMETER]
    rest = [(name, value) for name, value in pairs if name != PARAMETER]
    request.scope["query_string"] = urlencode(rest).encode()
    return given[-1] if token is None and in_query and given else token


def caller_of(request: Request) -> Caller:
    """Return the caller of a request."""
    caller: Caller = request.scope[CALLER]
    return caller


async def _caller(request: Request) -> Caller:
    refuse_unknown_parameters(request)
    return caller_of(request)


async def _reader(request: Request) -> Caller:
    caller = _readable(request)
    if caller.agent_id is not None:
        raise AccessDeniedError("This read token permits to read one task, and no lists.")
    refuse_unknown_parameters(request)
    return caller


async def _task_reader(request: Request, agent_id: UUID) -> Caller:
    caller = _readable(request)
    if caller.agent_id not in (None, agent_id):
        raise ActivityNotFoundError(agent_id)
    refuse_unknown_parameters(request)
    return caller


async def _actor(request: Request) -> Caller:
    caller = caller_of(request)
    if not caller.act:
        raise AccessDeniedError(
            "A read token cannot change anything."
            if caller.expires_at is not None
            else 'You may not do this; it needs the right "act".'
        )
    if caller.agent_id is not None:
        _require_own_task(request, caller.agent_id)
    # A form of another site, which the browser would send with the user's cookies, cannot have this type.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "Send the header `Content-Type: application/json`, also without a body.")
    refuse_unknown_parameters(request)
    await refuse_unwanted_body(request)
    return caller


def _require_own_task(request: Request, agent_id: UUID) -> None:
    """Check that a request is about the only task that its caller may see."""
    wanted = request.path_params.get("agent_id")
    if wanted is None:
        raise AccessDeniedError("You may act on one task only.")
    if (asked := parse_agent_id(wanted)) != agent_id:
        raise ActivityNotFoundError(asked)


def _readable(request: Request) -> Caller:
    caller = caller_of(request)
    if not caller.read:
        raise AccessDeniedError('You may not read this; it needs the right "read".')
    return caller


AnyCaller = Annotated[Caller, Depends(_caller)]
"""The caller, whatever its rights."""

Reader = Annotated[Caller, Depends(_reader)]
"""The caller of an endpoint that shows more than one task. It may read."""

TaskReader = Annotated[Caller, Depends(_task_reader)]
"""The caller of an endpoint about the task `agent_id` of the path. It may read, and the task is not another than its token's."""

Actor = Annotated[Caller, Depends(_actor)]
"""The caller of an endpoint that changes something. It may act."""


def scope_of(caller: Caller, labels: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Return the metadata filter of a query: the caller's, and the labels that it asks for.

    Raises UsageError if it asks for another value of a label than its own.
    """
    own, wanted = caller.metadata_filter or {}, labels or {}
    for name in own.keys() & wanted.keys():
        if wanted_labels({name: own[name]}) != wanted_labels({name: wanted[name]}):
            raise UsageError(f"metadata: {name} is fixed for this caller; leave it out.")
    return {**wanted, **own} or None


def source_of(request: Request) -> str:
    """Return where a request comes from."""
    host = "" if request.client is None else f" {request.client.host}"
    return f"http{host}"[:MAX_ACTOR]
