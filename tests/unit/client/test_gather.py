"""Results of several tasks in handlers that are plain functions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from tests.office import Job, Office


async def test_gather_sync_keeps_the_order_of_its_arguments(office: Office) -> None:
    @office.pool.task("parent")
    def parent(agent_id: UUID, context: Job) -> list[int]:
        tasks = ax.enqueue_many_sync("double", [Job(number=number) for number in range(5)])
        return ax.gather_sync(*reversed(tasks))

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == [8, 6, 4, 2, 0], task.error


async def test_gather_sync_raises_the_first_failure_or_returns_it(office: Office) -> None:
    @office.pool.task("parent")
    def parent(agent_id: UUID, context: Job) -> list[Any]:
        tasks = [ax.enqueue_sync("double", Job(number=4)), ax.enqueue_sync("fails", Job())]
        with pytest.raises(ax.TaskFailedError, match="fails"):
            ax.gather_sync(*tasks)
        result, error = ax.gather_sync(*tasks, return_exceptions=True)
        return [result, error.task_name]

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == [8, "fails"], task.error


async def test_as_completed_sync_yields_each_task_once(office: Office) -> None:
    @office.pool.task("parent")
    def parent(agent_id: UUID, context: Job) -> list[Any]:
        tasks = [ax.enqueue_sync("double", Job(number=number)) for number in range(3)]
        tasks.append(ax.enqueue_sync("fails", Job()))
        seen: list[Any] = []
        for done in ax.as_completed_sync(tasks):
            assert done.task in tasks
            try:
                seen.append(done.result())
            except ax.TaskFailedError as error:
                seen.append(error.task_name)
        return sorted(seen, key=str)

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == [0, 2, 4, "fails"], task.error
