"""Sleep and events: their records, and the answers that another attempt gets from them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from tests.office import Job, Office, Total


async def test_a_sleep_is_slept_once(office: Office) -> None:
    @office.pool.task("sleeper", retries=1)
    async def sleeper(agent_id: UUID, context: Job) -> str:
        await ax.sleep(hours=6)
        office.run("awake")
        await ax.sleep(days=1)
        return "rested"

    office.faults["awake"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("sleeper")
        assert task.result == "rested", task.error
        assert [line for line in task.messages if line.startswith("Sleeping until ")] != []
        assert sum(line.startswith("Sleeping until ") for line in task.messages) == 2


async def test_a_sleep_that_was_slept_may_have_a_negative_length(office: Office) -> None:
    @office.pool.task("sleeper")
    async def sleeper(agent_id: UUID, context: Job) -> str:
        office.run("sleeper")
        await ax.sleep(seconds=7200 if office.ran["sleeper"] == 1 else -1)
        return "rested"

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("sleeper")
        assert (task.result, office.ran["sleeper"]) == ("rested", 2), task.error


async def test_a_sleep_outside_a_task_is_a_plain_one() -> None:
    await asyncio.wait_for(ax.sleep(0.01), 5)
    with pytest.raises(ax.UsageError, match="0 seconds or more"):
        await ax.sleep(-1)


async def test_events_are_awaited_and_received_in_order(office: Office) -> None:
    @office.pool.task("waiter")
    async def waiter(agent_id: UUID, context: Job) -> list[Any]:
        first = await ax.wait_for_event("paid", context.key, type=Total)
        second = await ax.wait_for_event("paid", context.key)
        return [first.value, second]

    async with ax.testing.harness(office.pool) as harness:
        assert await ax.send_event("paid", "order-1", Total(value=0)) == 0  # before the task: not for it
        task = await harness.run("waiter", Job(key="order-1"))
        assert task.status == "queued"
        assert task.messages[-1] == "Waiting for event: paid(order-1)"
        assert await ax.send_event("paid", "order-2", Total(value=9)) == 0
        assert await ax.send_event("paid", "order-1", Total(value=1)) == 1
        [task] = await harness.run_all()
        assert task.status == "queued"
        # Sent while no task waits for it: kept until the task comes to it.
        assert await ax.send_event("paid", "order-1", {"value": 2}) == 1
        [task] = await harness.run_all()
        assert task.result == [1, {"value": 2}], task.error


async def test_concurrent_waits_are_distinguished_by_their_keys(office: Office) -> None:
    @office.pool.task("waiter")
    async def waiter(agent_id: UUID, context: Job) -> dict[str, Any]:
        office.run("waiter")
        keys = ["a", "b"] if office.ran["waiter"] == 1 else ["b", "a"]
        values = await asyncio.gather(*(ax.wait_for_event("paid", key) for key in keys))
        return dict(zip(keys, values, strict=True))

    async with ax.testing.harness(office.pool) as harness:
        await harness.run("waiter")
        assert await ax.send_event("paid", "a", 1) == 1
        [task] = await harness.run_all()
        assert task.status == "queued"
        assert await ax.send_event("paid", "b", 2) == 1
        [task] = await harness.run_all()
        assert task.result == {"a": 1, "b": 2}, task.error


async def test_an_event_that_does_not_come_in_time_raises_a_timeout(office: Office) -> None:
    @office.pool.task("waiter")
    async def waiter(agent_id: UUID, context: Job) -> str:
        try:
            await ax.wait_for_event("never", timeout=0)
        except TimeoutError as error:
            return str(error)
        return "came"

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("waiter")
        assert task.result == "Event never did not come within 0 seconds.", task.error


async def test_invalid_events_are_refused(office: Office) -> None:
    with pytest.raises(ax.UsageError, match="inside a task"):
        await ax.wait_for_event("x")
    for name, key in (("", ""), ("x" * 300, ""), ("x", "y" * 300), ("x", "\x00"), ("x ", "")):
        with pytest.raises(ax.UsageError, match=r"^(name|key)= "):
            await ax.send_event(name, key)
    with pytest.raises(ax.UsageError, match="cannot be written as JSON"):
        await ax.send_event("x", value=object())


async def test_branches_wait_concurrently(office: Office) -> None:
    @office.pool.task("branches")
    async def branches(agent_id: UUID, context: Job) -> list[Any]:
        async def slow() -> str:
            await ax.sleep(hours=1)
            return "slept"

        child = await ax.enqueue("double", Job(number=5))
        return list(await asyncio.gather(ax.get_result(child), slow(), ax.wait_for_event("go")))

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.enqueue("branches")
        await harness.run_all()
        assert harness.task(task).status == "queued"
        await ax.send_event("go", value="!")
        await harness.run_all()
        done = harness.task(task)
        assert done.result == [10, "slept", "!"], done.error
        assert office.ran["double 5"] == 1


async def test_a_plain_function_sleeps_once(office: Office) -> None:
    @office.pool.task("sleeper", retries=1)
    def sleeper(agent_id: UUID, context: Job) -> str:
        ax.sleep_sync(hours=6)
        office.run("awake")
        ax.sleep_sync(days=1)
        return "rested"

    office.faults["awake"] = 1
    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("sleeper")
        assert task.result == "rested", task.error
        assert sum(line.startswith("Sleeping until ") for line in task.messages) == 2


async def test_a_plain_function_waits_for_events_and_gets_them_in_order(office: Office) -> None:
    @office.pool.task("waiter")
    def waiter(agent_id: UUID, context: Job) -> list[Any]:
        first = ax.wait_for_event_sync("paid", context.key, type=Total)
        second = ax.wait_for_event_sync("paid", context.key)
        return [first.value, second]

    async with ax.testing.harness(office.pool) as harness:
        task = await harness.run("waiter", Job(key="order-1"))
        assert task.status == "queued"
        assert task.messages[-1] == "Waiting for event: paid(order-1)"
        assert await ax.send_event("paid", "order-1", Total(value=3)) == 1
        await harness.run_all()
        assert await ax.send_event("paid", "order-1", "again") == 1
        await harness.run_all()
        assert harness.task(task.agent_id).result == [3, "again"], harness.task(task.agent_id).error


def test_a_sync_sleep_outside_a_task_is_a_plain_one() -> None:
    ax.sleep_sync(0.01)
    with pytest.raises(ax.UsageError, match="0 seconds or more"):
        ax.sleep_sync(-1)
    with pytest.raises(ax.UsageError, match="inside a task"):
        ax.wait_for_event_sync("paid")


async def test_a_sync_sleep_is_refused_where_it_would_block_an_event_loop() -> None:
    with pytest.raises(ax.UsageError, match="await the function without _sync"):
        ax.sleep_sync(0.01)
