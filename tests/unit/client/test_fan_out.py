"""Waiting for many tasks: as they end, in order, and with a bound."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from agentexec.client.fan_out import FanOut
from tests.office import Job, Office


async def test_as_completed_yields_tasks_as_they_end(office: Office) -> None:
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
async def test_map_keeps_the_order_and_the_limit(office: Office, most: int | None) -> None:
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
        with pytest.raises(ax.UsageError, match="max_in_flight= must be 1 or more, not 0"):
            await ax.map("fails", [Job(number=3)], max_in_flight=0)
        return [type(error).__name__ for error in errors]

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == ["TaskFailedError"] * 2, task.error


@pytest.mark.parametrize("max_in_flight", [None, 1, 7])
async def test_map_sync_keeps_the_order_and_the_limit(office: Office, max_in_flight: int | None) -> None:
    @office.pool.task("parent")
    def parent(agent_id: UUID, context: Job) -> list[int]:
        return ax.map_sync("double", (Job(number=n) for n in range(30)), max_in_flight=max_in_flight)

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == [2 * n for n in range(30)], task.error


async def test_map_sync_of_nothing_and_with_failures(office: Office) -> None:
    @office.pool.task("parent")
    def parent(agent_id: UUID, context: Job) -> list[str]:
        assert ax.map_sync("double", []) == []
        errors = ax.map_sync("fails", [Job(number=1), Job(number=2)], return_exceptions=True)
        with pytest.raises(ax.TaskEndedError, match="fails"):
            ax.map_sync("fails", [Job(number=3)])
        with pytest.raises(ax.UsageError, match="max_in_flight= must be 1 or more, not 0"):
            ax.map_sync("fails", [Job(number=3)], max_in_flight=0)
        return [type(error).__name__ for error in errors]

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert task.result == ["TaskFailedError"] * 2, task.error


def test_batches_of_a_fan_out_are_as_large_as_the_limit_allows() -> None:
    fan_out = FanOut([{"number": number} for number in range(10)], max_in_flight=8)
    assert len(fan_out.next_batch(pending=0)) == 8
    assert fan_out.next_batch(pending=8) == []
    assert fan_out.next_batch(pending=7) == []  # room for one, but a batch has a quarter of the bound
    assert fan_out.next_batch(pending=6) == [{"number": 8}, {"number": 9}]
    assert fan_out.next_batch(pending=0) == []
    assert fan_out.unfinished(pending=1)
    assert not fan_out.unfinished(pending=0)


def test_a_fan_out_enqueues_a_small_last_batch() -> None:
    fan_out = FanOut([{}] * 9, max_in_flight=8)
    assert len(fan_out.next_batch(pending=0)) == 8
    assert fan_out.next_batch(pending=7) == [{}]
