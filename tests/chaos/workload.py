"""Tasks of the chaos runs. Each writes what it does to the ledger, a file that no fault reaches."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

from agents import Agent, Model, ModelResponse, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel
from sqlalchemy import insert, text

import agentexec as ax
from agentexec.task import CURRENT_LEASE
from tests.chaos.answers import GO
from tests.chaos.ledger import write_line
from tests.chaos.names import EFFECTS, LIMIT, LIMITED, LOCKED, TICK, TICK_SECONDS
from tests.faults import ledger_module


class Job(BaseModel):
    """Instructions for a task; `key` names it in the ledger."""

    key: str
    seconds: float = 0.0
    number: int = 0
    lock: str = ""


class BrokenError(Exception):
    """Failure that a task is told to have."""


pool = ax.Pool()
pool.task("audit")(ledger_module.audit)


class Steps(ax.BaseAgentRunner):
    """Runner that only offers its steps."""

    async def run(self, agent: Any, input: Any) -> None: ...


def write(event: str, key: str, **more: Any) -> None:
    """Write one line of the running task to the ledger."""
    lease = CURRENT_LEASE.get()
    of_task = {"id": lease.agent_id.hex, "epoch": lease.epoch} if lease else {}
    write_line(event=event, key=key, **of_task, **more)


@pool.task("plain")
async def plain(agent_id: UUID, context: Job) -> str:
    write("start", context.key)
    await asyncio.sleep(context.seconds)
    write("end", context.key)
    return context.key


@pool.task(LIMITED, concurrency=LIMIT)
def in_thread(agent_id: UUID, context: Job) -> str:
    write("start", context.key)
    time.sleep(context.seconds)
    write("end", context.key)
    return context.key


@pool.task("burst")
async def burst(agent_id: UUID, context: Job) -> str:
    """Run for several enqueues, with the context of the last one: `number`."""
    write("start", context.key, number=context.number)
    write("end", context.key)
    return context.key


@pool.task("flaky", retries=8, backoff=0.2)
async def flaky(agent_id: UUID, context: Job) -> str:
    """Fail at random; the step tells how often it was tried, whatever process tried it."""
    write("start", context.key)
    await asyncio.sleep(context.seconds)
    if random.random() < 0.4:
        write("raised", context.key)
        raise BrokenError("this attempt fails")
    write("end", context.key)
    return context.key


async def apologize(agent_id: UUID, context: ax.TaskFailure) -> None:
    write("start", f"sorry {context.agent_id}")
    write("end", f"sorry {context.agent_id}")


@pool.task("hopeless", retries=2, backoff=0.2, on_failure=apologize)
async def hopeless(agent_id: UUID, context: Job) -> None:
    write("start", context.key)
    await asyncio.sleep(context.seconds)
    write("raised", context.key)
    raise BrokenError("every attempt fails")


@pool.task("poison")
async def poison(agent_id: UUID, context: Job) -> None:
    """Kill the process that runs this task, and everything beside it."""
    write("start", context.key)
    await asyncio.sleep(context.seconds)
    os.kill(os.getpid(), signal.SIGKILL)


@pool.task("steps")
async def steps(agent_id: UUID, context: Job) -> list[Any]:
    """Take steps with each policy. `number` steps of each kind."""
    write("start", context.key)
    runner, values = Steps(agent_id), []

    async def effect(kind: str, number: int) -> float:
        write(f"step-{kind}", context.key, step=number, idempotency_key=ax.idempotency_key())
        await asyncio.sleep(context.seconds)
        return random.random()

    def book(number: int) -> float:
        with ax.transaction() as session:
            statement = text(f"INSERT INTO {EFFECTS} (name, step) VALUES (:name, :step)")
            session.execute(statement, {"name": context.key, "step": number})
        return random.random()

    for number in range(context.number):
        try:
            values.append(await runner.step(f"once-{number}", effect, "once", number, policy="fail"))
        except ax.CallInterruptedError:
            write("interrupted", context.key, step=number)
        values.append(await runner.step(f"again-{number}", effect, "again", number, policy="idempotent"))
        values.append(await runner.step(f"book-{number}", book, number, policy="transactional"))
        # What a step has returned must be the same in every attempt that gets so far.
        write("values", context.key, step=number, values=values[-2:])
    write("end", context.key)
    return values


@pool.task("locked", lock_key="lock-{lock}")
async def locked(agent_id: UUID, context: Job) -> str:
    """Write rows that no other task of the lock may come between."""
    write("start", context.key)

    def book(number: int) -> None:
        with ax.transaction() as session:
            row = {"lock": context.lock, "name": context.key, "step": number}
            session.execute(insert(LOCKED).values(**row))

    for number in range(context.number):
        await Steps(agent_id).step(f"book-{number}", book, number, policy="transactional")
        await asyncio.sleep(context.seconds)
    write("end", context.key)
    return context.key


@pool.task("parent")
async def parent(agent_id: UUID, context: Job) -> int:
    """Enqueue children and add up what they return."""
    write("start", context.key)
    jobs = [Job(key=f"{context.key}.{n}", seconds=context.seconds, number=n) for n in range(context.number)]
    tasks = [await ax.enqueue("child", job) for job in jobs]
    total = sum(await ax.gather(*tasks, timeout=None))
    write("end", context.key)
    return total


@pool.task("child")
async def child(agent_id: UUID, context: Job) -> int:
    write("start", context.key)
    await asyncio.sleep(context.seconds)
    write("end", context.key)
    return context.number


@pool.task("sleeper")
async def sleeper(agent_id: UUID, context: Job) -> str:
    """Sleep without a slot."""
    write("start", context.key)
    await ax.sleep(context.seconds)
    write("end", context.key)
    return context.key


@pool.task("listener")
async def listener(agent_id: UUID, context: Job) -> str:
    """Wait for an event without a slot."""
    write("start", context.key)
    value = await ax.wait_for_event(GO, context.key)
    write("end", context.key)
    return value


class Clerk(Model):
    """Model that calls `send` once and is done, whichever answer the call got."""

    def __init__(self, key: str) -> None:
        self._key = key

    def _answer(self, asked: Any) -> ScriptedModel:
        first = isinstance(asked, str) or len(asked) == 1
        turn = [function_call("send", {"to": self._key}, call_id=f"call-{self._key}")]
        return ScriptedModel([turn if first else [assistant_message(f"Done: {self._key}")]])

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        asked = kwargs["input"] if "input" in kwargs else args[1]
        return await self._answer(asked).get_response(*args, **kwargs)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@pool.task("asks")
async def asks(agent_id: UUID, context: Job) -> str:
    """Run an agent whose tool a person must allow."""
    write("start", context.key)

    @function_tool(needs_approval=True)
    async def send(to: str) -> str:
        write("step-once", context.key, step=0)
        return f"sent to {to}"

    agent = Agent("Clerk", model=Clerk(context.key), tools=[send])
    result = await ax.OpenAIRunner(agent_id).run(agent, "Go.")
    write("end", context.key)
    return result.final_output


line = ax.Pipeline(pool)


class Line(line.Base):
    """Pipeline of three steps, the second with a child."""

    @line.step(0)
    async def first(self, context: Job) -> Job:
        write("start", context.key)
        await asyncio.sleep(context.seconds)
        return context

    @line.step(1)
    async def second(self, context: Job) -> Job:
        job = Job(key=f"{context.key}.0", seconds=context.seconds, number=1)
        context.number = await ax.get_result(await ax.enqueue("child", job), timeout=None)
        return context

    @line.step(2)
    async def third(self, context: Job) -> Job:
        write("end", context.key)
        return context


@pool.schedule(TICK, timedelta(seconds=TICK_SECONDS), context=Job(key=TICK))
async def tick(agent_id: UUID, context: Job) -> None:
    write("start", f"{TICK} {agent_id.hex}")
    write("end", f"{TICK} {agent_id.hex}")
