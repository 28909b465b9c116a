"""Streams of durable runs: a resumed run sends the events that the first attempt sent, in the same pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, ModelRetrySettings, ModelSettings, OpenAIResponsesModel, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.testing.model import _stream_events_for_step
from openai import AsyncOpenAI
from openai.types.responses import (
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseReasoningItem,
)
from openai.types.responses.response_reasoning_item import Content, Summary

import agentexec as ax
from agentexec.runtime import RUNTIME
from examples.mock_openai import MockOpenAI, say
from tests.attempts import ReplayableTask

TEXT = "The quick brown fox jumps over the lazy dog, again and again."


@pytest.fixture
def task(sqlite_tables: str) -> Iterator[ReplayableTask]:
    ax.configure(database_url=sqlite_tables)
    yield ReplayableTask()
    RUNTIME.close()


async def stream(task: ReplayableTask, agent: Agent[Any]) -> list[Any]:
    """Run an agent; return the raw events of its model, as data."""
    result = await ax.OpenAIRunner(task.agent_id).run_streamed(agent, "Go.")
    raw = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
    return [event if isinstance(event, dict) else event.model_dump() for event in raw]


@function_tool
def look(topic: str) -> str:
    return topic


def turns() -> list[Any]:
    reasoning = ResponseReasoningItem(
        id="r", type="reasoning", summary=[Summary(text="Thinking.", type="summary_text")],
        content=[Content(text="Hm.", type="reasoning_text")], encrypted_content="xyz",
    )  # fmt: skip
    citation = {
        "type": "url_citation",
        "start_index": 0,
        "end_index": 3,
        "title": "T",
        "url": "https://e.org",
    }
    message = ResponseOutputMessage(
        id="m", type="message", role="assistant", status="completed",
        content=[
            ResponseOutputText(text=TEXT, type="output_text", annotations=[citation], logprobs=[]),  # ty: ignore[invalid-argument-type]
            ResponseOutputRefusal(refusal="No more.", type="refusal"),
        ],
    )  # fmt: skip
    calls = [function_call("look", {"topic": topic}, call_id=topic) for topic in "ab"]
    return [[reasoning, message, *calls], [assistant_message("I am done.", item_id="i")]]


async def test_a_replay_sends_the_events_of_the_first_attempt(task: ReplayableTask) -> None:
    """Text, refusals, arguments, reasoning and annotations come as item, part, deltas and their ends."""
    agent = Agent("A", model=ScriptedModel(turns()), tools=[look])
    first = await task.attempt(lambda: stream(task, agent))
    agent.model = ScriptedModel()
    again = await task.attempt(lambda: stream(task, agent))
    assert [event["type"] for event in again] == [event["type"] for event in first]
    assert again == first


async def test_a_run_that_was_not_streamed_is_replayed_with_events(task: ReplayableTask) -> None:
    agent = Agent("A", model=ScriptedModel(turns()), tools=[look])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent, "Go."))
    agent.model = ScriptedModel()
    events = await task.attempt(lambda: stream(task, agent))
    assert (
        "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
        == TEXT + "I am done."
    )


def pieces(text: str, size: int) -> list[Any]:
    """Return the events of a stream whose text comes in pieces."""
    model = ScriptedModel([[assistant_message(text)]])
    step = model._steps[0]
    events: list[Any] = []
    for event in _stream_events_for_step(step, preserve_raw_usage=False):
        if event.type == "response.output_text.delta":
            parts = [text[start : start + size] for start in range(0, len(text), size)]
            events.extend(event.model_copy(update={"delta": part}) for part in parts)
        else:
            events.append(event)
    return [event.model_copy(update={"sequence_number": number}) for number, event in enumerate(events)]


async def test_text_comes_in_the_same_pieces_so_that_checks_of_it_are_the_same(task: ReplayableTask) -> None:
    """As in the SDK's example of streaming guardrails, an agent checks the text while it comes."""
    checked: list[str] = []

    async def handler(model: Any) -> str:
        agent = Agent("A", model=model)
        judge = Agent("Judge", model=ScriptedModel([[assistant_message("Fine.")]] * 2))
        runner, text, check = ax.OpenAIRunner(task.agent_id), "", None

        async def run_check(text: str) -> None:
            checked.append(text)
            await runner.run(judge, text)

        result = await runner.run_streamed(agent, "Go.")
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                text += event.data.delta
                if len(text) >= 20 and check is None:
                    check = asyncio.create_task(run_check(text))
        if check is not None:
            await check
        await run_check(text)
        return text

    model = ScriptedModel([ModelStep.stream(pieces(TEXT, 7))])
    assert await task.attempt(lambda: handler(model)) == TEXT
    assert await task.attempt(lambda: handler(ScriptedModel())) == TEXT
    assert checked == [TEXT[:21], TEXT] * 2


async def test_a_stream_of_its_last_event_alone_is_replayed_as_that(task: ReplayableTask) -> None:
    last = pieces(TEXT, 7)[-1]
    agent = Agent("A", model=ScriptedModel([ModelStep.stream([last])]))
    first = await task.attempt(lambda: stream(task, agent))
    agent.model = ScriptedModel()
    assert await task.attempt(lambda: stream(task, agent)) == first
    assert len(first) == 1


async def test_events_may_be_dicts_as_in_the_sdk(task: ReplayableTask) -> None:
    *events, last = pieces(TEXT, 7)
    plain: list[Any] = [{"type": "custom"}, {"no": "type"}, *(event.model_dump() for event in events)]
    agent = Agent("A", model=ScriptedModel([ModelStep.stream([*plain, last])]))
    first = await task.attempt(lambda: stream(task, agent))
    assert first[:2] == plain[:2]
    agent.model = ScriptedModel()
    again = await task.attempt(lambda: stream(task, agent))
    deltas = [[e.get("delta") for e in events if "delta" in e] for events in (first, again)]
    assert deltas[0] == deltas[1]


async def test_a_journal_of_an_earlier_release_sends_each_text_in_one_piece(
    task: ReplayableTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentexec.runners.openai.stream_replay.StreamShape.deltas", {})
    agent = Agent("A", model=ScriptedModel([ModelStep.stream(pieces(TEXT, 7))]))
    await task.attempt(lambda: stream(task, agent))
    agent.model = ScriptedModel()
    again = await task.attempt(lambda: stream(task, agent))
    assert [e["delta"] for e in again if e["type"] == "response.output_text.delta"] == [TEXT]


@pytest.mark.parametrize("mode", ["run", "run_streamed"])
async def test_usage_keeps_the_failed_tries_of_a_model_call(task: ReplayableTask, mode: str) -> None:
    async def handler(model: Any) -> Any:
        settings = ModelSettings(
            retry=ModelRetrySettings(
                max_retries=3, backoff={"initial_delay": 0.001}, policy=lambda context: True
            )
        )
        agent = Agent("A", model=model, model_settings=settings, tools=[look])
        runner = ax.OpenAIRunner(task.agent_id)
        if mode == "run":
            return (await runner.run(agent, "Go.")).context_wrapper.usage
        result = await runner.run_streamed(agent, "Go.")
        async for _ in result.stream_events():
            pass
        return result.context_wrapper.usage

    errors = [ModelStep.raise_error(ConnectionError(str(number))) for number in range(2)]
    first = await task.attempt(lambda: handler(ScriptedModel([*errors, *turns()])))
    assert first.requests == 4
    again = await task.attempt(lambda: handler(ScriptedModel()))
    assert again == first


async def test_a_real_stream_is_replayed_in_order(task: ReplayableTask, mock_openai: MockOpenAI) -> None:
    mock_openai.script([say(TEXT)])
    async with AsyncOpenAI(base_url=mock_openai.base_url, api_key="test") as client:
        agent = Agent("A", model=OpenAIResponsesModel("gpt-4o", client))
        first = await task.attempt(lambda: stream(task, agent))
        again = await task.attempt(lambda: stream(task, agent))
    assert [event["type"] for event in again] == [event["type"] for event in first]
    assert [event.get("delta") for event in again] == [event.get("delta") for event in first]
    assert len(mock_openai.requests()) == 1
