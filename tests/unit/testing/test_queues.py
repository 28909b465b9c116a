"""The harness runs the tasks of all queues, whichever their definitions name."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import agentexec as ax
from tests.waiting import patient

pool = ax.Pool(queue_name="usual")
failed: list[UUID] = []


@pool.on_failure
async def note(agent_id: UUID, context: ax.TaskFailure) -> None:
    failed.append(context.agent_id)


@pool.task("child", queue="low")
async def child(agent_id: UUID, context: dict[str, Any]) -> str:
    return "done"


@pool.task("parent", queue="high")
async def parent(agent_id: UUID, context: dict[str, Any]) -> str:
    return str(await ax.get_result(await ax.enqueue("child", {}), timeout=patient(10)))


@pool.task("raises", queue="high")
async def raises(agent_id: UUID, context: dict[str, Any]) -> None:
    raise ValueError("no luck")


def test_tasks_of_several_queues_run_and_their_failures_are_handled() -> None:
    with ax.testing.harness(pool) as harness:
        assert harness.run("parent").result == "done"
        task = harness.run("raises")
        assert task.status is ax.Status.ERROR
        harness.run_all()
    assert failed == [task.agent_id]
