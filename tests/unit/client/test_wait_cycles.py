"""Waits that cannot end: they raise an error that says why, and the tasks that were waited for run afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

import agentexec as ax
from agentexec.testing import Harness
from tests.waiting import patient

pool = ax.Pool()


@pool.task("waits", lock_key="user:{user}")
async def waits(agent_id: UUID, context: dict[str, str]) -> Any:
    """Enqueue a task of the kind that the context says, and wait for it as it says."""
    child = await ax.enqueue(context["child"], {"user": context["with"], "by": context["by"]})
    if context["by"] == "get_result":
        return await ax.get_result(child, timeout=patient(20))
    if context["by"] == "gather":
        return await ax.gather(child, timeout=patient(20))
    if context["by"] == "as_completed":
        return [done.result() async for done in ax.as_completed([child], timeout=patient(20))]
    return await ax.map(context["child"], [{"user": context["with"]}], timeout=20)


@pool.task("waits_plainly", lock_key="user:{user}")
def waits_plainly(agent_id: UUID, context: dict[str, str]) -> Any:
    child = ax.enqueue_sync(context["child"], {"user": context["with"]})
    if context["by"] == "get_result":
        return ax.get_result_sync(child, timeout=patient(20))
    return ax.gather_sync(child, timeout=patient(20))


@pool.task("locked", lock_key="user:{user}")
async def locked(agent_id: UUID, context: dict[str, str]) -> str:
    return f"ran for {context['user']}"


@pool.task("alone", concurrency=1, concurrency_key="{user}")
async def alone(agent_id: UUID, context: dict[str, str]) -> Any:
    if context.get("child"):
        child = await ax.enqueue(context["child"], {"user": context["with"]})
        return await ax.get_result(child, timeout=patient(20))
    return f"ran for {context['user']}"


@pool.task("pairs", concurrency=2)
async def pairs(agent_id: UUID, context: dict[str, str]) -> Any:
    if context.get("child"):
        return await ax.get_result(await ax.enqueue("pairs", {}), timeout=patient(20))
    return "one of two"


@pool.task("handles_it", lock_key="user:{user}")
async def handles_it(agent_id: UUID, context: dict[str, str]) -> str:
    child = await ax.enqueue("locked", context)
    try:
        await ax.get_result(child)
    except ax.WaitDeadlockError:
        return "later"
    return "never"


@pytest.fixture
def harness() -> Iterator[Harness]:
    with ax.testing.harness(pool) as harness:
        yield harness


@pytest.mark.parametrize("by", ["get_result", "gather", "as_completed", "map"])
def test_a_task_that_waits_for_its_own_lock_fails_with_the_reason(harness: Harness, by: str) -> None:
    task = harness.run("waits", {"user": "7", "child": "locked", "with": "7", "by": by})
    assert task.status is ax.Status.ERROR
    assert "cannot wait for task locked" in task.error and "both have the lock user:7" in task.error


@pytest.mark.parametrize("by", ["get_result", "gather"])
def test_a_plain_function_that_waits_for_its_own_lock_fails_too(harness: Harness, by: str) -> None:
    task = harness.run("waits_plainly", {"user": "7", "child": "locked", "with": "7", "by": by})
    assert task.status is ax.Status.ERROR and "both have the lock user:7" in task.error


def test_a_task_waits_for_one_with_another_lock(harness: Harness) -> None:
    task = harness.run("waits", {"user": "7", "child": "locked", "with": "8", "by": "get_result"})
    assert task.result == "ran for 8"


def test_the_task_that_was_refused_runs_when_the_first_has_ended(harness: Harness) -> None:
    assert harness.run("handles_it", {"user": "7"}).result == "later"
    [done] = harness.run_all()
    assert (done.task_name, done.result) == ("locked", "ran for 7")


def test_a_task_that_waits_for_its_only_place_in_a_limit_fails_with_the_reason(harness: Harness) -> None:
    task = harness.run("alone", {"user": "7", "child": "alone", "with": "7"})
    assert task.status is ax.Status.ERROR
    assert "concurrency=1 lets one task of this name with the key 7 run at a time" in task.error


def test_a_task_waits_for_one_with_another_key_of_its_limit(harness: Harness) -> None:
    assert harness.run("alone", {"user": "7", "child": "alone", "with": "8"}).result == "ran for 8"


def test_a_task_waits_for_the_second_place_in_its_limit(harness: Harness) -> None:
    assert harness.run("pairs", {"child": "pairs"}).result == "one of two"
