"""Waiting for many tasks: as they end, in order, and with a bound."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from tests.office import Job, Office


async def test_as_completed_gives_tasks_as_they_end(office: Office) -> None:
    @office.pool.task("parent")
    async def parent(agent_id: UUID, context: Job) -> list[Any]:
        tasks = [await ax.enqueue("double", Job(number=n)) for n in range(3)]
        tasks.append(await ax.enqueue("fails", Job()))
        seen: list[Any] = []
        async for done in ax.as_completed(tasks):
            try:
                seen.append(done.result())
            except ax.TaskFailedError as error:
                seen.append(error.task_name)
            assert done.task in tasks
        return sorted(seen, key=str)

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == [0, 2, 4, "fails"], task.error


@pytest.mark.parametrize("most", [None, 1, 7])
async def test_map_keeps_the_order_and_the_bound(office: Office, most: int | None) -> None:
    @office.pool.task("parent")
    async def parent(agent_id: UUID, context: Job) -> list[int]:
        return await ax.map("double", (Job(number=n) for n in range(30)), max_in_flight=most)

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == [2 * n for n in range(30)], task.error


async def test_map_of_nothing_and_with_failures(office: Office) -> None:
    @office.pool.task("parent")
    async def parent(agent_id: UUID, context: Job) -> list[str]:
        assert await ax.map("double", []) == []
        errors = await ax.map("fails", [Job(number=1), Job(number=2)], return_exceptions=True)
        with pytest.raises(ax.TaskFailedError, match="fails"):
            await ax.map("fails", [Job(number=3)])
        with pytest.raises(ax.UsageError, match="max_in_flight must be 1 or more, not 0"):
            await ax.map("fails", [Job(number=3)], max_in_flight=0)
        return [type(error).__name__ for error in errors]

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == ["TaskFailedError"] * 2, task.error
