"""A pool whose tasks count their runs, for workflows that run inline."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME


class Job(BaseModel):
    key: str = "job"
    number: int = 0


class Total(BaseModel):
    value: int


class Office:
    """A pool with tasks that count their runs."""

    def __init__(self) -> None:
        self.pool = ax.Pool(database_url="sqlite://")
        self.ran: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        """Number of times that a thing has yet to fail."""
        pool = self.pool

        @pool.task("double")
        async def double(agent_id: UUID, context: Job) -> int:
            self.run(f"double {context.number}")
            return context.number * 2

        @pool.task("fails")
        async def fails(agent_id: UUID, context: Job) -> int:
            self.run(f"fails {context.number}")
            raise ValueError(f"no {context.number}")

    def run(self, what: str) -> None:
        self.ran[what] += 1
        if self.faults[what]:
            self.faults[what] -= 1
            raise RuntimeError(f"fault in {what}")


def children(task: UUID) -> list[str]:
    with Session(RUNTIME.engine) as db:
        return [str(child.status) for child in ax.activity.detail(db, task).children]


def three_steps(office: Office, **options: Any) -> ax.Pipeline:
    pipeline = ax.Pipeline(office.pool, **options)

    class Sums(pipeline.Base):
        @pipeline.step(0, "fanning out")
        async def fan_out(self, context: Job) -> tuple[Total, Total]:
            office.run("fan_out")
            tasks = [await ax.enqueue("double", Job(number=n)) for n in range(context.number)]
            values = await ax.gather(*tasks)
            office.run("fan_out ends")
            return Total(value=sum(values)), Total(value=len(values))

        @pipeline.step(1, "adding")
        def add(self, total: Total, count: Total) -> Total:
            office.run("add")
            return Total(value=total.value + count.value)

        @pipeline.step(2)
        async def end(self, total: Total) -> Total:
            office.run("end")
            return total

    return pipeline
