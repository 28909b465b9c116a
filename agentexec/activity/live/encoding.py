"""Live events as JSON texts, which the state backend keeps: written by publishers, parsed by followers."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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

JOINED_CHARS = 2_000
"""Characters of a text delta beyond which the next one is not joined to it."""

TEXT_DELTA = "text_delta"
DROPPED = "dropped"
LOG_CHANGED = "log"
"""Type of an event that says only that the record has a new log line."""

DURABLE_TYPES = frozenset({"status", "result", "error", "canceled"})
LIVE_TYPES = frozenset(get_args(EventType)) - DURABLE_TYPES
"""Types that a state backend may hold: the short-lived ones, and `log`."""


@dataclass(slots=True)
class LiveEvent:
    """Event that is on its way to the state backend.

    `parts` are the texts of joined text deltas; `chars` is about the size of the event.
    """

    type: str
    at: float
    epoch: int | None
    data: Mapping[str, Any]
    parts: list[str] = field(default_factory=list)
    chars: int = 0

    @property
    def only_in_backend(self) -> bool:
        """True if the record does not hold what this event says."""
        return self.type != LOG_CHANGED

    def join(self, later: LiveEvent) -> bool:
        """Append the text of a later text delta to this one; False if the two cannot be joined."""
        if not (
            later.parts
            and self.parts
            and self.epoch == later.epoch
            and self.chars < JOINED_CHARS
            and self.data == later.data
        ):
            return False
        self.parts += later.parts
        self.chars += later.chars
        return True


def new_event(type: str, epoch: int | None, data: Mapping[str, Any]) -> LiveEvent:
    """Return an event that happens now. Runs in the task's own code, so it leaves the encoding for later."""
    text = data.get("text") if type == TEXT_DELTA else None
    if text is None:
        data = {name: _head(value) for name, value in data.items()}
        # An estimate: the JSON is made when the event is sent.
        size = 100 + sum(len(value) for value in data.values() if isinstance(value, str))
        return LiveEvent(type, time.time(), epoch, data, chars=size)
    others = {name: value for name, value in data.items() if name != "text"}
    return LiveEvent(type, time.time(), epoch, others, [text], len(text))


def encode(event: LiveEvent) -> str:
    """Return the JSON text of an event. The values of an event longer than MAX_EVENT_CHARS are cut."""
    data = {**event.data, "text": "".join(event.parts)} if event.parts else dict(event.data)
    whole = {"type": event.type, "at": event.at, "epoch": event.epoch, "data": data}
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


def _head(value: Any) -> Any:
    """Cut a long string now, so that it is not kept until it is sent; `encode` notices that it was too long."""
    return value[:MAX_EVENT_CHARS] if isinstance(value, str) else value


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
