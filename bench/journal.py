"""Cost of durability: the same runs with and without a journal, and the time until a resumed run goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

from agents import Agent, ModelResponse, RunConfig, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

import agentexec as ax
from bench.figures import Figure, Size, median_of
from bench.targets import Target
from tests.attempts import ReplayableTask

TURNS = 50


def journal(target: Target, size: Size) -> Iterator[Figure]:
    """Yield the milliseconds that the journal adds per model call and tool call, and the time to resume after 50 turns."""
    target.reset()
    models, tools, plain_models, plain_tools, resumed = asyncio.run(_measure(size.rounds * 3))
    yield median_of("50 model calls, not durable", "ms", plain_models)
    yield median_of("50 model calls, durable", "ms", models)
    yield median_of("50 turns with a tool, not durable", "ms", plain_tools)
    yield median_of("50 turns with a tool, durable", "ms", tools)
    per_model = [(durable - plain) / (TURNS + 1) for durable, plain in zip(models, plain_models, strict=True)]
    yield median_of("journal, per model call", "ms", per_model)
    per_tool = [
        (durable - plain) / TURNS - model
        for durable, plain, model in zip(tools, plain_tools, per_model, strict=True)
    ]
    yield median_of("journal, per tool call", "ms", per_tool)
    yield median_of("resume after 50 turns", "ms", resumed)


async def _measure(rounds: int) -> tuple[list[float], ...]:
    found: tuple[list[float], ...] = ([], [], [], [], [])
    await _durable(_with_tools())  # imports, connections
    for _ in range(rounds):
        found[0].append((await _durable(_handoffs()))[0])
        milliseconds, task = await _durable(_with_tools())
        found[1].append(milliseconds)
        found[2].append(await _timed(lambda: _run(_handoffs(), uuid4())))
        found[3].append(await _timed(lambda: _run(_with_tools(), uuid4())))
        found[4].append(await _resume(task))
    return found


async def _durable(agent: Agent[Any]) -> tuple[float, ReplayableTask]:
    task = ReplayableTask()
    return await task.attempt(lambda: _timed(lambda: _run(agent, task.agent_id))), task


async def _resume(task: ReplayableTask) -> float:
    """Return the milliseconds until a run goes on whose last response was removed, as if killed in that call."""
    task.delete_entries([("Bench#1", TURNS + 1)])
    called: list[float] = []

    class Last(ScriptedModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            called.append(time.perf_counter())
            return await super().get_response(*args, **kwargs)

    agent = _with_tools()
    agent.model = Last([[assistant_message("Done.")]])
    start = time.perf_counter()
    await task.attempt(lambda: _run(agent, task.agent_id))
    return (called[0] - start) * 1000


async def _run(agent: Agent[Any], agent_id: Any) -> None:
    config = RunConfig(tracing_disabled=True)
    await ax.OpenAIRunner(agent_id).run(agent, "Go.", max_turns=TURNS + 2, run_config=config)


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    start = time.perf_counter()
    await work()
    return (time.perf_counter() - start) * 1000


def _handoffs() -> Agent[Any]:
    """Return two agents that hand off to each other: model calls only."""
    calls = [
        [function_call(f"transfer_to_{'second' if turn % 2 == 0 else 'bench'}", {}, call_id=f"call_{turn}")]
        for turn in range(TURNS)
    ]
    model = ScriptedModel([*calls, [assistant_message("Done.")]])
    first, second = Agent("Bench", model=model), Agent("Second", model=model)
    first.handoffs, second.handoffs = [second], [first]
    return first


def _with_tools() -> Agent[Any]:
    """Return an agent that calls a tool in every turn."""

    @function_tool
    async def look(topic: str) -> str:
        return f"{topic}: 42"

    calls = [[function_call("look", {"topic": "a"}, call_id=f"call_{turn}")] for turn in range(TURNS)]
    return Agent("Bench", model=ScriptedModel([*calls, [assistant_message("Done.")]]), tools=[look])
