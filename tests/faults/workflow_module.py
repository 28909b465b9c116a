"""Pipelines for the tests' workers: each step writes to the ledger, and crashes where the test armed it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel

import agentexec as ax
from tests.faults.worker_module import write_ledger

pool = ax.Pool()


class Job(BaseModel):
    key: str
    number: int = 0
    seconds: float = 0.0


class Part(BaseModel):
    key: str
    values: list[int]


def dies(instant: str) -> None:
    """Kill this process if the instant is armed, once."""
    armed = Path(os.environ["LEDGER"]).parent / "faults" / instant
    if armed.exists():
        armed.unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)


@pool.task("child")
async def child(agent_id: UUID, context: Job) -> int:
    write_ledger("child", context.key)
    if context.seconds:
        await asyncio.sleep(context.seconds)
    dies(f"child-{context.key}")
    return context.number


@pool.task("nested")
async def nested(agent_id: UUID, context: Job) -> int:
    """Enqueue and await a child, as deep as the number says."""
    write_ledger("nested", context.key)
    if context.number == 0:
        return 1
    below = Job(key=f"{context.key}.{context.number - 1}", number=context.number - 1)
    return 1 + await ax.get_result(await ax.enqueue("nested", below), timeout=None)


@pool.task("sync_nested")
def sync_nested(agent_id: UUID, context: Job) -> int:
    if context.number == 0:
        return 1
    below = Job(key=context.key, number=context.number - 1)
    return 1 + ax.get_result_sync(ax.enqueue_sync("sync_nested", below), timeout=None)


@pool.task("poison")
async def poison(agent_id: UUID, context: Job) -> None:
    write_ledger("poison", context.key)
    os.kill(os.getpid(), signal.SIGKILL)


@pool.task("asks_poison")
async def asks_poison(agent_id: UUID, context: Job) -> str:
    bad = await ax.enqueue("poison", context)
    [error] = await ax.gather(bad, return_exceptions=True, timeout=None)
    return type(error).__name__


@pool.task("sleeper")
async def sleeper(agent_id: UUID, context: Job) -> str:
    write_ledger("sleeper", context.key)
    await ax.sleep(context.seconds)
    return "awake"


@pool.task("waiter")
async def waiter(agent_id: UUID, context: Job) -> Any:
    write_ledger("waiter", context.key)
    return await ax.wait_for_event("go", context.key)


@pool.task("counted")
async def counted(agent_id: UUID, context: Job) -> None:
    ax.Tracker("faults", context.key).decr()
    dies(f"counted-{context.number}")


@pool.task("aggregate")
async def aggregate(agent_id: UUID, context: Job) -> None:
    write_ledger("aggregate", context.key)


fan_out = ax.Pipeline(pool)


class FanOut(fan_out.Base):
    """Pipeline of three steps with some children each."""

    async def _children(self, step: str, context: Job | Part) -> Part:
        write_ledger(f"begin-{step}", context.key)
        dies(f"begin-{step}-{context.key}")
        jobs = [Job(key=f"{context.key}-{step}-{n}", number=n) for n in range(5)]
        tasks = [await ax.enqueue("child", job) for job in jobs]
        dies(f"enqueued-{step}-{context.key}")
        values = await ax.gather(*tasks, timeout=None)
        dies(f"end-{step}-{context.key}")
        write_ledger(f"end-{step}", context.key)
        return Part(key=context.key, values=values)

    @fan_out.step(0, "one")
    async def one(self, context: Job) -> Part:
        return await self._children("one", context)

    @fan_out.step(1, "two")
    async def two(self, part: Part) -> Part:
        return await self._children("two", part)

    @fan_out.step(2, "three")
    async def three(self, part: Part) -> Part:
        return await self._children("three", part)


patient = ax.Pipeline(pool)


class Patient(patient.Base):
    """Pipeline that waits for a slow child."""

    @patient.step(0)
    async def only(self, context: Job) -> Part:
        task = await ax.enqueue("child", Job(key=f"{context.key}-slow", seconds=60))
        return Part(key=context.key, values=[await ax.get_result(task, timeout=None)])


plain = ax.Pipeline(pool)


class Plain(plain.Base):
    """Pipeline of four short steps, each of which counts itself when it is done."""

    async def _pause(self, step: str, key: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.02))
        write_ledger(step, key)

    @plain.step(0)
    async def a(self, context: Job) -> Job:
        await self._pause("a", context.key)
        return context

    @plain.step(1)
    async def b(self, context: Job) -> Job:
        await self._pause("b", context.key)
        return context

    @plain.step(2)
    async def c(self, context: Job) -> Job:
        await self._pause("c", context.key)
        return context

    @plain.step(3)
    async def d(self, context: Job) -> Job:
        await self._pause("d", context.key)
        return context
