"""Tasks that the workers of the benchmark run."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from pydantic import BaseModel

import agentexec as ax

pool = ax.Pool()


class Job(BaseModel):
    """Context of every task of the benchmark."""

    number: int = 0
    seconds: float = 0.0
    tenant: str = ""


@pool.task("noop")
async def noop(*, agent_id: UUID, context: Job) -> None:
    """Do nothing, so that only agentexec is measured."""


@pool.task("sleep")
async def sleep(*, agent_id: UUID, context: Job) -> None:
    """Wait, as agents do."""
    await asyncio.sleep(context.seconds)


@pool.task("stamp")
async def stamp(*, agent_id: UUID, context: Job) -> float:
    """Return the time of its last line, which without `seconds` is its first line too."""
    if context.seconds:
        await asyncio.sleep(context.seconds)
    return time.time()


steps = ax.Pipeline(pool, "four_steps")


class FourSteps(steps.Base):
    """Pipeline of four steps that do nothing."""

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
    """Run `number` no-op children, and return how many of them ended."""
    return len(await ax.map("noop", (Job(number=number) for number in range(context.number))))
