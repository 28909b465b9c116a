"""Pipelines, run inline: their records, and the answers that another attempt gets from them."""

from __future__ import annotations

from uuid import UUID

import pytest

import agentexec as ax
from tests.office import Job, Office, Total, children, three_steps


async def test_steps_run_in_order_with_their_progress_and_children(office: Office) -> None:
    three_steps(office)
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Sums", Job(number=4))
        assert (task.status, task.result) == ("complete", Total(value=16)), task.error
        assert task.messages == [
            "Waiting to start.",
            "Task started.",
            "Step 1 of 3: fanning out",
            "Step 2 of 3: adding",
            "Step 3 of 3: end",
            "Task completed successfully.",
        ]
        assert [line.percentage for line in task.log] == [0, 0, 0, 33, 66, 100]
        assert children(task.agent_id) == ["complete"] * 4
        assert all(count == 1 for count in office.ran.values())


async def test_a_retry_resumes_at_the_step_that_failed(office: Office) -> None:
    three_steps(office, retries=2)
    office.faults["end"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Sums", Job(number=2))
        assert (task.status, task.attempts) == ("complete", 2), task.error
        assert (office.ran["fan_out"], office.ran["add"], office.ran["end"]) == (1, 1, 2)


async def test_a_step_that_runs_again_finds_its_children(office: Office) -> None:
    three_steps(office, retries=2)
    office.faults["fan_out ends"] = 2
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Sums", Job(number=3))
        assert (task.status, task.attempts, office.ran["fan_out"]) == ("complete", 3, 3), task.error
        assert [office.ran[f"double {number}"] for number in range(3)] == [1, 1, 1]
        assert len(harness.tasks) == 4


async def test_a_task_that_is_retried_by_hand_resumes_at_its_failed_step(office: Office) -> None:
    three_steps(office)
    office.faults["end"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Sums", Job(number=2))
        assert task.status == "error"
        with pytest.raises(ax.ActivityNotFoundError):
            await ax.retry(task.agent_id, metadata_filter={"tenant": "other"})
        assert await ax.retry(task.agent_id)
        [again] = await harness.run_all()
        assert again.result == Total(value=4), again.error
        assert (office.ran["fan_out"], office.ran["add"], office.ran["end"]) == (1, 1, 2)
        assert not await ax.retry(task.agent_id)
        assert "Put back on the queue by hand." in again.messages


async def test_a_pipeline_run_inside_a_task_is_recorded_there(office: Office) -> None:
    pipeline = three_steps(office)

    @office.pool.task("outer", retries=1)
    async def outer(agent_id: UUID, context: Job) -> int:
        first = await pipeline.run(Job(number=1))
        second = await pipeline.run(Job(number=2))
        office.run("outer")
        return first.value + second.value

    office.faults["outer"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("outer")
        assert task.result == 1 + 4, task.error
        assert office.ran["end"] == 2


async def test_concurrent_pipelines_are_distinguished_by_their_contexts(office: Office) -> None:
    """Check branches that first wait for something, and so come to their pipelines in another order in another attempt."""
    pipeline = three_steps(office)

    @office.pool.task("outer", retries=1)
    async def outer(agent_id: UUID, context: Job) -> dict[int, int]:
        numbers = (2, 3) if office.ran["outer"] else (3, 2)
        squares = {number: (await pipeline.run(Job(number=number))).value for number in numbers}
        office.run("outer")
        return squares

    office.faults["outer"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("outer")
        assert task.result == {2: 4, 3: 9}, task.error
        assert office.ran["end"] == 2


async def test_the_output_of_a_step_without_annotations_becomes_the_input_type_of_the_next_step(
    office: Office,
) -> None:
    pipeline = ax.Pipeline(office.pool)

    class Loose(pipeline.Base):
        @pipeline.step(0, "description")
        async def step_one(self, context):  # type: ignore[no-untyped-def]
            return Job(number=4), Total(value=5)

        @pipeline.step(1)
        async def step_two(self, job, total: Total) -> Total:  # type: ignore[no-untyped-def]
            return Total(value=job["number"] + total.value)

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("Loose", Job())
        assert task.result == Total(value=9), task.error
