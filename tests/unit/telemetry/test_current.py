"""Code of a task can be told from other code, in plain handlers and their threads too."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import agentexec as ax
from agentexec.telemetry.current import CURRENT_ATTEMPT
from agentexec.testing import harness


def test_handlers_and_their_threads_know_their_attempt() -> None:
    pool = ax.Pool()
    seen: list[Any] = []

    @pool.task("async_task", retries=1, backoff=0)
    async def async_task(agent_id: UUID, context: Any) -> None:
        seen.append(CURRENT_ATTEMPT.get())
        if len(seen) == 1:
            raise ValueError

    @pool.task("plain")
    def plain(agent_id: UUID, context: Any) -> None:
        seen.append(CURRENT_ATTEMPT.get())

    with harness(pool) as tasks:
        first = tasks.run("async_task")
        second = tasks.run("plain")
    assert seen == [
        ("async_task", first.agent_id, 1),
        ("async_task", first.agent_id, 2),
        ("plain", second.agent_id, 1),
    ]
    assert CURRENT_ATTEMPT.get() is None
