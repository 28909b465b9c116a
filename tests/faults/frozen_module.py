"""Tasks that stop their own process, like a paused host, right before they do something that costs or acts."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any
from uuid import UUID

from agents import Agent, Model, ModelResponse, Usage, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel, model_validator
from sqlalchemy import event

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.faults.worker_module import start_count, write_ledger

pool = ax.Pool()


class Job(BaseModel):
    key: str


class FreezingJob(Job):
    """Context that freezes the first process that reads it, between the admission and the handler."""

    @model_validator(mode="after")
    def freeze(self) -> FreezingJob:
        if os.environ.get("FREEZES"):
            write_ledger("start", self.key)
            freeze_once(self.key)
        return self


def freeze_once(key: str) -> None:
    """Stop this process until somebody continues it, in the first attempt."""
    if start_count(key) == 1:
        os.kill(os.getpid(), signal.SIGSTOP)


class CountingModel(Model):
    """Model that writes each call to the ledger, calls a tool if there is one, and is done."""

    def __init__(self, key: str) -> None:
        self._key = key

    def _answer(self, given: Any) -> ScriptedModel:
        write_ledger("model", self._key)
        seen = isinstance(given, list) and any("call_id" in item for item in given)
        output = assistant_message("done") if seen else function_call("act", {}, call_id="call-1")
        usage = Usage(requests=1, input_tokens=1, output_tokens=1, total_tokens=2)
        return ScriptedModel([ModelResponse(output=[output], usage=usage, response_id=None)])

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        given = kwargs["input"] if "input" in kwargs else args[1]
        return await self._answer(given).get_response(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        given = kwargs["input"] if "input" in kwargs else args[1]
        async for streamed in self._answer(given).stream_response(*args, **kwargs):
            yield streamed


async def run_agent(agent_id: UUID, key: str, *, streamed: bool) -> str:
    """Run an agent whose second model call the first attempt freezes before."""
    turns = 0

    def instructions(_context: Any, _agent: Any) -> str:
        nonlocal turns
        turns += 1
        if turns == 2:
            freeze_once(key)
        return "Act."

    @function_tool
    async def act() -> str:
        write_ledger("act", key)
        return "acted"

    agent = Agent(name="Actor", instructions=instructions, model=CountingModel(key), tools=[act])
    write_ledger("start", key)
    runner = ax.OpenAIRunner(agent_id)
    if not streamed:
        return str((await runner.run(agent, "Go.")).final_output)
    result = await runner.run_streamed(agent, "Go.")
    async for _event in result.stream_events():
        pass
    return str(result.final_output)


@pool.task("agent")
async def agent(agent_id: UUID, context: Job) -> str:
    return await run_agent(agent_id, context.key, streamed=False)


@pool.task("streaming_agent")
async def streaming_agent(agent_id: UUID, context: Job) -> str:
    return await run_agent(agent_id, context.key, streamed=True)


@pool.task("handler")
async def handler(agent_id: UUID, context: FreezingJob) -> str:
    write_ledger("act", context.key)
    return "acted"


@pool.task("locker")
async def locker(agent_id: UUID, context: Job) -> str:
    """Freeze the first process with the locks of a transaction: right after its next statement that takes some."""

    def freeze(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FOR UPDATE" in statement:
            freeze_once(context.key)

    write_ledger("start", context.key)
    if start_count(context.key) == 1:
        event.listen(RUNTIME.engine, "after_cursor_execute", freeze)
        await asyncio.sleep(60)
    return "acted"
