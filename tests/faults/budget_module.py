"""Agents that spend tokens at random, for `test_budgets_killed.py`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from agents import Agent, Model, ModelResponse, ModelSettings, Usage, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel

import agentexec as ax

TURNS = 6
MAX_INPUT, MAX_OUTPUT = 200, 50


class Spend(BaseModel):
    """Context of one agent."""

    key: str
    times: int


class Spender(Model):
    """Model whose calls take random numbers of tokens."""

    model = "spender"

    async def _answer(self, input: Any) -> ScriptedModel:
        await asyncio.sleep(random.uniform(0.02, 0.2))
        turn = sum(isinstance(item, dict) and item.get("type") == "function_call" for item in input)
        output: Any = assistant_message("Done.")
        if turn < TURNS - 1:
            output = function_call("think", {}, call_id=f"call-{turn}")
        taken, given = random.randint(20, MAX_INPUT), random.randint(5, MAX_OUTPUT)
        usage = Usage(requests=1, input_tokens=taken, output_tokens=given, total_tokens=taken + given)
        return ScriptedModel([[output]], default_usage=usage)

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return await (await self._answer(_input(args, kwargs))).get_response(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for event in (await self._answer(_input(args, kwargs))).stream_response(*args, **kwargs):
            yield event


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    given = kwargs["input"] if "input" in kwargs else args[1]
    return given if isinstance(given, list) else []


@function_tool
@ax.tool_policy("idempotent")
def think() -> str:
    """Think."""
    return "Hm."


pool = ax.Pool()


@pool.task("spend")
async def spend(agent_id: UUID, context: Spend) -> str:
    settings = ModelSettings(max_tokens=MAX_OUTPUT)
    agent = Agent("Spender", model=Spender(), model_settings=settings, tools=[think])
    runner = ax.OpenAIRunner(agent_id)
    if context.times % 2:
        result = await runner.run_streamed(agent, "Go.")
        async for _ in result.stream_events():
            pass
        return result.final_output
    return (await runner.run(agent, "Go.")).final_output
