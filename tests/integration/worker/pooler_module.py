"""Tasks that use everything of the record and the queue, for workers behind a connection pooler."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel

import agentexec as ax

pool = ax.Pool()


class Job(BaseModel):
    key: str
    number: int = 0


class Number(BaseModel):
    number: int


@pool.task("double")
async def double(agent_id: UUID, context: Job) -> int:
    return 2 * context.number


@pool.task("reports")
async def reports(agent_id: UUID, context: Job) -> str:
    for tens in range(10):
        ax.activity.update(agent_id, f"Step {tens}", percentage=10 * tens)
    ax.Tracker("pooled", "reports").incr()
    return context.key


@pool.task("asks")
async def asks(agent_id: UUID, context: Job) -> int:
    return await ax.get_result(await ax.enqueue("double", context), timeout=None)


@pool.task("waits")
async def waits(agent_id: UUID, context: Job) -> Any:
    return await ax.wait_for_event("go", context.key)


steps = ax.Pipeline(pool)


class Steps(steps.Base):
    """Pipeline of three durable steps."""

    @steps.step(0)
    async def first(self, context: Job) -> Number:
        return Number(number=context.number + 1)

    @steps.step(1)
    async def second(self, number: Number) -> Number:
        return Number(number=number.number + 1)

    @steps.step(2)
    async def third(self, number: Number) -> Number:
        return Number(number=number.number + 1)
