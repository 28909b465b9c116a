"""Translation of a task's events into the events of another protocol, for one client."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from agentexec.activity.schemas import ActivityEvent
from agentexec.web.written_texts import TextChange, WrittenTexts, checksum_of

Message = dict[str, Any]
"""Event of the other protocol, as JSON."""

MAX_CALLS = 64
"""Calls of tools that are tracked until their output comes."""

PROVIDER_TOOLS = frozenset({"web_search", "file_search", "code_interpreter", "image_generation", "mcp"})
"""Tools that the model's provider has run by the time they are announced; no output of theirs is published."""

RESULT = "result"
"""Name of the text that is the task's result, if the model's texts are not."""

RESUMED = re.compile(r"Resumed at turn (\d{1,9})")
WAITING = re.compile(r"Waiting for (approval|event): ")

_HEAD = re.compile(r"([0-9]{1,7})(e|f|a)")
_CALL = re.compile(r"!([0-9a-f]{1,8})")


class Translator(ABC):
    """State of one client, and the messages for the events that come next."""

    def __init__(self, agent_id: UUID | str, state: str = "") -> None:
        self.agent_id = str(agent_id)
        self.texts = WrittenTexts()
        self.step = 0
        """Number of the step that is open; 0 for none yet."""
        self._fill = "e"
        """e: the step is empty, f: it has content, a: one of its calls was answered."""
        self._calls: dict[int, None] = {}
        self._load(state)

    # ---- state ---------------------------------------------------------------------------------------------

    def dump(self) -> str:
        """Return the state as printable ASCII, from which another process can go on."""
        calls = [f"!{checksum:x}" for checksum in self._calls]
        return ";".join([f"{self.step}{self._fill}", *self.texts.dump(), *calls])

    def _load(self, state: str) -> None:
        """Take over a state. It comes from the client: what is not valid is left out."""
        head, *words = state.split(";")
        match = _HEAD.fullmatch(head)
        if match:
            self.step, self._fill = int(match[1]), match[2]
        for word in words[: MAX_CALLS * 2]:
            call = _CALL.fullmatch(word)
            if call and len(self._calls) < MAX_CALLS:
                self._calls[int(call[1], 16)] = None
            elif not call:
                self.texts.load(word)

    # ---- events --------------------------------------------------------------------------------------------

    def begin(self) -> list[Message]:
        """Return the messages that open a stream; where a client starts again in the middle, they open what was open."""
        return [*self._started(), *self._texts(self.texts.reopen())]

    def translate(self, event: ActivityEvent) -> list[Message]:
        """Return the messages for the next event."""
        handler = getattr(self, f"_on_{event.type}", None)
        return list(handler(event.data)) if handler else []

    def _on_text_delta(self, data: dict[str, Any]) -> Iterator[Message]:
        if self._fill == "a" or self.texts.is_new(data):
            yield from self._next_step(fresh=self._fill == "e")
        yield from self._texts(self.texts.add(data))
        self._fill = "f"

    def _on_tool_called(self, data: dict[str, Any]) -> Iterator[Message]:
        yield from self._call(data)

    def _call(self, data: dict[str, Any]) -> Iterator[Message]:
        """Yield a call. One that is made again because a worker crashed during it is known already."""
        call_id, tool = as_text(data.get("call_id")), as_text(data.get("tool")) or "tool"
        yield from self._texts(self.texts.close(_run(data)))
        if not call_id or checksum_of(call_id) in self._calls:
            return
        yield from self._next_step(fresh=self._fill != "a")
        self._fill = "f"
        self._note_call(call_id)
        yield from self._tool_called(call_id, tool, data.get("arguments"))
        if tool in PROVIDER_TOOLS and data.get("arguments") is None:
            yield from self._answer(call_id, None)

    def _on_tool_output(self, data: dict[str, Any]) -> Iterator[Message]:
        call_id = as_text(data.get("call_id"))
        if call_id:
            yield from self._answer(call_id, as_text(data.get("output")))

    def _answer(self, call_id: str, output: str | None) -> Iterator[Message]:
        checksum = checksum_of(call_id)
        if checksum not in self._calls:
            yield from self._call({"call_id": call_id, "tool": "tool", "arguments": ""})
        self._calls.pop(checksum, None)
        if not self._calls:
            self._fill = "a"
        yield from self._tool_answered(call_id, output)

    def _on_usage(self, data: dict[str, Any]) -> Iterator[Message]:
        yield from self._texts(self.texts.close(_run(data)))
        yield from self._note("usage", data)

    def _on_agent(self, data: dict[str, Any]) -> Iterator[Message]:
        return self._note("agent", data)

    def _on_dropped(self, data: dict[str, Any]) -> Iterator[Message]:
        return self._note("dropped", data)

    def _on_status(self, data: dict[str, Any]) -> Iterator[Message]:
        if data.get("status") == "running":
            self.texts.note_new_attempt()
        return self._on_log(data)

    def _on_log(self, data: dict[str, Any]) -> Iterator[Message]:
        yield from self._progress(data)
        message = as_text(data.get("message"))
        resumed, waiting = RESUMED.match(message), WAITING.match(message)
        if resumed:
            yield from self._note("resumed", {"turn": int(resumed[1]), "message": message})
        if waiting:
            calls = data.get("approvals") or []
            yield from self._note(
                "waiting", {"for": waiting[1], "message": message, **({"approvals": calls} if calls else {})}
            )
            for call in calls:
                yield from self._approval(call)

    def _on_result(self, data: dict[str, Any]) -> Iterator[Message]:
        yield from self._progress(data)
        value = data.get("value")
        if isinstance(value, str) and value.strip() and not self.texts.contain(value):
            yield from self._next_step(fresh=self._fill == "e")
            yield from self._text(TextChange("begin", RESULT))
            yield from self._text(TextChange("add", RESULT, value))
            yield from self._text(TextChange("end", RESULT))
        yield from self._close()
        yield from self._finished(value)

    def _on_error(self, data: dict[str, Any]) -> Iterator[Message]:
        yield from self._progress(data)
        yield from self._close()
        yield from self._failed(as_text(data.get("error")) or as_text(data.get("message")))

    def _on_canceled(self, data: dict[str, Any]) -> Iterator[Message]:
        yield from self._progress(data)
        yield from self._close()
        yield from self._canceled(as_text(data.get("error")) or as_text(data.get("message")))

    def _close(self) -> Iterator[Message]:
        yield from self._texts(self.texts.close())
        if self.step:
            yield from self._step_ended()

    def _next_step(self, *, fresh: bool) -> Iterator[Message]:
        """Begin a step, unless the open one is `fresh` enough for what comes."""
        if self.step and fresh:
            return
        yield from self._close()
        self.step += 1
        self._fill = "e"
        yield from self._step_begun()

    def _note_call(self, call_id: str) -> None:
        while len(self._calls) >= MAX_CALLS:
            self._calls.pop(next(iter(self._calls)))
        self._calls[checksum_of(call_id)] = None

    def _approval(self, call: dict[str, Any]) -> Iterator[Message]:
        yield from self._call(call)
        yield from self._approval_asked(call)

    def _texts(self, changes: Iterable[TextChange]) -> Iterator[Message]:
        for change in changes:
            yield from self._text(change)

    # ---- the protocol --------------------------------------------------------------------------------------

    @abstractmethod
    def _started(self) -> Iterable[Message]: ...

    @abstractmethod
    def _step_begun(self) -> Iterable[Message]: ...

    @abstractmethod
    def _step_ended(self) -> Iterable[Message]: ...

    @abstractmethod
    def _text(self, change: TextChange) -> Iterable[Message]: ...

    @abstractmethod
    def _tool_called(self, call_id: str, tool: str, arguments: Any) -> Iterable[Message]: ...

    @abstractmethod
    def _tool_answered(self, call_id: str, output: str | None) -> Iterable[Message]: ...

    @abstractmethod
    def _approval_asked(self, call: dict[str, Any]) -> Iterable[Message]: ...

    @abstractmethod
    def _progress(self, data: dict[str, Any]) -> Iterable[Message]: ...

    @abstractmethod
    def _note(self, kind: str, data: dict[str, Any]) -> Iterator[Message]: ...

    @abstractmethod
    def _finished(self, value: Any) -> Iterable[Message]: ...

    @abstractmethod
    def _failed(self, error: str) -> Iterable[Message]: ...

    @abstractmethod
    def _canceled(self, reason: str) -> Iterable[Message]: ...


def rewritten(events: Iterable[ActivityEvent]) -> set[str]:
    """Return the ids of the events whose text a later one writes again: a client that has seen none needs none."""
    pieces: dict[tuple[str, str], list[str]] = {}
    found: set[str] = set()
    for event in events:
        if event.type == "text_delta":
            place = str(event.data.get("run")), str(event.data.get("turn"))
            if event.data.get("offset") == 0:
                found.update(pieces.pop(place, ()))
            pieces.setdefault(place, []).append(event.id)
    return found


def _run(data: dict[str, Any]) -> str | None:
    return as_text(data.get("run")) or None


def as_text(value: Any) -> str:
    """Return a text as it is, and an empty one for anything else."""
    return value if isinstance(value, str) else ""
