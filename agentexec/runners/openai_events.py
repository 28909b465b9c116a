"""The SDK's stream events as live events of a task."""

from __future__ import annotations

from typing import Any

from agents import RawResponsesStreamEvent, RunItemStreamEvent, StreamEvent, ToolCallItem, ToolCallOutputItem

from agentexec.activity.schemas import EventType

LiveEvent = tuple[EventType, dict[str, Any]]


def events_of(event: StreamEvent) -> LiveEvent | None:
    """The type and data of the live event for an event of `stream_events()`; None for what tells a reader nothing.

    text_delta: text, item_id, and refusal=True where the model refuses. tool_called: tool, call_id, arguments (JSON,
    as the model wrote it). tool_output: call_id, output (as text). agent: agent, the name of the one that goes on.
    usage: input_tokens, output_tokens, cached_tokens, model, of one model call; over Chat Completions only with
    ModelSettings(include_usage=True).
    """
    if isinstance(event, RawResponsesStreamEvent):
        return _of_response(event.data)
    if isinstance(event, RunItemStreamEvent):
        item = event.item
        if event.name == "tool_called" and isinstance(item, ToolCallItem):
            arguments = _field(item.raw_item, "arguments")
            return "tool_called", {
                "tool": item.tool_name or _field(item.raw_item, "type"),
                "call_id": item.call_id,
                "arguments": arguments,
            }
        if event.name == "tool_output" and isinstance(item, ToolCallOutputItem):
            return "tool_output", {"call_id": item.call_id, "output": _as_text(item.output)}
        return None
    return "agent", {"agent": event.new_agent.name}


def _of_response(data: Any) -> LiveEvent | None:
    if data.type == "response.output_text.delta":
        return "text_delta", {"text": data.delta, "item_id": data.item_id}
    if data.type == "response.refusal.delta":
        return "text_delta", {"text": data.delta, "item_id": data.item_id, "refusal": True}
    if data.type in ("response.completed", "response.incomplete") and data.response.usage is not None:
        usage = data.response.usage
        details = usage.input_tokens_details
        return "usage", {
            "model": data.response.model,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": (details.cached_tokens if details is not None else None) or 0,
        }
    return None


def _as_text(output: Any) -> str:
    dump = getattr(output, "model_dump_json", None)
    return dump() if callable(dump) else str(output)


def _field(item: Any, name: str) -> Any:
    """A tool call is a model of the API's, or a mapping."""
    return item.get(name) if isinstance(item, dict) else getattr(item, name, None)
