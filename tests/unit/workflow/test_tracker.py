"""Trackers that tasks change: each change counts once, and on_complete fires once."""

from __future__ import annotations

from uuid import UUID

import agentexec as ax
from tests.office import Job, Office


async def test_a_task_that_runs_twice_counts_once(office: Office) -> None:
    @office.pool.task("counts", retries=2)
    async def counts(agent_id: UUID, context: Job) -> list[int]:
        tracker = ax.Tracker("batch", 1)
        seen = [tracker.incr(), tracker.incr(), tracker.decr()]
        office.run("counts")
        return [*seen, tracker.count]

    office.faults["counts"] = 2
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("counts")
        assert task.result == [1, 2, 1, 1], task.error
        assert ax.Tracker("batch", 1).count == 1


async def test_on_complete_fires_once(office: Office) -> None:
    @office.pool.task("part", retries=1)
    async def part(agent_id: UUID, context: Job) -> None:
        ax.Tracker("parts").decr()
        office.run(f"part {context.number}")

    office.faults["part 3"] = 1
    async with ax.testing.harness(office.pool) as harness:
        tracker = ax.Tracker("parts")
        tracker.incr(4)
        assert not tracker.on_complete("double", Job(number=21))
        assert not tracker.on_complete("double", Job(number=22))  # only the first has an effect
        for number in range(4):
            await ax.enqueue("part", Job(number=number))
        await harness.run_all()
        assert office.ran["double 21"] == 1 and office.ran["double 22"] == 0
        tracker.incr()
        tracker.decr()
        await harness.run_all()
        assert office.ran["double 21"] == 1


async def test_on_complete_enqueues_at_once_if_all_is_done_and_waits_if_nothing_was_counted(
    office: Office,
) -> None:
    async with ax.testing.harness(office.pool) as harness:
        tracker = ax.Tracker("done")
        tracker.incr()
        tracker.decr()
        assert tracker.on_complete("double", Job(number=1))
        assert not ax.Tracker("empty").on_complete("double", Job(number=2))
        await harness.run_all()
        assert office.ran == {"double 1": 1}
