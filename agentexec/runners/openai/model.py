"""Model calls of a durable run: each response is recorded before the run continues, and returned again on replay."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from agents import Model, ModelResponse
from agents import Usage as SdkUsage
from agents.usage import (
    _attach_normalized_usage,
    _attach_raw_usage_snapshot,
    _extract_raw_usage_snapshot,
    _mark_requests_completed_without_usage,
    _requests_for_response_without_usage,
    _response_usage_to_usage,
    serialize_usage,
)
from openai.types.responses import Response, ResponseCompletedEvent, ResponseOutputItemDoneEvent

from agentexec.config import CONF
from agentexec.journal.canonical import digest
from agentexec.journal.facts import Usage, dump
from agentexec.runners.budgets import CallBudget, reserve_call
from agentexec.runners.openai.background import BackgroundCall, background_call
from agentexec.runners.openai.budgets import model_call, named, note_wrap_up, without_tools
from agentexec.runners.openai.events import events_from_items, events_from_stream, events_from_usage
from agentexec.runners.openai.limits import PacedModel
from agentexec.runners.openai.proxy import SdkProxy
from agentexec.runners.openai.run import DurableRun
from agentexec.runners.openai.stream_replay import DeltaLengths, StreamShape, replayed_events
from agentexec.runners.openai.tools import require_tools
from agentexec.runners.openai.usage import load_usage
from agentexec.runtime import RUNTIME

PAYLOAD_NAME = "A model's response"

WRAPPED_UP = '"wrapped_up":true'
"""Part of a recorded response that is a run's last one; within a text of the response, its quotes are escaped."""


class JournaledModel(SdkProxy):
    """A model that answers from the journal if it can. Calls that it must make keep to AGENTEXEC_RATE_LIMITS.

    `name` is the model's in those limits; None takes the name that the model gives itself.
    """

    def __init__(self, model: Model, run: DurableRun, name: str | None = None) -> None:
        super().__init__(model)
        self._paced = model if isinstance(model, PacedModel) else PacedModel(model, name)
        self._run = run

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """Return the recorded response, or a new one."""
        input_hash = self._input_hash(args, kwargs)
        recorded = await self._run.recorded_response(input_hash)
        if recorded is not None:
            await self._note_joined(args, kwargs)
            await self._run.input_guardrails.wait()
            response = load_response(recorded)
            self._note_replayed(recorded)
            require_tools(self._run, response.output, _available_tools(args, kwargs))
            return response
        args, kwargs = await self._steered(args, kwargs)
        args, kwargs = self._changed(args, kwargs)
        self._run.publish_active_agent()
        places = self._run.text_places()
        background = self._background_call(input_hash, args, kwargs)
        with await self._reserve(args, kwargs, background) as budget:
            if budget.wraps_up:
                args, kwargs = (), without_tools(named(args, kwargs))
            model = self._model_for(background, budget)
            async with self._run.model_call():
                with self._run.counting_failed_tries():
                    response = await model.get_response(*args, **kwargs)
                value, counts = self._dump(dump_response(response), budget), self._counts(response.usage)
                await self._record(input_hash, value, budget, counts)
        self._run.publish([*places.add(events_from_items(response.output)), *events_from_usage(counts)])
        return response

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Yield the events of a new response, or those of a recorded one again."""
        input_hash = self._input_hash(args, kwargs)
        recorded = await self._run.recorded_response(input_hash)
        if recorded is not None:
            await self._note_joined(args, kwargs)
            await self._run.input_guardrails.wait()
            last, deltas = load_event(recorded)
            self._note_replayed(recorded)
            require_tools(self._run, last.response.output, _available_tools(args, kwargs))
            for event in replayed_events(last, deltas):
                yield event
            return
        args, kwargs = await self._steered(args, kwargs)
        args, kwargs = self._changed(args, kwargs)
        self._run.publish_active_agent()
        background = self._background_call(input_hash, args, kwargs)
        with await self._reserve(args, kwargs, background) as budget:
            if budget.wraps_up:
                args, kwargs = (), without_tools(named(args, kwargs))
            events = self._model_for(background, budget).stream_response(*args, **kwargs)
            stream = self._stream(input_hash, budget, events)
            async with self._run.model_call(), aclosing(stream) as events:
                async for event in events:
                    yield event

    def _input_hash(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the hash of the input as the SDK gives it, without the changes of a fork."""
        given = kwargs["input"] if "input" in kwargs else args[1]
        if self._run.changes is not None:
            self._run.changes.note_input(self._run.next_turn, given)
        if RUNTIME.replay is not None:
            RUNTIME.replay.check_input(self._run.recorder, self._run.path, self._run.next_turn, given)
        return digest(given)

    async def _note_joined(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Let messages of a conversation join where they had before a call that is answered from the journal."""
        if self._run.steering is not None:
            given = named(args, kwargs)["input"]
            await self._run.steering.before_replayed(self._run.next_turn - 1, given)

    async def _steered(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call with the messages of the conversation that have joined the run."""
        if self._run.steering is None:
            return args, kwargs
        given = named(args, kwargs)
        input = await self._run.steering.before_call(self._run.next_turn, given["input"])
        return (), {**given, "input": input}

    def _changed(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        changes = self._run.changes
        if changes is None:
            return args, kwargs
        return changes.apply(self._run.next_turn, self._run.active_agent, args, kwargs)

    def _background_call(
        self, input_hash: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> BackgroundCall | None:
        settings = kwargs["model_settings"] if "model_settings" in kwargs else args[2]
        return background_call(self._run, self._paced.inner, settings, input_hash)

    def _model_for(self, background: BackgroundCall | None, budget: CallBudget) -> PacedModel:
        if background is None:
            return self._paced
        background.wraps_up = budget.wraps_up
        return PacedModel(background.model(self._paced.inner), self._paced.name)

    async def _reserve(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], background: BackgroundCall | None
    ) -> CallBudget:
        """Reserve what the call is expected to cost, if the task has a budget."""
        recorder = self._run.recorder
        if not recorder.budget.is_limited(CONF.budgets):
            return CallBudget()
        name = getattr(self._inner, "model", None) or self._paced.name
        return await reserve_call(recorder, model_call(self._run, str(name), named(args, kwargs), background))

    async def _record(self, input_hash: str, value: str, budget: CallBudget, counts: Usage) -> None:
        await self._run.record_response(input_hash, value, budget.charged(counts))
        budget.settled()
        if budget.wraps_up:
            note_wrap_up(self._run)

    def _note_replayed(self, recorded: str) -> None:
        if self._run.recorder.budget.is_limited(CONF.budgets) and WRAPPED_UP in recorded:
            note_wrap_up(self._run)

    async def _stream(
        self, input_hash: str, budget: CallBudget, stream: AsyncIterator[Any]
    ) -> AsyncGenerator[Any]:
        items: list[Any] = []
        shape = StreamShape()
        places = self._run.text_places()
        try:
            async for event in self._run.counting_failed_tries_of(stream):
                self._run.publish(places.add(events_from_stream(event)))
                if isinstance(event, ResponseOutputItemDoneEvent):
                    items.append(event.item)
                if isinstance(event, ResponseCompletedEvent):
                    if not event.response.output:
                        # Some servers send the output only in earlier events, and those are not recorded.
                        event.response.output = list(items)
                    usage = usage_of(event.response)
                    data = {**dump_event(event, usage), "deltas": shape.deltas}
                    counts = self._counts(usage, event.response)
                    await self._record(input_hash, self._dump(data, budget), budget, counts)
                    self._run.publish(events_from_usage(counts))
                else:
                    shape.note(event)
                yield event
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    def _dump(self, data: dict[str, Any], budget: CallBudget) -> str:
        if budget.wraps_up:
            data["wrapped_up"] = True
        if self._run.session_added:
            data["session_added"] = self._run.session_added
        if self._run.failed_tries:
            data["failed_tries"] = self._run.failed_tries
        return dump(data, PAYLOAD_NAME)

    def _counts(self, used: SdkUsage, response: Response | None = None) -> Usage:
        name = getattr(self._inner, "model", None) or getattr(response, "model", None)
        model = str(name) if name else type(self._inner).__name__
        cached = used.input_tokens_details.cached_tokens or 0
        return Usage(model, used.requests, used.input_tokens, cached, used.output_tokens)


def usage_of(response: Response) -> SdkUsage:
    """Return the usage of a streamed response as the SDK counts it."""
    if response.usage:
        return _response_usage_to_usage(response.usage)
    return SdkUsage(requests=_requests_for_response_without_usage(response))


def dump_response(response: ModelResponse) -> dict[str, Any]:
    """Return a response as JSON data, without fields that the provider did not send: the next input would gain them."""
    return {
        "output": [_dump_item(item) for item in response.output],
        "usage": serialize_usage(response.usage),
        "response_id": response.response_id,
        "request_id": response.request_id,
        "raw_usage": response.raw_usage,
    }


def load_response(text: str) -> ModelResponse:
    """Return the response that `dump_response` or, for a streamed response, `dump_event` was given."""
    data = json.loads(text)
    streamed = data["event"]["response"] if "event" in data else None
    return ModelResponse(
        output=_load_items(streamed["output"] if streamed else data["output"]),
        usage=load_usage(data),
        response_id=streamed.get("id") if streamed else data["response_id"],
        request_id=data["request_id"],
        raw_usage=data["raw_usage"],
    )


def dump_event(event: ResponseCompletedEvent, usage: SdkUsage) -> dict[str, Any]:
    """Return the last event of a stream as JSON data."""
    return {
        "event": event.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False),
        "usage": serialize_usage(usage),
        "request_id": getattr(event.response, "_request_id", None),
        "raw_usage": _extract_raw_usage_snapshot(event.response),
    }


def load_event(text: str) -> tuple[ResponseCompletedEvent, DeltaLengths | None]:
    """Return the event that `dump_event` was given, or one made from a response that was not streamed, and its deltas."""
    data = json.loads(text)
    # Parse as the OpenAI client does, so that unknown fields and kinds of items pass as they did.
    event = ResponseCompletedEvent.construct(**(data.get("event") or _as_event(data)))
    usage = load_usage(data)
    if event.response.usage:
        _attach_normalized_usage(event.response.usage, usage)
    elif usage.requests:
        _mark_requests_completed_without_usage(event.response, usage.requests)
    if data["request_id"] is not None:
        object.__setattr__(event.response, "_request_id", data["request_id"])
    if data["raw_usage"] is not None:
        _attach_raw_usage_snapshot(event.response, data["raw_usage"])
    # Earlier releases did not record the deltas.
    return event, data.get("deltas", {})


def _as_event(data: dict[str, Any]) -> dict[str, Any]:
    response = {
        "id": data["response_id"],
        "object": "response",
        "created_at": 0.0,
        "model": "",
        "output": data["output"],
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
    }
    return {"type": "response.completed", "sequence_number": 0, "response": response}


def _dump_item(item: Any) -> Any:
    if isinstance(item, dict):
        return item
    return item.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)


def _load_items(items: list[Any]) -> list[Any]:
    return Response.construct(output=items).output if items else []


def _available_tools(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the tools and handoffs that a model call offers."""
    tools = kwargs["tools"] if "tools" in kwargs else args[3]
    handoffs = kwargs["handoffs"] if "handoffs" in kwargs else args[5]
    return [*tools, *handoffs]
