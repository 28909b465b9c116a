"""Streams of recorded responses: the same events as when the response came, with text in the same pieces."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from openai.types.responses import (
    ResponseCodeInterpreterCallCodeDeltaEvent,
    ResponseCodeInterpreterCallCodeDoneEvent,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseCustomToolCallInputDeltaEvent,
    ResponseCustomToolCallInputDoneEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseInProgressEvent,
    ResponseMcpCallArgumentsDeltaEvent,
    ResponseMcpCallArgumentsDoneEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputTextAnnotationAddedEvent,
    ResponseReasoningSummaryPartAddedEvent,
    ResponseReasoningSummaryPartDoneEvent,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseReasoningSummaryTextDoneEvent,
    ResponseReasoningTextDeltaEvent,
    ResponseReasoningTextDoneEvent,
    ResponseRefusalDeltaEvent,
    ResponseRefusalDoneEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
)

from agentexec.runners.openai.events import field

DeltaLengths = dict[str, list[int]]
"""Lengths of the pieces in which each text of a response came, by `_place`."""

CALL_TEXTS: dict[str, tuple[str, Any, Any, str, str]] = {
    "function_call": (
        "arguments",
        ResponseFunctionCallArgumentsDeltaEvent,
        ResponseFunctionCallArgumentsDoneEvent,
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
    ),
    "custom_tool_call": (
        "input",
        ResponseCustomToolCallInputDeltaEvent,
        ResponseCustomToolCallInputDoneEvent,
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
    ),
    "mcp_call": (
        "arguments",
        ResponseMcpCallArgumentsDeltaEvent,
        ResponseMcpCallArgumentsDoneEvent,
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
    ),
    "code_interpreter_call": (
        "code",
        ResponseCodeInterpreterCallCodeDeltaEvent,
        ResponseCodeInterpreterCallCodeDoneEvent,
        "response.code_interpreter_call_code.delta",
        "response.code_interpreter_call_code.done",
    ),
}
"""Items of which one text is streamed: its field, and the events with their types."""


class StreamShape:
    """Shape of a stream that is being received: what is needed to send the same events again."""

    def __init__(self) -> None:
        self._lengths: DeltaLengths = {}
        self._has_events = False

    def note(self, event: Any) -> None:
        """Take an event into account that is not the last one."""
        self._has_events = True
        kind, delta = field(event, "type"), field(event, "delta")
        if isinstance(kind, str) and kind.endswith(".delta") and isinstance(delta, str):
            part = field(event, "content_index")
            part = field(event, "summary_index") if part is None else part
            place = _place(kind, field(event, "output_index"), part)
            self._lengths.setdefault(place, []).append(len(delta))

    @property
    def deltas(self) -> DeltaLengths | None:
        """Return the lengths of the deltas; None if the stream had nothing but its last event."""
        return self._lengths if self._has_events else None


def replayed_events(last: ResponseCompletedEvent, deltas: DeltaLengths | None) -> Iterator[Any]:
    """Yield the events of a recorded response, the recorded last one included.

    `deltas` are those of the stream's shape. None yields the last event only, and for a text that is not in it, or has
    changed since, all of it is one delta.
    """
    if deltas is not None:
        yield from _Replay(last, deltas).events()
    yield last


class _Replay:
    """Replay of one recorded response. It numbers the events."""

    def __init__(self, last: ResponseCompletedEvent, deltas: DeltaLengths) -> None:
        self._response = last.response
        self._deltas = deltas
        self._count = -1

    def events(self) -> Iterator[Any]:
        update = {"output": [], "status": "in_progress", "usage": None}
        started = self._response.model_copy(update=update)
        yield self._event(ResponseCreatedEvent, "response.created", response=started)
        yield self._event(ResponseInProgressEvent, "response.in_progress", response=started.model_copy())
        for index, item in enumerate(self._response.output):
            added = _begun(item)
            yield self._event(
                ResponseOutputItemAddedEvent, "response.output_item.added", item=added, output_index=index
            )
            kind = field(item, "type")
            if kind == "message":
                yield from self._message(item, index)
            elif kind == "reasoning":
                yield from self._reasoning(item, index)
            elif kind in CALL_TEXTS:
                yield from self._call(item, index, *CALL_TEXTS[kind])
            done = copy.deepcopy(item)
            yield self._event(
                ResponseOutputItemDoneEvent, "response.output_item.done", item=done, output_index=index
            )

    def _event(self, kind: Any, type: str, **fields: Any) -> Any:
        self._count += 1
        return kind.construct(type=type, sequence_number=self._count, **fields)

    def _pieces(self, type: str, text: str, output_index: int, part: int | None) -> Iterator[str]:
        lengths = self._deltas.get(_place(type, output_index, part))
        if lengths is None or sum(lengths) != len(text):
            lengths = [len(text)]
        start = 0
        for length in lengths:
            yield text[start : start + length]
            start += length

    def _message(self, item: Any, index: int) -> Iterator[Any]:
        for content_index, part in enumerate(field(item, "content") or ()):
            place = {"item_id": field(item, "id"), "output_index": index, "content_index": content_index}
            text = field(part, "text")
            blank = {"refusal": ""} if text is None else {"text": "", "annotations": [], "logprobs": []}
            yield self._event(
                ResponseContentPartAddedEvent,
                "response.content_part.added",
                part=_changed(part, blank),
                **place,
            )
            if text is None:
                yield from self._refusal(field(part, "refusal") or "", place)
            else:
                yield from self._text(part, text, place)
            yield self._event(
                ResponseContentPartDoneEvent,
                "response.content_part.done",
                part=copy.deepcopy(part),
                **place,
            )

    def _text(self, part: Any, text: str, place: dict[str, Any]) -> Iterator[Any]:
        kind, logprobs = "response.output_text.delta", list(field(part, "logprobs") or ())
        pieces = list(self._pieces(kind, text, place["output_index"], place["content_index"]))
        for piece in pieces:
            probabilities = logprobs if len(pieces) == 1 else []
            yield self._event(ResponseTextDeltaEvent, kind, delta=piece, logprobs=probabilities, **place)
        for number, annotation in enumerate(field(part, "annotations") or ()):
            yield self._event(
                ResponseOutputTextAnnotationAddedEvent,
                "response.output_text.annotation.added",
                annotation=copy.deepcopy(annotation),
                annotation_index=number,
                **place,
            )
        yield self._event(
            ResponseTextDoneEvent, "response.output_text.done", text=text, logprobs=logprobs, **place
        )

    def _refusal(self, text: str, place: dict[str, Any]) -> Iterator[Any]:
        kind = "response.refusal.delta"
        for piece in self._pieces(kind, text, place["output_index"], place["content_index"]):
            yield self._event(ResponseRefusalDeltaEvent, kind, delta=piece, **place)
        yield self._event(ResponseRefusalDoneEvent, "response.refusal.done", refusal=text, **place)

    def _reasoning(self, item: Any, index: int) -> Iterator[Any]:
        place = {"item_id": field(item, "id"), "output_index": index}
        for number, summary in enumerate(field(item, "summary") or ()):
            kind, text = "response.reasoning_summary_text.delta", field(summary, "text") or ""
            at = {**place, "summary_index": number}
            yield self._event(
                ResponseReasoningSummaryPartAddedEvent,
                "response.reasoning_summary_part.added",
                part={"type": "summary_text", "text": ""},
                **at,
            )
            for piece in self._pieces(kind, text, index, number):
                yield self._event(ResponseReasoningSummaryTextDeltaEvent, kind, delta=piece, **at)
            yield self._event(
                ResponseReasoningSummaryTextDoneEvent,
                "response.reasoning_summary_text.done",
                text=text,
                **at,
            )
            yield self._event(
                ResponseReasoningSummaryPartDoneEvent,
                "response.reasoning_summary_part.done",
                part={"type": "summary_text", "text": text},
                **at,
            )
        for number, content in enumerate(field(item, "content") or ()):
            kind, text = "response.reasoning_text.delta", field(content, "text") or ""
            at = {**place, "content_index": number}
            for piece in self._pieces(kind, text, index, number):
                yield self._event(ResponseReasoningTextDeltaEvent, kind, delta=piece, **at)
            yield self._event(ResponseReasoningTextDoneEvent, "response.reasoning_text.done", text=text, **at)

    def _call(
        self, item: Any, index: int, name: str, delta: Any, done: Any, type: str, end: str
    ) -> Iterator[Any]:
        text = field(item, name)
        if not isinstance(text, str):
            return
        # A call without an id of its own is told by the one that its output has.
        place = {"item_id": field(item, "id") or field(item, "call_id"), "output_index": index}
        for piece in self._pieces(type, text, index, None):
            yield self._event(delta, type, delta=piece, **place)
        names = {"name": field(item, "name")} if field(item, "type") == "function_call" else {}
        yield self._event(done, end, **{name: text}, **names, **place)


def _place(type: str, output_index: int | None, part: int | None) -> str:
    return f"{type.removeprefix('response.').removesuffix('.delta')}:{output_index or 0}:{part or 0}"


def _begun(item: Any) -> Any:
    """Return an item as it is when a response begins it: nothing of its text has come."""
    kind = field(item, "type")
    if kind == "message":
        return _changed(item, {"content": [], "status": "in_progress"})
    if kind == "reasoning":
        content = None if field(item, "content") is None else []
        blank = {"summary": [], "content": content, "encrypted_content": None, "status": "in_progress"}
        return _changed(item, blank)
    if kind in CALL_TEXTS:
        return _changed(item, {CALL_TEXTS[kind][0]: "", "status": "in_progress"})
    return copy.deepcopy(item)


def _changed(value: Any, fields: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {**value, **fields}
    return value.model_copy(update=fields)
