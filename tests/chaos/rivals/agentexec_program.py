"""agentexec on Redis and PostgreSQL, or on SQLite: each part is a step. Its settings are the defaults."""

from __future__ import annotations

import os
import sys
from typing import Any
from uuid import UUID

import work
from pydantic import BaseModel

import agentexec as ax

pool = ax.Pool()


class Job(BaseModel):
    key: str


class Steps(ax.BaseAgentRunner):
    """Runner that only offers its steps."""

    async def run(self, agent: Any, input: Any) -> None: ...


@pool.task("task")
async def task(agent_id: UUID, context: Job) -> None:
    work.write("start", context.key)
    for part in range(work.PARTS):
        await Steps(agent_id).step("part", work.do_part, context.key, part, policy="idempotent")
    work.write("end", context.key)


if __name__ == "__main__":
    if sys.argv[1] == "produce":
        work.produce(lambda key: ax.enqueue_sync("task", {"key": key}))
    else:
        command = [
            "-m",
            "agentexec",
            "worker",
            __file__,
            "--workers",
            "2",
            "--concurrency",
            str(work.SLOTS // 2),
        ]
        os.execv(sys.executable, [sys.executable, *command])
