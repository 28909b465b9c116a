"""Invalid requests: sentences about what does not fit, and the refusal of parameters and fields that no endpoint has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from agentexec.arguments.checks import shown
from agentexec.errors import UsageError

MAX_IGNORED_BODY = 1_000
"""Bytes of the longest body that is read where none is wanted."""

RECONNECTION = "lastEventId"
"""Query parameter that stand-ins for EventSource add when they connect again; they send the header too."""

_MEMBER = re.compile(r"<\w+\.\w+: ('[^']*'|\d+)>")
"""Member of an enum as Python shows it; its value is what a request can have."""

SENTENCES = {
    "missing": "this is required",
    "extra_forbidden": "there is no such field here",
    "too_long": "at most {max_length} are allowed",
    "too_short": "at least {min_length} are needed",
    "uuid_parsing": "this is not an id",
    "uuid_type": "this is not an id",
    "json_invalid": "this is not JSON",
    "model_attributes_type": "this is not a JSON object",
    "model_type": "this is not a JSON object",
    "dict_type": "this is not a JSON object",
    "list_type": "this is not a list",
}
"""Sentences by the type of Pydantic's error, where its own words tell of Python."""


def sentence_of(errors: Sequence[Mapping[str, Any]]) -> str:
    """Return the first thing that is wrong with a request, in one sentence.

    Args:
        errors: Errors of Pydantic, whose places begin with "query", "path" or "body".
    """
    first = next(iter(errors), {})
    kind, context = first.get("type"), first.get("ctx") or {}
    path = first.get("loc", ())
    # The place in a text that is not JSON is an offset.
    place = ".".join(str(part) for part in (path[:1] if kind == "json_invalid" else path[1:] or path))
    text = SENTENCES.get(str(kind), "").format_map({"max_length": "?", "min_length": "?", **context})
    text = text or _MEMBER.sub(r"\1", str(first.get("msg", "The request is not valid"))).rstrip(".")
    # Two dependencies with the same parameter each tell of it.
    more = len({(error.get("type"), tuple(error.get("loc", ()))) for error in errors}) - 1
    return f"{f'{place}: ' if place else ''}{text}{f' (and {more} more)' if more > 0 else ''}."[:500]


def refuse_unknown_parameters(request: Request) -> None:
    """Refuse a query parameter that neither the endpoint nor a dependency has. Raises UsageError.

    An unknown one would be ignored, and a list whose filter is misspelled looks filtered.
    """
    route = request.scope.get("route")
    dependant = getattr(route, "dependant", None)
    if dependant is None or not request.scope.get("query_string"):
        return
    known = {RECONNECTION, *_names(dependant)}
    for name in request.query_params:
        if name not in known:
            names = ", ".join(sorted(known - {RECONNECTION}))
            there_are = f"there are {names}" if names else "there is none here"
            raise UsageError(f"{shown(name)}: there is no such parameter; {there_are}.")


def _names(dependant: Any) -> Iterator[str]:
    """Yield the query parameters of an endpoint and its dependencies."""
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from (info.alias or name for name, info in model.model_fields.items())
        else:
            yield field.alias
    for dependency in dependant.dependencies:
        yield from _names(dependency)


async def refuse_unwanted_body(request: Request) -> None:
    """Refuse a body with anything in it where the endpoint has none. Raises UsageError."""
    route = request.scope.get("route")
    if getattr(route, "body_field", None) is not None:
        return
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_IGNORED_BODY:
            raise UsageError("This endpoint takes no body; leave it out, or send {}.")
    try:
        given = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        raise UsageError("The body is not JSON; leave it out, or send {}.") from None
    if given not in ({}, None):
        name = f"{shown(next(iter(given)))}: there is no such field here" if isinstance(given, dict) else ""
        raise UsageError(f"{name or 'This endpoint takes no body'}; leave it out, or send {{}}.")
