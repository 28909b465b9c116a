"""The SDK's stream events, from real runs against the mock server, as live events."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, ModelSettings, OpenAIProvider, RunConfig, Runner, function_tool
from pydantic import BaseModel

import agentexec as ax
from agentexec.activity import live
from agentexec.activity.schemas import ActivityEvent
from agentexec.runners.openai_events import events_of
from agentexec.runtime import RUNTIME
from examples.mock_openai import MockOpenAI, call, say, together


class Found(BaseModel):
    answer: int


@function_tool
def look_up(topic: str) -> Found:
    """Look a topic up."""
    return Found(answer=len(topic))


@pytest.mark.parametrize("use_responses", [True, False], ids=["responses", "chat"])
async def test_a_run_as_live_events(mock_openai: MockOpenAI, use_responses: bool) -> None:
    mock_openai.script(
        [together(call("look_up", topic="staff"), call("look_up", topic="cash")), say("All good, we think.")]
    )
    config = RunConfig(model_provider=OpenAIProvider(use_responses=use_responses), tracing_disabled=True)
    # Chat Completions tell no usage of a stream unless asked.
    settings = ModelSettings(include_usage=True)
    agent = Agent(name="Researcher", model="gpt-4o", tools=[look_up], model_settings=settings)
    result = Runner.run_streamed(agent, "Acme", run_config=config)
    found = [one async for event in result.stream_events() if (one := events_of(event)) is not None]
    assert found[0] == ("agent", {"agent": "Researcher"})
    called = [data for kind, data in found if kind == "tool_called"]
    assert [(data["tool"], data["arguments"].replace(" ", "")) for data in called] == [
        ("look_up", '{"topic":"staff"}'),
        ("look_up", '{"topic":"cash"}'),
    ]
    outputs = [data for kind, data in found if kind == "tool_output"]
    assert [data["output"] for data in outputs] == ['{"answer":5}', '{"answer":4}']
    assert [data["call_id"] for data in outputs] == [data["call_id"] for data in called]
    deltas = [data for kind, data in found if kind == "text_delta"]
    assert "".join(data["text"] for data in deltas) == "All good, we think." == result.final_output
    assert len({data["item_id"] for data in deltas}) == 1
    usage = [data for kind, data in found if kind == "usage"]
    assert len(usage) == 2
    total = result.context_wrapper.usage
    assert sum(data["input_tokens"] for data in usage) == total.input_tokens
    assert sum(data["output_tokens"] for data in usage) == total.output_tokens


async def test_a_handoff_tells_the_next_agent(mock_openai: MockOpenAI) -> None:
    mock_openai.script([call("transfer_to_writer"), say("Done.")])
    writer = Agent(name="Writer", model="gpt-4o")
    agent = Agent(name="Researcher", model="gpt-4o", handoffs=[writer])
    result = Runner.run_streamed(agent, "Acme", run_config=RunConfig(tracing_disabled=True))
    found = [one async for event in result.stream_events() if (one := events_of(event)) is not None]
    assert [data["agent"] for kind, data in found if kind == "agent"] == ["Researcher", "Writer"]


async def test_from_the_model_to_the_reader(mock_openai: MockOpenAI, tmp_path: Any) -> None:
    """All of it: a streamed run is published, and a reader gets the text before the result."""
    ax.configure(database_url=f"sqlite:///{tmp_path / 'test.db'}")
    ax.Base.metadata.create_all(RUNTIME.engine)
    mock_openai.script([call("look_up", topic="staff"), say("All good, we think.")])
    agent_id = ax.activity.create("research")
    events = aiter(ax.activity.stream(agent_id))
    assert (await anext(events)).type == "status"
    agent = Agent(name="Researcher", model="gpt-4o", tools=[look_up])
    result = Runner.run_streamed(agent, "Acme", run_config=RunConfig(tracing_disabled=True))
    async for event in result.stream_events():
        if (one := events_of(event)) is not None:
            live.publish(agent_id, *one)
    await RUNTIME.in_thread(ax.activity.complete, agent_id)
    found: list[ActivityEvent] = [event async for event in events]
    assert "".join(event.data["text"] for event in found if event.type == "text_delta") == result.final_output
    types = [event.type for event in found]
    assert types[-1] == "result"
    assert types.index("tool_called") < types.index("tool_output") < types.index("text_delta")
    RUNTIME.close()
