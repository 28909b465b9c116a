"""The tasks that the benchmark's workers run."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from pydantic import BaseModel

import agentexec as ax

pool = ax.Pool()


class Job(BaseModel):
    """The context of every task here."""

    number: int = 0
    seconds: float = 0.0


@pool.task("noop")
async def noop(*, agent_id: UUID, context: Job) -> None:
    """Nothing, so that what is measured is agentexec."""


@pool.task("sleep")
async def sleep(*, agent_id: UUID, context: Job) -> None:
    """A task that waits, as agents do."""
    await asyncio.sleep(context.seconds)


@pool.task("stamp")
async def stamp(*, agent_id: UUID, context: Job) -> float:
    """The moment of its last line, on this host's clock; without `seconds` that is its first line too."""
    if context.seconds:
        await asyncio.sleep(context.seconds)
    return time.time()


steps = ax.Pipeline(pool, "four_steps")


class FourSteps(steps.Base):
    """Four steps that do nothing."""

    @steps.step(0)
    async def first(self, context: Job) -> Job:
        return context

    @steps.step(1)
    async def second(self, job: Job) -> Job:
        return job

    @steps.step(2)
    async def third(self, job: Job) -> Job:
        return job

    @steps.step(3)
    async def fourth(self, job: Job) -> Job:
        return job


@pool.task("wide")
async def wide(*, agent_id: UUID, context: Job) -> int:
    """As many no-op children as its number says; how many came back."""
    return len(await ax.map("noop", (Job(number=number) for number in range(context.number))))
