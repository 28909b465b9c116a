"""Model calls of a durable run: every finished response is recorded before the run goes on, and given again on replay."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from agents import Model, ModelResponse
from agents import Usage as SdkUsage
from agents.usage import deserialize_usage, serialize_usage
from openai.types.responses import Response, ResponseCompletedEvent, ResponseOutputItemDoneEvent

from agentexec.journal.store import Usage, digest, dump
from agentexec.runners.openai_run import DurableRun

RAW_USAGE = "_agents_sdk_raw_usage"
"""Where the SDK keeps the provider's own account of a streamed response."""

COUNTS = (
    "input_tokens",
    "input_tokens_details",
    "output_tokens",
    "output_tokens_details",
    "total_tokens",
)

WHAT = "A model's response"


class JournaledModel:
    """A model that answers from the journal where it can.

    In every other respect it is the model that it stands for, to `isinstance` too: the SDK asks for kinds of models.
    """

    def __init__(self, model: Model, run: DurableRun) -> None:
        self._model = model
        self._run = run

    @property
    def __class__(self) -> Any:
        return type(self._model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """The recorded response, or a new one."""
        input_hash = _input_hash(args, kwargs)
        recorded = await self._run.recorded_response(input_hash)
        if recorded is not None:
            return load_response(recorded)
        response = await self._model.get_response(*args, **kwargs)
        used = self._usage(response.usage, None)
        await self._run.record_response(input_hash, dump(dump_response(response), WHAT), used)
        return response

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """The events of a new response; of a recorded one the last event alone, which holds it all."""
        input_hash = _input_hash(args, kwargs)
        recorded = await self._run.recorded_response(input_hash)
        if recorded is not None:
            yield load_event(recorded)
            return
        items: list[Any] = []
        stream = self._model.stream_response(*args, **kwargs)
        try:
            async for event in stream:
                if isinstance(event, ResponseOutputItemDoneEvent):
                    items.append(event.item)
                elif isinstance(event, ResponseCompletedEvent):
                    if not event.response.output:
                        # Some servers leave the output to the events before, and those are not recorded.
                        event.response.output = list(items)
                    used = self._usage(None, event.response)
                    await self._run.record_response(input_hash, dump(dump_event(event), WHAT), used)
                yield event
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    def _usage(self, used: SdkUsage | None, response: Response | None) -> Usage:
        name = getattr(self._model, "model", None) or getattr(response, "model", None)
        model = str(name) if name else type(self._model).__name__
        if used is not None:
            cached = used.input_tokens_details.cached_tokens or 0
            return Usage(model, used.requests, used.input_tokens, cached, used.output_tokens)
        counted = response.usage if response is not None else None
        if counted is None:
            return Usage(model, 1, 0, 0, 0)
        cached = getattr(counted.input_tokens_details, "cached_tokens", 0) or 0
        return Usage(model, 1, counted.input_tokens, cached, counted.output_tokens)


def dump_response(response: ModelResponse) -> dict[str, Any]:
    """A response as JSON data. Fields that the provider did not send stay away, or the next input would gain them."""
    return {
        "output": [_dump_item(item) for item in response.output],
        "usage": serialize_usage(response.usage),
        "response_id": response.response_id,
        "request_id": response.request_id,
        "raw_usage": response.raw_usage,
    }


def load_response(text: str) -> ModelResponse:
    """The response that `dump_response` was given, or that a streamed response amounts to."""
    data = json.loads(text)
    if "event" in data:
        data = _from_event(data["event"])
    return ModelResponse(
        output=_load_items(data["output"]),
        usage=deserialize_usage(data["usage"]),
        response_id=data["response_id"],
        request_id=data["request_id"],
        raw_usage=data["raw_usage"],
    )


def dump_event(event: ResponseCompletedEvent) -> dict[str, Any]:
    """The last event of a stream as JSON data."""
    return {
        "event": event.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False),
        "request_id": getattr(event.response, "_request_id", None),
        "raw_usage": getattr(event.response, RAW_USAGE, None),
    }


def load_event(text: str) -> ResponseCompletedEvent:
    """The event that `dump_event` was given, or that stands for a response that was not streamed."""
    data = json.loads(text)
    if "event" not in data:
        return ResponseCompletedEvent.construct(
            type="response.completed", sequence_number=0, response=_as_response(data)
        )
    # The client's own way from JSON to an event: unknown fields and kinds of items pass as they did.
    event = ResponseCompletedEvent.construct(**data["event"])
    for name in ("request_id", "raw_usage"):
        if data[name] is not None:
            attribute = "_request_id" if name == "request_id" else RAW_USAGE
            object.__setattr__(event.response, attribute, data[name])
    return event


def _from_event(event: dict[str, Any]) -> dict[str, Any]:
    response = event["response"]
    used = response.get("usage")
    usage = (
        {"requests": 1, **{name: used[name] for name in COUNTS if name in used}} if used else {"requests": 1}
    )
    return {
        "output": response["output"],
        "usage": usage,
        "response_id": response.get("id"),
        "request_id": None,
        "raw_usage": None,
    }


def _as_response(data: dict[str, Any]) -> dict[str, Any]:
    used = data["usage"]
    return {
        "id": data["response_id"],
        "object": "response",
        "created_at": 0.0,
        "model": "",
        "output": data["output"],
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "usage": {name: _first(used[name]) for name in COUNTS if name in used},
    }


def _first(value: Any) -> Any:
    """The SDK writes the details of tokens as a list of one."""
    return value[0] if isinstance(value, list) and value else value


def _dump_item(item: Any) -> Any:
    if isinstance(item, dict):
        return item
    return item.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)


def _load_items(items: list[Any]) -> list[Any]:
    return Response.construct(output=items).output if items else []


def _input_hash(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return digest(kwargs["input"] if "input" in kwargs else args[1])
