"""Frames of a translated stream: the id of each tells exactly what its client has, even in the middle of an event."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agentexec.activity.schemas import ActivityEvent
from agentexec.errors import UsageError
from agentexec.web.translation import Message, Translator, rewritten

MAX_ID_CHARS = 4_000
"""Characters of an id that a client may send."""

START = "0.0"

_ID = re.compile(
    r"(?P<event>[0-9]{1,18}\.[0-9]{1,18})(~(?P<state>[^,]*))?(,(?P<source>[ln])(?P<skip>[0-9]{1,4}))?"
)


class Place(NamedTuple):
    """Place in a stream: an event, the translator's state after it, and how much was sent of the next one.

    `source` says where that event comes from: `l` for the log, `n` for live events. Between two readings, events of
    the two may change places.
    """

    event: str = START
    state: str = ""
    source: str = ""
    skip: int = 0


def parse_place(id: str | None) -> Place:
    """Return the place that an id tells; None is the start.

    Raises UsageError.
    """
    if not id:
        return Place()
    match = _ID.fullmatch(id) if len(id) <= MAX_ID_CHARS else None
    if match is None:
        raise UsageError("after= is not the id of an event; give the id of the last event seen, or nothing.")
    return Place(match["event"], match["state"] or "", match["source"] or "", int(match["skip"] or 0))


class Frames:
    """Frames of one connection."""

    def __init__(self, translator: Translator, place: Place, *, begin: bool) -> None:
        self.agent_id = translator.agent_id
        self._translator = translator
        self._begin = begin
        self._fresh = begin and place.event == START
        self._line, self._number = place.event.split(".")
        self._source, self._skip = place.source, place.skip
        self._live = self._live_place()

    def begin(self) -> Iterator[bytes]:
        """Yield the frames that come before all events."""
        if self._begin:
            messages = self._translator.begin()
            self._note_live_place()
            for message in messages:
                yield _frame(self._id(), message)

    def of(self, batch: Sequence[ActivityEvent]) -> Iterator[bytes]:
        """Yield the frames of the next events."""
        outdated = rewritten(batch) if self._fresh else ()
        self._fresh = self._fresh and not batch
        for event in batch:
            if event.id in outdated:
                self._line, self._number = event.id.split(".")
                self._note_live_place()
            else:
                yield from self._of(event)

    def _of(self, event: ActivityEvent) -> Iterator[bytes]:
        line, number = event.id.split(".")
        # A live event that nobody sees moves the number on, too: only what the log has moves the line.
        before, source = self._id(), "n" if line == self._line else "l"
        messages = self._translator.translate(event)
        self._line, self._number = line, number
        self._note_live_place()
        after, skip = self._id(), 0
        if messages and source == self._source:
            skip, self._source = self._skip, ""
        for count, message in enumerate(messages, 1):
            if count > skip:
                yield _frame(after if count == len(messages) else f"{before},{source}{count}", message)

    def _id(self) -> str:
        number, state = self._live
        return f"{self._line}.{number}~{state}"

    def _note_live_place(self) -> None:
        """Move on, unless a text is held back: a client that comes back must get it from its start."""
        if not self._translator.texts.held_back:
            self._live = self._live_place()

    def _live_place(self) -> tuple[str, str]:
        return self._number, self._translator.dump()


def _frame(id: str, message: Message) -> bytes:
    try:
        text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        # Browsers cannot parse NaN.
        plain = json.loads(json.dumps(message, default=str), parse_constant=lambda _: None)
        text = json.dumps(plain, ensure_ascii=False)
    return f"id: {id}\ndata: {text}\n\n".encode("utf-8", "replace")
