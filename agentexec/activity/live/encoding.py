"""Live events as JSON texts, which the state backend keeps: written by publishers, parsed by followers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from agentexec.activity.schemas import EventType
from agentexec.state.backend import Event

log = logging.getLogger("agentexec.live")

MAX_EVENT_CHARS = 16_384
"""Characters of an event's JSON beyond which its data is truncated."""

MAX_VALUE_CHARS = 4_000
MAX_VALUES = 20
MAX_NAME_CHARS = 100
"""Limits on the data of a truncated event."""

MAX_DEPTH = 6
"""Levels of nested data that are kept where `json` cannot write it as it is."""

TEXT_DELTA = "text_delta"
DROPPED = "dropped"
LOG_CHANGED = "log"
"""Type of an event that says only that the record has a new log line."""

DURABLE_TYPES = frozenset({"status", "result", "error", "canceled"})
LIVE_TYPES = frozenset(get_args(EventType)) - DURABLE_TYPES
"""Types that a state backend may hold: the short-lived ones, and `log`."""


def encode(type: str, at: float, epoch: int | None, data: Mapping[str, Any]) -> str:
    """Return the JSON text of an event. The values of an event longer than MAX_EVENT_CHARS are cut."""
    whole: dict[str, Any] = {"type": type, "at": at, "epoch": epoch, "data": dict(data)}
    text = _dump(whole)
    if len(text) > MAX_EVENT_CHARS:
        whole["data"] = {
            **dict([_truncated(*item) for item in data.items()][:MAX_VALUES]),
            "truncated": True,
        }
        text = _dump(whole)
    return text


class ReceivedEvent(NamedTuple):
    """Live event as read from the state backend; `type` is None for an event that cannot be parsed."""

    number: int
    type: str | None
    at: float
    epoch: int | None
    data: dict[str, Any]


def parse_event(event: Event) -> ReceivedEvent:
    """Parse an event of the state backend. Anyone with access to the backend may have written it."""
    try:
        whole = json.loads(event.text)
        kind, at, epoch, data = str(whole["type"]), float(whole["at"]), whole.get("epoch"), whole["data"]
        if kind in LIVE_TYPES and isinstance(data, dict) and isinstance(epoch, int | None) and 0 < at < 1e11:
            return ReceivedEvent(event.number, kind, at, epoch, data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        log.debug("An event cannot be parsed.")
    return ReceivedEvent(event.number, None, 0.0, None, {})


def _truncated(name: str, value: Any) -> tuple[str, Any]:
    """Return a name and value that fit; a long value that is not a string becomes a cut string of its JSON."""
    text = value if isinstance(value, str) else _dump(value)
    return str(name)[:MAX_NAME_CHARS], (
        f"{text[:MAX_VALUE_CHARS]}…" if len(text) > MAX_VALUE_CHARS else value
    )


def _dump(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):
        # Browsers cannot parse NaN, and a circular value never ends.
        text = json.dumps(_plain(value, MAX_DEPTH), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any, depth: int) -> Any:
    """Return a copy that JSON can express: anything else, and anything nested too deeply, becomes a string."""
    if isinstance(value, str | bool | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if depth > 0 and isinstance(value, dict):
        return {str(name): _plain(item, depth - 1) for name, item in value.items()}
    if depth > 0 and isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    return str(value)[:MAX_VALUE_CHARS]
