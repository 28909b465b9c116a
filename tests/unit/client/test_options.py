"""Options of new tasks and of handlers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from agentexec.client.new_task import new_task
from agentexec.db.clock import utc_now
from tests.office import Job, Office


async def test_an_unknown_option_is_refused_by_name(office: Office) -> None:
    unknown: dict[str, Any] = {"prioritty": ax.Priority.HIGH}
    with pytest.raises(TypeError, match=r"enqueue\(\) got an unexpected keyword argument 'prioritty'"):
        await ax.enqueue("double", Job(), **unknown)
    with pytest.raises(TypeError, match=r"enqueue_sync\(\) got an unexpected keyword argument 'prioritty'"):
        ax.enqueue_sync("double", Job(), **unknown)
    with pytest.raises(TypeError, match=r"map_sync\(\) got an unexpected keyword argument 'prioritty'"):
        ax.map_sync("double", [], **unknown)
    with pytest.raises(TypeError, match=r"task\(\) got an unexpected keyword argument 'prioritty'"):
        office.pool.task("triple", **unknown)(lambda agent_id, context: None)


async def test_many_tasks_cannot_share_an_idempotency_key(office: Office) -> None:
    options: dict[str, Any] = {"idempotency_key": "once"}
    with pytest.raises(
        TypeError, match=r"enqueue_many\(\) got an unexpected keyword argument 'idempotency_key'"
    ):
        await ax.enqueue_many("double", [Job()], **options)
    with pytest.raises(TypeError, match=r"enqueue_many_sync\(\) got an unexpected keyword argument"):
        ax.enqueue_many_sync("double", [Job()], **options)


async def test_a_pipeline_takes_the_options_of_a_handler_and_of_a_task(office: Office) -> None:
    pipeline = ax.Pipeline(office.pool, "sum", retries=2, timeout=5.0)

    class Sum(pipeline.Base):
        @pipeline.step(0)
        async def add(self, context: Job) -> Job:
            return context

    definition = office.pool.registry.get("sum")
    assert (definition.retries, definition.timeout) == (2, 5.0)
    async with ax.testing.harness(office.pool) as harness:
        first = await pipeline.enqueue(Job(), idempotency_key="once")
        assert pipeline.enqueue_sync(Job(), idempotency_key="once") == first
        assert [task.agent_id for task in harness.tasks] == [first.agent_id]


def test_a_pipeline_runs_without_an_event_loop(office: Office) -> None:
    pipeline = ax.Pipeline(office.pool)

    class Doubling(pipeline.Base):
        @pipeline.step(0)
        async def double(self, context: Job) -> Job:
            return Job(number=context.number * 2)

    assert pipeline.run_sync(Job(number=2)).number == 4


async def test_a_plain_function_runs_a_pipeline_that_is_recorded_in_its_task(office: Office) -> None:
    pipeline = ax.Pipeline(office.pool)

    class Doubling(pipeline.Base):
        @pipeline.step(0)
        async def double(self, context: Job) -> Job:
            office.run("step")
            return Job(number=context.number * 2)

    @office.pool.task("parent", retries=1)
    def parent(agent_id: UUID, context: Job) -> int:
        doubled = pipeline.run_sync(Job(number=2))
        office.run("parent")
        return doubled.number

    office.faults["parent"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("parent")
        assert (task.result, office.ran["step"], office.ran["parent"]) == (4, 1, 2), task.error


async def test_a_task_expires_after_seconds_or_at_a_moment(office: Office) -> None:
    @office.pool.task("brief", expires=timedelta(minutes=1))
    async def brief(agent_id: UUID, context: Job) -> None:
        """Do nothing."""

    now = utc_now()
    moment = now + timedelta(hours=2)

    def expiry(name: str, **options: Any) -> float | None:
        found = new_task(name, Job(), **options).expires_at
        return None if found is None else round((found - now).total_seconds(), -1)

    assert expiry("double") is None
    assert expiry("double", expires=30) == 30
    assert expiry("double", expires=timedelta(seconds=30), delay=10) == 30
    assert expiry("double", expires=moment) == 7200
    assert expiry("brief") == 60
    assert expiry("brief", delay=100) == 160, "the option of a task is a limit on the wait in the queue"
    assert expiry("brief", expires=30) == 30


async def test_an_expiry_that_cannot_be_met_is_refused(office: Office) -> None:
    with pytest.raises(ax.UsageError, match="it would never run"):
        await ax.enqueue("double", Job(), expires=5, delay=10)
    with pytest.raises(ax.UsageError, match="expires= must have a time zone"):
        await ax.enqueue("double", Job(), expires=datetime(2030, 1, 1))
    with pytest.raises(ax.UsageError, match="expires"):
        office.pool.task("triple", expires=-1)(lambda agent_id, context: None)
