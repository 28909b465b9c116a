"""Agents whose tools write to a ledger outside the worker, for `tests.faults.ledger`."""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Any
from uuid import UUID

from agents import Agent, Model, ModelResponse, Usage, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel
from sqlalchemy import text

import agentexec as ax
from tests.faults.ledger_script import BOOKING, TOPICS


class Audit(BaseModel):
    """Context of one agent; `key` names it in the ledger."""

    key: str
    times: int


pool = ax.Pool()


def write(**line: Any) -> None:
    """Write one line to the ledger. O_APPEND keeps lines of several processes whole."""
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{json.dumps({'pid': os.getpid(), **line})}\n".encode())
    os.close(file)


async def pause() -> None:
    """Leave time for a kill."""
    await asyncio.sleep(random.uniform(0.01, 0.15))


class Actor(Model):
    """Model that makes every call, two at a time and then one, and says that it is done."""

    def __init__(self, key: str) -> None:
        self._key = key
        calls = [
            function_call(tool, {"topic": topic}, call_id=f"{key}-{topic}")
            for place in range(3)
            for tool, topics in TOPICS.items()
            for topic in topics[place : place + 1]
        ]
        self._turns = [calls[0:2], calls[2:3], calls[3:6], calls[6:8], calls[8:9]]

    async def _answer(self, input: Any) -> ScriptedModel:
        await pause()
        known = (
            {item.get("call_id") for item in input if isinstance(item, dict)}
            if isinstance(input, list)
            else set()
        )
        number = next(
            (n for n, turn in enumerate(self._turns) if turn[0].call_id not in known), len(self._turns)
        )
        write(event="model", agent=self._key, turn=number)
        output = (
            self._turns[number] if number < len(self._turns) else [assistant_message(f"Done: {self._key}")]
        )
        usage = Usage(requests=1, input_tokens=100, output_tokens=10, total_tokens=110)
        return ScriptedModel([ModelResponse(output=output, usage=usage, response_id=f"r{number}")])

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        asked = kwargs["input"] if "input" in kwargs else args[1]
        return await (await self._answer(asked)).get_response(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        asked = kwargs["input"] if "input" in kwargs else args[1]
        async for event in (await self._answer(asked)).stream_response(*args, **kwargs):
            yield event


def tools(key: str) -> list[Any]:
    async def effect(kind: str, topic: str) -> str:
        await pause()
        write(event=kind, agent=key, topic=topic, key=ax.idempotency_key())
        await pause()
        return f"{topic} done"

    @ax.tool_policy("idempotent")
    @function_tool
    async def charge(topic: str) -> str:
        return await effect("charge", topic)

    @function_tool
    async def post(topic: str) -> str:
        return await effect("post", topic)

    @ax.tool_policy("transactional")
    @function_tool
    async def book(topic: str) -> str:
        await pause()
        with ax.transaction() as session:
            statement = text(f"INSERT INTO {BOOKING} (agent, topic) VALUES (:agent, :topic)")
            session.execute(statement, {"agent": key, "topic": topic})
        return f"{topic} done"

    return [charge, post, book]


@pool.task("audit")
async def audit(agent_id: UUID, context: Audit) -> str:
    write(event="start", agent=context.key)
    agent = Agent("Auditor", model=Actor(context.key), tools=tools(context.key))
    runner = ax.OpenAIRunner(agent_id)
    if context.times % 2:
        return (await runner.run(agent, "Go.")).final_output
    result = await runner.run_streamed(agent, "Go.")
    async for _ in result.stream_events():
        pass
    return result.final_output
