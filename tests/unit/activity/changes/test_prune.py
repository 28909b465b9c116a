"""Pruning leaves locks and limits as they are: whoever has one keeps it, and the lines go on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.runtime import RUNTIME
from agentexec.testing import Harness

pool = ax.Pool()


@pool.task("locked", lock_key="user:{user}")
async def locked(agent_id: UUID, context: dict[str, Any]) -> int:
    return int(context["number"])


@pool.task("limited", concurrency=1)
async def limited(agent_id: UUID, context: dict[str, Any]) -> None: ...


@pool.task("prunes", lock_key="user:{user}")
async def prunes(agent_id: UUID, context: dict[str, Any]) -> int:
    return prune()


@pytest.fixture
def harness() -> Iterator[Harness]:
    with ax.testing.harness(pool) as harness:
        yield harness


def prune() -> int:
    with Session(RUNTIME.engine) as db:
        expected = ax.activity.prunable(db, timedelta())
        assert ax.activity.prune(db, timedelta()) == expected
        return expected


def change(task: UUID, **values: Any) -> None:
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == task).values(**values))


def test_the_line_of_a_lock_goes_on_after_those_before_it_were_pruned(harness: Harness) -> None:
    assert harness.run("locked", {"user": "a", "number": 0}).result == 0
    later = [harness.enqueue("locked", {"user": "a", "number": number}) for number in (1, 2)]
    assert prune() == 1
    assert [task.agent_id for task in harness.run_all()] == [task.agent_id for task in later]
    assert prune() == 2
    assert harness.run("locked", {"user": "a", "number": 3}).result == 3


def test_a_running_task_keeps_its_lock_when_it_prunes(harness: Harness) -> None:
    assert harness.run("locked", {"user": "a", "number": 0}).result == 0
    pruning = harness.enqueue("prunes", {"user": "a"})
    waiting = harness.enqueue("locked", {"user": "a", "number": 1})
    assert [task.agent_id for task in harness.run_all()] == [pruning.agent_id, waiting.agent_id]
    assert harness.task(pruning).result == 1


def test_a_limit_lets_the_next_task_in_after_its_last_was_pruned(harness: Harness) -> None:
    for _ in range(2):
        assert harness.run("limited", {}).status is ax.Status.COMPLETE
        assert prune() == 1


def test_a_canceled_task_is_kept_until_its_handler_has_given_up_its_lock(harness: Harness) -> None:
    stopping = harness.run("locked", {"user": "a", "number": 0}).agent_id
    change(stopping, status=ax.Status.CANCELED, held_lock="user:a")
    assert prune() == 0
    change(stopping, held_lock=None)
    assert prune() == 1
