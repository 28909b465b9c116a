"""Live events of a durable run for the task's followers: text, tool calls, usage and the active agent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from agentexec.activity.schemas import EventType
from agentexec.journal.facts import Usage

LiveEvent = tuple[EventType, dict[str, Any]]

DELTAS = ("response.output_text.delta", "response.refusal.delta")

PIECE_CHARS = 4_000
"""Characters of one text_delta from a response that was not streamed; the text of a larger event could be cut."""


class TextPlaces:
    """Places of the text of one response: a turn's text that is written again after a crash has the same places."""

    def __init__(self, run: str, turn: int) -> None:
        self._run = run
        self._turn = turn
        self._offset = 0

    def add(self, events: Iterable[LiveEvent]) -> Iterator[LiveEvent]:
        """Yield the events; each text_delta gets its run and turn, and the number of characters before it."""
        for kind, data in events:
            text = data.get("text")
            if kind == "text_delta" and isinstance(text, str):
                data = {**data, "run": self._run, "turn": self._turn, "offset": self._offset}
                self._offset += len(text)
            yield kind, data


def events_from_stream(data: Any) -> Iterator[LiveEvent]:
    """Yield the live events for one event of a model's stream.

    text_delta has text, item_id, and refusal=True if the model refuses; tool_called is for tools of the provider.
    """
    # A custom model may yield events as dicts, which the SDK passes on.
    kind = field(data, "type")
    if kind in DELTAS:
        refusal = {"refusal": True} if kind == DELTAS[1] else {}
        yield "text_delta", {"text": field(data, "delta"), "item_id": field(data, "item_id"), **refusal}
    elif kind == "response.output_item.done":
        yield from events_from_hosted_tool(field(data, "item"))


def events_from_items(items: Iterable[Any]) -> Iterator[LiveEvent]:
    """Yield the live events for a response that was not streamed."""
    for item in items:
        if field(item, "type") == "message":
            for part in field(item, "content") or ():
                text, refusal = field(part, "text"), field(part, "refusal")
                more = {"refusal": True} if refusal else {}
                whole = text or refusal or ""
                for start in range(0, len(whole), PIECE_CHARS):
                    piece = whole[start : start + PIECE_CHARS]
                    yield "text_delta", {"text": piece, "item_id": field(item, "id"), **more}
        else:
            yield from events_from_hosted_tool(item)


def events_from_hosted_tool(item: Any) -> Iterator[LiveEvent]:
    """Yield the call of a tool that the provider ran itself; calls of function tools are published when they are made."""
    kind = field(item, "type") or ""
    if kind.endswith("_call") and kind != "function_call":
        yield (
            "tool_called",
            {
                "tool": kind.removesuffix("_call"),
                "call_id": field(item, "call_id") or field(item, "id"),
                "arguments": field(item, "arguments"),
            },
        )


def events_from_usage(usage: Usage) -> Iterator[LiveEvent]:
    """Yield the tokens of one model call, if the provider reports them."""
    if usage.input_tokens or usage.output_tokens:
        counts = usage._asdict()
        del counts["requests"]
        yield "usage", counts


def tool_called_event(tool: str, call_id: str, arguments: str) -> LiveEvent:
    """Return the live event for the call of a function tool; `arguments` is the JSON that the model wrote."""
    return "tool_called", {"tool": tool, "call_id": call_id, "arguments": arguments}


def tool_output_event(call_id: str, output: Any) -> LiveEvent:
    """Return the live event for a function tool's output, as text."""
    dump = getattr(output, "model_dump_json", None)
    return "tool_output", {"call_id": call_id, "output": dump() if callable(dump) else str(output)}


def field(item: Any, name: str) -> Any:
    """Return a field of an output item, which is an API object or a mapping."""
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)
