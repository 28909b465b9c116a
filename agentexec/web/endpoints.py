"""Endpoints of the HTTP API as a list, from which routers are made, and the route that answers errors and read tokens."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.routing import Match
from starlette.types import Scope

from agentexec.errors import AgentexecError
from agentexec.web.access import CALLER, PARAMETER, presented_token, setting_caller
from agentexec.web.errors import refusal
from agentexec.web.invalid import sentence_of
from agentexec.web.tokens import caller_of

F = TypeVar("F", bound=Callable[..., Any])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ErrorSchema(BaseModel):
    """Answer of a request that was refused or failed."""

    detail: str = Field(description="What is wrong and what to do, in one sentence.")


REASONS = {
    401: "The caller is not known, or its read token is not valid.",
    403: "The caller may not do this.",
    404: "There is no such thing, or not for this caller.",
    409: "The name is ambiguous, or the conversation is busy.",
    413: "The request is too large.",
    415: "An act was sent without `Content-Type: application/json`.",
    422: "The request is not valid.",
    503: "The database cannot be reached, or lacks tables; try again later.",
}


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: its path and method, the function that answers, and what its description says."""

    name: str
    method: str
    path: str
    function: Callable[..., Any]
    summary: str
    tag: str
    stream: bool
    errors: tuple[int, ...]

    def add_to(self, router: APIRouter, route_class: type[APIRoute], dependencies: Sequence[Any]) -> None:
        """Add it to a router."""
        options: dict[str, Any] = {"response_class": StreamingResponse} if self.stream else {}
        responses: dict[int | str, dict[str, Any]] = {
            code: {"model": ErrorSchema, "description": REASONS[code]} for code in self.errors
        }
        if self.stream:
            responses[200] = {"description": "The events.", "content": {"text/event-stream": {}}}
            responses[204] = {"description": "The task has ended, and every event was seen."}
            options["openapi_extra"] = {"parameters": [_TOKEN_PARAMETER]}
        router.add_api_route(
            self.path,
            self.function,
            methods=[self.method],
            summary=self.summary,
            tags=[self.tag],
            operation_id=self.name,
            responses=responses,
            dependencies=dependencies,
            route_class_override=route_class,
            **options,
        )


_TOKEN_PARAMETER = {
    "name": PARAMETER,
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "Read token, for an EventSource, which cannot send the header `Authorization`.",
}


class Endpoints:
    """Endpoints of one resource, to be filled by decorators.

    Args:
        tag: Heading of the endpoints in the description of the API.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._endpoints: list[Endpoint] = []

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def get(self, path: str, *, summary: str, stream: bool = False) -> Callable[[F], F]:
        """Add an endpoint that reads; `stream` for one whose answer is server-sent events."""
        return self._add("GET", path, summary, stream, (401, 403, *_not_found(path), 422, 503))

    def post(self, path: str, *, summary: str, errors: Sequence[int] = ()) -> Callable[[F], F]:
        """Add an endpoint that changes something; `errors` are further codes that it may answer with."""
        codes = (401, 403, *_not_found(path), 415, 422, 503, *errors)
        return self._add("POST", path, summary, False, codes)

    def delete(self, path: str, *, summary: str) -> Callable[[F], F]:
        """Add an endpoint that deletes something."""
        return self._add("DELETE", path, summary, False, (401, 403, *_not_found(path), 415, 422, 503))

    def _add(
        self, method: str, path: str, summary: str, stream: bool, errors: tuple[int, ...]
    ) -> Callable[[F], F]:
        def add(function: F) -> F:
            codes, name = tuple(sorted(errors)), getattr(function, "__name__", path)
            self._endpoints.append(Endpoint(name, method, path, function, summary, self._tag, stream, codes))
            return function

        return add


def _not_found(path: str) -> tuple[int, ...]:
    return (404,) if "{" in path else ()


def add_endpoints(
    router: APIRouter,
    endpoints: Iterable[Endpoint],
    caller: Callable[..., Any],
    dependencies: Sequence[Any],
) -> None:
    """Add endpoints to a router.

    Args:
        router: The router.
        endpoints: The endpoints.
        caller: Dependency that returns the Caller of a request without a read token.
        dependencies: Dependencies of every request, also of those with a token.
    """
    noting = Depends(setting_caller(caller))
    for endpoint in endpoints:
        endpoint.add_to(router, _route_class(endpoint, dependencies), [*dependencies, noting])


def _route_class(endpoint: Endpoint, dependencies: Sequence[Any]) -> type[APIRoute]:
    """Return the class of an endpoint's route."""

    class Route(APIRoute):
        """Route that answers errors with a sentence, and requests with a read token without asking for the caller."""

        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            """Match the path as it was sent: an encoded slash belongs to a parameter, such as the id of a conversation."""
            path = _partly_encoded_path(scope)
            match, child = super().matches(scope if path is None else {**scope, "path": path})
            if path is not None and match is not Match.NONE:
                outer = scope.get("path_params", {})
                child["path_params"] = {
                    name: unquote(value) if isinstance(value, str) and name not in outer else value
                    for name, value in child["path_params"].items()
                }
            return match, child

        def get_route_handler(self) -> Handler:
            """Return the function that answers requests."""
            usual = super().get_route_handler()

            @functools.cache  # made for the first token: making it takes as long as the route itself
            def by_token() -> Handler:
                return APIRoute(
                    self.path,
                    endpoint.function,
                    methods=[endpoint.method],
                    response_model=self.response_model,
                    response_class=self.response_class,
                    dependencies=list(dependencies),
                ).get_route_handler()

            async def answer(request: Request) -> Response:
                token = presented_token(request, in_query=endpoint.stream)
                with refusing():
                    if token is not None:
                        request.scope[CALLER] = caller_of(token)
                    response = await (usual if token is None else by_token())(request)
                response.headers.setdefault("Cache-Control", "no-store")
                return response

            return answer

    return Route


def _partly_encoded_path(scope: Scope) -> str | None:
    """Return the path of a request with its encoded slashes, percent signs and line feeds still encoded.

    None if what was sent is not known, or is not the path any more that is asked for.
    """
    sent = scope.get("raw_path")
    if not isinstance(sent, bytes):
        return None
    path = unquote(_KEPT_ENCODED.sub(r"%25\1", sent.decode("latin-1")))
    return path if unquote(path) == scope["path"] else None


_KEPT_ENCODED = re.compile("%(2[Ff]|25|0[Aa])")


@contextmanager
def refusing() -> Generator[None]:
    """Answer errors of ours, and of invalid parameters, with a status code and a sentence."""
    try:
        yield
    except RequestValidationError as error:
        raise HTTPException(422, sentence_of(error.errors()), _NO_STORE) from None
    except AgentexecError as error:
        raise refusal(error, _NO_STORE) from None


_NO_STORE = {"Cache-Control": "no-store"}
