"""Live events of durable runs against the mock server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from agents import Agent, ModelSettings, OpenAIProvider, RunConfig, Usage, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseFunctionWebSearch
from openai.types.responses.response_function_web_search import ActionSearch
from pydantic import BaseModel

import agentexec as ax
from agentexec.activity.live import publisher as live
from agentexec.activity.live.encoding import encode
from agentexec.activity.schemas import ActivityEvent
from agentexec.runners.openai.events import TextPlaces, events_from_items
from agentexec.runtime import RUNTIME
from examples.mock_openai import MockOpenAI, call, say, together
from tests.attempts import ReplayableTask

Mode = Literal["run", "run_streamed"]

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


@pytest.fixture(autouse=True)
def database(sqlite_tables: str) -> Iterator[None]:
    ax.configure(database_url=sqlite_tables)
    yield
    RUNTIME.close()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Return the list that every published event is added to."""
    events: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(live, "publish", lambda agent_id, type, data: events.append((type, dict(data))))
    return events


class Found(BaseModel):
    answer: int


@function_tool
def look_up(topic: str) -> Found:
    """Look a topic up."""
    return Found(answer=len(topic))


async def run(task: ReplayableTask, mode: Mode, agent: Agent[Any], config: RunConfig | None = None) -> Any:
    config = config or RunConfig(tracing_disabled=True)

    async def handler() -> Any:
        runner = ax.OpenAIRunner(task.agent_id)
        if mode == "run":
            return await runner.run(agent, "Acme", run_config=config)
        result = await runner.run_streamed(agent, "Acme", run_config=config)
        async for _ in result.stream_events():
            pass
        return result

    return await task.attempt(handler)


@both_modes
@pytest.mark.parametrize("use_responses", [True, False], ids=["responses", "chat"])
async def test_a_run_publishes_text_tool_calls_and_usage(
    mock_openai: MockOpenAI, published: list[Any], mode: Mode, use_responses: bool
) -> None:
    mock_openai.script(
        [together(call("look_up", topic="staff"), call("look_up", topic="cash")), say("All good, we think.")]
    )
    config = RunConfig(model_provider=OpenAIProvider(use_responses=use_responses), tracing_disabled=True)
    # Chat Completions report the usage of a stream only on request.
    settings = ModelSettings(include_usage=True)
    agent = Agent(name="Researcher", model="gpt-4o", tools=[look_up], model_settings=settings)
    task = ReplayableTask()
    result = await run(task, mode, agent, config)

    assert published[0] == ("agent", {"agent": "Researcher"})
    assert [data["tool"] for kind, data in published if kind == "tool_called"] == ["look_up", "look_up"]
    called = {
        data["call_id"]: data["arguments"].replace(" ", "")
        for kind, data in published
        if kind == "tool_called"
    }
    outputs = {data["call_id"]: data["output"] for kind, data in published if kind == "tool_output"}
    assert {called[call_id]: output for call_id, output in outputs.items()} == {
        '{"topic":"staff"}': '{"answer":5}',
        '{"topic":"cash"}': '{"answer":4}',
    }
    deltas = [data for kind, data in published if kind == "text_delta"]
    assert "".join(data["text"] for data in deltas) == "All good, we think." == result.final_output
    assert len({data["item_id"] for data in deltas}) == 1
    assert [data["offset"] for data in deltas] == [
        len("".join(data["text"] for data in deltas[:index])) for index in range(len(deltas))
    ]
    assert {(data["run"], data["turn"]) for data in deltas} == {(usage_run(published), 2)}
    assert len(deltas) == 1 if mode == "run" else len(deltas) > 1
    usage = [data for kind, data in published if kind == "usage"]
    assert [data["model"] for data in usage] == ["gpt-4o", "gpt-4o"]
    total = result.context_wrapper.usage
    assert sum(data["input_tokens"] for data in usage) == total.input_tokens
    assert sum(data["output_tokens"] for data in usage) == total.output_tokens

    published.clear()
    assert (await run(task, mode, agent, config)).final_output == "All good, we think."
    assert published == []


def usage_run(published: list[Any]) -> str:
    """Return the run of which all calls and usage are."""
    (run,) = {data["run"] for kind, data in published if kind in ("usage", "tool_called")}
    return run


@both_modes
async def test_a_handoff_publishes_the_next_agent(
    mock_openai: MockOpenAI, published: list[Any], mode: Mode
) -> None:
    mock_openai.script([call("transfer_to_writer"), say("Done.")])
    writer = Agent(name="Writer", model="gpt-4o")
    await run(ReplayableTask(), mode, Agent(name="Researcher", model="gpt-4o", handoffs=[writer]))
    assert [data["agent"] for kind, data in published if kind == "agent"] == ["Researcher", "Writer"]


@both_modes
async def test_an_agent_used_as_a_tool_publishes_its_call_and_usage(published: list[Any], mode: Mode) -> None:
    usage = Usage(requests=1, input_tokens=10, output_tokens=1, total_tokens=11)
    asks = [function_call("ask_inner", {"input": "What?"}, call_id="call_1")]
    outer = ScriptedModel([asks, [assistant_message("Done.")]], default_usage=usage)
    inner = Agent("Inner", model=ScriptedModel([[assistant_message("Inside.")]], default_usage=usage))
    await run(ReplayableTask(), mode, Agent("Outer", model=outer, tools=[inner.as_tool("ask_inner", "Ask.")]))
    assert [data["agent"] for kind, data in published if kind == "agent"] == ["Outer"]
    assert "".join(data["text"] for kind, data in published if kind == "text_delta") == "Done."
    assert [data["tool"] for kind, data in published if kind == "tool_called"] == ["ask_inner"]
    assert [data["output"] for kind, data in published if kind == "tool_output"] == ["Inside."]
    assert sum(kind == "usage" for kind, _ in published) == 3


def test_a_hosted_tool_is_published_by_its_name() -> None:
    search = ResponseFunctionWebSearch(
        id="ws_1",
        type="web_search_call",
        status="completed",
        action=ActionSearch(type="search", query="Acme"),
    )
    assert list(events_from_items([search])) == [
        ("tool_called", {"tool": "web_search", "call_id": "ws_1", "arguments": None})
    ]


async def test_a_reader_gets_the_text_of_a_streamed_run_before_its_result(mock_openai: MockOpenAI) -> None:
    """From the model to the reader, with every part between them."""
    mock_openai.script([call("look_up", topic="staff"), say("All good, we think.")])
    task = ReplayableTask()
    events = aiter(ax.activity.stream(task.agent_id))
    assert (await anext(events)).type == "status"
    result = await run(task, "run_streamed", Agent(name="Researcher", model="gpt-4o", tools=[look_up]))
    await RUNTIME.run_in_thread(ax.activity.complete, task.agent_id)
    found: list[ActivityEvent] = [event async for event in events]
    assert "".join(event.data["text"] for event in found if event.type == "text_delta") == result.final_output
    types = [event.type for event in found]
    assert types[-1] == "result"
    assert types.index("tool_called") < types.index("tool_output") < types.index("text_delta")


def test_a_long_answer_that_was_not_streamed_is_not_cut() -> None:
    whole = "word " * 8_000
    events = list(TextPlaces("a1b2c3d4", 1).add(events_from_items([assistant_message(whole)])))
    sent = [json.loads(encode(kind, 1.0, 1, data))["data"] for kind, data in events]
    assert "".join(data["text"] for data in sent) == whole
    assert sent[-1]["offset"] + len(sent[-1]["text"]) == len(whole)
