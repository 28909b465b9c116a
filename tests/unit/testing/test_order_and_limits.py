"""The harness orders, locks, limits, expires and merges tasks as workers do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from agentexec.testing import AsyncHarness, Harness

pool = ax.Pool()
running: Counter[str] = Counter()
most: Counter[str] = Counter()


async def occupy(key: str) -> None:
    running[key] += 1
    most[key] = max(most[key], running[key])
    await asyncio.sleep(0.01)
    running[key] -= 1


@pool.task("locked", lock_key="user:{user}", retries=1, backoff=0)
async def locked(agent_id: UUID, context: dict[str, Any]) -> int:
    await occupy(f"user:{context['user']}")
    if context.get("fails"):
        context_of_failures[agent_id] += 1
        if context_of_failures[agent_id] == 1:
            raise ValueError("once")
    return int(context["number"])


context_of_failures: Counter[UUID] = Counter()


@pool.task("limited", concurrency=2)
async def limited(agent_id: UUID, context: dict[str, Any]) -> None:
    await occupy("limited")


@pool.task("fans_out")
async def fans_out(agent_id: UUID, context: dict[str, Any]) -> int:
    return len(await ax.map(context["name"], [{"user": 1, "number": n} for n in range(6)]))


@pool.task("shared", fairness_key="{tenant}")
async def shared(agent_id: UUID, context: dict[str, str]) -> str:
    return context["tenant"]


@pool.task("perishable", expires=60)
async def perishable(agent_id: UUID, context: dict[str, Any]) -> str:
    return "fresh"


@pool.task("index", debounce=30, debounce_key="doc:{doc}")
async def index(agent_id: UUID, context: dict[str, str]) -> str:
    return context["text"]


@pytest.fixture
def harness() -> Iterator[Harness]:
    running.clear()
    most.clear()
    with ax.testing.harness(pool) as harness:
        yield harness


def test_tasks_with_one_lock_run_in_the_order_of_their_enqueues(harness: Harness) -> None:
    for number in range(3):
        for user in "ab":
            harness.enqueue("locked", {"user": user, "number": number})
    done = harness.run_all()
    assert [task.status for task in done] == [ax.Status.COMPLETE] * 6
    assert [task.result for task in done][0::2] == [0, 1, 2]
    assert most == {"user:a": 1, "user:b": 1}


def test_a_task_keeps_its_lock_through_a_retry(harness: Harness) -> None:
    first = harness.enqueue("locked", {"user": "a", "number": 1, "fails": True})
    second = harness.enqueue("locked", {"user": "a", "number": 2})
    done = harness.run_all()
    assert [task.agent_id for task in done] == [first.agent_id, second.agent_id]
    assert [task.attempts for task in done] == [2, 1]


def test_to_run_a_task_is_to_run_those_before_it_in_the_line_of_its_lock(harness: Harness) -> None:
    first = harness.enqueue("locked", {"user": "a", "number": 1})
    other = harness.enqueue("locked", {"user": "b", "number": 1})
    assert harness.run("locked", {"user": "a", "number": 2}).result == 2
    assert harness.task(first).result == 1
    assert harness.task(other).status is ax.Status.QUEUED


@pytest.mark.parametrize(("name", "key", "limit"), [("locked", "user:1", 1), ("limited", "limited", 2)])
def test_children_that_run_beside_their_parent_keep_locks_and_limits(
    harness: Harness, name: str, key: str, limit: int
) -> None:
    assert harness.run("fans_out", {"name": name}).result == 6
    assert most[key] <= limit


def test_tenants_take_turns(harness: Harness) -> None:
    for tenant in "aaaab":
        harness.enqueue("shared", {"tenant": tenant})
    harness.enqueue("shared", {"tenant": "c"}, priority=ax.Priority.HIGH)
    assert "".join(task.result for task in harness.run_all()) in ("cabaaa", "cbaaaa")


def test_a_task_that_was_not_started_in_time_is_canceled(harness: Harness) -> None:
    late = harness.run("perishable", {}, expires=0)
    assert late.status is ax.Status.CANCELED
    assert late.log[-1].message.startswith("It expired: not started by")
    assert harness.run("perishable", {}).result == "fresh"
    assert harness.run("perishable", {}, delay=3600).result == "fresh", "the limit counts from its due time"


def test_enqueues_with_one_debounce_key_are_merged_and_nobody_waits(harness: Harness) -> None:
    tasks = [harness.enqueue("index", {"doc": "7", "text": text}) for text in ("old", "new")]
    other = harness.enqueue("index", {"doc": "8", "text": "other"})
    assert tasks[0].agent_id == tasks[1].agent_id != other.agent_id
    assert sorted(task.result for task in harness.run_all()) == ["new", "other"]
    again = harness.run("index", {"doc": "7", "text": "newest"})
    assert again.result == "newest" and again.agent_id != tasks[0].agent_id


async def test_the_async_harness_does_the_same() -> None:
    async with ax.testing.harness(pool) as harness:
        assert isinstance(harness, AsyncHarness)
        await harness.enqueue("locked", {"user": "a", "number": 1})
        assert (await harness.run("locked", {"user": "a", "number": 2})).result == 2
