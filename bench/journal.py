"""What durability costs: the same runs with and without a journal, and how long a resumed run takes to get going."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

from agents import Agent, ModelResponse, RunConfig, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

import agentexec as ax
from bench.figures import Figure, Size, middle
from bench.targets import Target
from tests.attempts import ReplayableTask

TURNS = 50


def journal(target: Target, size: Size) -> Iterator[Figure]:
    """Milliseconds per model call and tool call that the journal adds, and the time to resume after 50 turns."""
    target.reset()
    models, tools, plain_models, plain_tools, resumed = asyncio.run(_measure(size.rounds * 3))
    yield middle("50 model calls, not durable", "ms", plain_models)
    yield middle("50 model calls, durable", "ms", models)
    yield middle("50 turns with a tool, not durable", "ms", plain_tools)
    yield middle("50 turns with a tool, durable", "ms", tools)
    per_model = [(one - other) / (TURNS + 1) for one, other in zip(models, plain_models, strict=True)]
    yield middle("journal, per model call", "ms", per_model)
    per_tool = [
        (one - other) / TURNS - model for one, other, model in zip(tools, plain_tools, per_model, strict=True)
    ]
    yield middle("journal, per tool call", "ms", per_tool)
    yield middle("resume after 50 turns", "ms", resumed)


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
    """The last answer is forgotten, as if the worker had been killed in that call."""
    task.delete_entries([("Bench#1", TURNS + 1)])
    began: list[float] = []

    class Last(ScriptedModel):
        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            began.append(time.perf_counter())
            return await super().get_response(*args, **kwargs)

    agent = _with_tools()
    agent.model = Last([[assistant_message("Done.")]])
    start = time.perf_counter()
    await task.attempt(lambda: _run(agent, task.agent_id))
    return (began[0] - start) * 1000


async def _run(agent: Agent[Any], agent_id: Any) -> None:
    config = RunConfig(tracing_disabled=True)
    await ax.OpenAIRunner(agent_id).run(agent, "Go.", max_turns=TURNS + 2, run_config=config)


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    start = time.perf_counter()
    await work()
    return (time.perf_counter() - start) * 1000


def _handoffs() -> Agent[Any]:
    """Two agents that hand over to each other: model calls alone."""
    calls = [
        [function_call(f"transfer_to_{'second' if turn % 2 == 0 else 'bench'}", {}, call_id=f"call_{turn}")]
        for turn in range(TURNS)
    ]
    model = ScriptedModel([*calls, [assistant_message("Done.")]])
    first, second = Agent("Bench", model=model), Agent("Second", model=model)
    first.handoffs, second.handoffs = [second], [first]
    return first


def _with_tools() -> Agent[Any]:
    """One agent that calls a tool in every turn."""

    @function_tool
    async def look(topic: str) -> str:
        return f"{topic}: 42"

    calls = [[function_call("look", {"topic": "a"}, call_id=f"call_{turn}")] for turn in range(TURNS)]
    return Agent("Bench", model=ScriptedModel([*calls, [assistant_message("Done.")]]), tools=[look])
