"""Behaviors of the SDK's Runner as a table: each is the same on the plain SDK, durable, and cut at every record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agents import Agent, ModelSettings, RunConfig, Runner, StopAtTools, function_tool, handoff
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask


class Answer(BaseModel):
    value: int


CALL = [function_call("look", {"topic": "a"}, call_id="a")]
PAIR = [function_call("look", {"topic": topic}, call_id=topic) for topic in "bc"]
BROKEN = [function_call("broken", {}, call_id="x")]
HAND_OFF = [function_call("transfer_to_b", {}, call_id="h")]
DONE = [assistant_message("Done.")]

BEHAVIORS: dict[str, tuple[list[Any], Callable[[list[Any]], Agent[Any]]]] = {
    "tool": ([CALL, DONE], lambda tools: Agent("A", tools=tools)),
    "parallel tools": ([PAIR, DONE], lambda tools: Agent("A", tools=tools)),
    "several turns": ([CALL, PAIR, DONE], lambda tools: Agent("A", tools=tools)),
    "tool error": ([BROKEN, DONE], lambda tools: Agent("A", tools=tools)),
    "stop on first tool": (
        [CALL],
        lambda tools: Agent("A", tools=tools, tool_use_behavior="stop_on_first_tool"),
    ),
    "stop at tools": (
        [CALL],
        lambda tools: Agent("A", tools=tools, tool_use_behavior=StopAtTools(stop_at_tool_names=["look"])),
    ),
    "output type": (
        [CALL, [assistant_message('{"value": 7}')]],
        lambda tools: Agent("A", tools=tools, output_type=Answer),
    ),
    "tool choice": (
        [CALL, DONE],
        lambda tools: Agent("A", tools=tools, model_settings=ModelSettings(tool_choice="required")),
    ),
    "dynamic instructions": (
        [CALL, DONE],
        lambda tools: Agent("A", instructions=lambda c, a: "Be brief.", tools=tools),
    ),
    "handoff": (
        [CALL, HAND_OFF, PAIR, DONE],
        lambda tools: Agent("A", tools=tools, handoffs=[Agent("b", tools=tools)]),
    ),
    "handoff with filter": (
        [CALL, HAND_OFF, DONE],
        lambda tools: Agent(
            "A", tools=tools, handoffs=[handoff(Agent("b", tools=tools), input_filter=lambda data: data)]
        ),
    ),
}


@pytest.fixture(autouse=True)
def database(sqlite_tables: str) -> Iterator[None]:
    ax.configure(database_url=sqlite_tables)
    yield
    RUNTIME.close()


async def observe(runner: Any, streamed: bool, agent: Agent[Any], turns: list[Any]) -> tuple[Any, ...]:
    """Run an agent; return what a user sees of it."""
    config = RunConfig(model=ScriptedModel(turns), tracing_disabled=True)
    events: list[Any] = []
    if streamed:
        result = runner.run_streamed(agent, "Go.", run_config=config)
        result = result if runner is Runner else await result
        async for event in result.stream_events():
            events.append(
                getattr(event, "name", None) or getattr(getattr(event, "data", None), "type", event.type)
            )
    else:
        result = await runner.run(agent, "Go.", run_config=config)
    usage = result.context_wrapper.usage
    return (
        result.final_output,
        result.to_input_list(),
        result.last_agent.name,
        result.last_response_id,
        usage,
        events,
    )


@pytest.mark.parametrize("streamed", [False, True], ids=["run", "run_streamed"])
@pytest.mark.parametrize("name", BEHAVIORS)
async def test_a_behavior_is_the_same_plain_durable_and_cut_at_every_record(
    name: str, streamed: bool
) -> None:
    turns, make = BEHAVIORS[name]
    calls: list[str] = []

    @ax.tool_policy("idempotent")
    @function_tool
    async def look(topic: str) -> str:
        calls.append(topic)
        return f"{topic}: 42"

    @ax.tool_policy("idempotent")
    @function_tool
    async def broken() -> str:
        calls.append("broken")
        raise ValueError("broken")

    async def attempt(task: ReplayableTask, turns: list[Any]) -> tuple[Any, ...]:
        agent = make([look, broken])
        return await task.attempt(lambda: observe(ax.OpenAIRunner(task.agent_id), streamed, agent, turns))

    plain = await observe(Runner, streamed, make([look, broken]), turns)
    made = sorted(calls)
    calls.clear()
    task = ReplayableTask()
    assert await attempt(task, turns) == plain
    assert sorted(calls) == made
    while rows := task.journal():
        task.delete_entries([rows[-1][:2]])
        kept = task.journal()
        calls.clear()
        assert await attempt(task, turns[sum(kind == "model" for _, _, kind in kept) :]) == plain, len(kept)
        assert len(calls) == len(made) - sum(kind == "outcome" for _, _, kind in kept)
        task.delete_entries([row[:2] for row in task.journal() if row not in kept])
