"""Input guardrails of durable runs: what one stops, it stops in every attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    RunConfig,
    function_tool,
)
from agents.testing import ScriptedModel, assistant_message, function_call

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


@pytest.fixture
def task(sqlite_tables: str) -> Iterator[ReplayableTask]:
    ax.configure(database_url=sqlite_tables)
    yield ReplayableTask()
    RUNTIME.close()


async def finish(task: ReplayableTask, mode: str, agent: Agent[Any], **options: Any) -> Any:
    runner = ax.OpenAIRunner(task.agent_id)
    if mode == "run":
        return await runner.run(agent, "Go.", **options)
    result = await runner.run_streamed(agent, "Go.", **options)
    async for _ in result.stream_events():
        pass
    return result


@both_modes
@pytest.mark.parametrize("place", ["agent", "run_config"])
@pytest.mark.parametrize("verdict", ["trips", "fails", "passes"])
async def test_a_tool_that_a_parallel_guardrail_stopped_is_not_run_by_a_retry(
    task: ReplayableTask, mode: str, place: str, verdict: str
) -> None:
    calls: list[str] = []

    async def judge(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
        await asyncio.sleep(0.1)
        if verdict == "fails":
            raise ValueError("the judge is ill")
        return GuardrailFunctionOutput("judged", tripwire_triggered=verdict == "trips")

    @function_tool
    async def pay() -> str:
        calls.append("pay")
        return "paid"

    guardrails: list[Any] = [InputGuardrail(judge)]
    agent, config = Agent("A", tools=[pay]), RunConfig()
    turns: list[Any] = [[function_call("pay", {}, call_id="p")], [assistant_message("Paid.")]]

    # The first attempt dies when the answer is recorded: its guardrail has not decided, and its tool has not begun.
    agent.model = ScriptedModel(turns)
    await task.attempt(lambda: finish(task, mode, agent))
    task.delete_entries([("A#1", 2), ("A#1/p", 0), ("A#1/p", 1)])
    calls.clear()
    if place == "agent":
        agent.input_guardrails = guardrails
    else:
        config.input_guardrails = guardrails
    agent.model = ScriptedModel(turns[1:])
    if verdict == "passes":
        result = await task.attempt(lambda: finish(task, mode, agent, run_config=config))
        assert (result.final_output, calls) == ("Paid.", ["pay"])
        return
    with pytest.raises(InputGuardrailTripwireTriggered if verdict == "trips" else ValueError):
        await task.attempt(lambda: finish(task, mode, agent, run_config=config))
    assert calls == []


@both_modes
async def test_a_guardrail_that_asks_an_agent_lets_a_replay_go_on(task: ReplayableTask, mode: str) -> None:
    judge = Agent("Judge", model=ScriptedModel([[assistant_message("Fine.")]]))

    async def ask(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
        result = await ax.OpenAIRunner(task.agent_id).run(judge, "Is it fine?")
        return GuardrailFunctionOutput(result.final_output, tripwire_triggered=False)

    agent = Agent(
        "A", model=ScriptedModel([[assistant_message("Done.")]]), input_guardrails=[InputGuardrail(ask)]
    )
    for _ in range(2):
        result = await task.attempt(lambda: finish(task, mode, agent))
        assert result.final_output == "Done."
        assert [item.output.output_info for item in result.input_guardrail_results] == ["Fine."]


async def test_a_replay_without_guardrails_waits_for_nothing(task: ReplayableTask) -> None:
    agent = Agent("A", model=ScriptedModel([[assistant_message("Done.")]]))
    for _ in range(2):
        assert (await task.attempt(lambda: finish(task, "run", agent))).final_output == "Done."
