"""Enqueues with the same key are merged into one task, which runs a while after the last of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.db.clock import utc_now
from agentexec.runtime import RUNTIME


@pytest.fixture(autouse=True)
def pool(tables_url: str) -> Iterator[ax.Pool]:
    pool = ax.Pool(database_url=tables_url)

    @pool.task("index", debounce=30, debounce_key="doc:{doc}", debounce_max=90)
    async def index(agent_id: UUID, context: dict[str, Any]) -> str:
        return json.dumps(context)

    yield pool
    RUNTIME.close()


def row(task: ax.Task) -> Any:
    table: Any = Activity.__table__
    with RUNTIME.engine.connect() as connection:
        return connection.execute(select(table).where(table.c.agent_id == task.agent_id)).one()


def change(task: ax.Task, **values: Any) -> None:
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == task.agent_id).values(**values))


def number_of_tasks() -> int:
    with Session(RUNTIME.engine) as db:
        return ax.activity.list(db).total


def seconds_until(moment: datetime) -> float:
    return (moment - utc_now()).total_seconds()


async def test_enqueues_with_a_key_are_one_task_with_the_last_context() -> None:
    first = await ax.enqueue("index", {"doc": 1, "version": 1})
    change(first, run_at=utc_now() + timedelta(seconds=5))
    again = await ax.enqueue("index", {"doc": 1, "version": 2})
    other = ax.enqueue_sync("index", {"doc": 2, "version": 1})
    last = ax.enqueue_sync("index", {"doc": 1, "version": 3})
    assert first == again == last != other
    assert number_of_tasks() == 2
    assert json.loads(row(first).context) == {"doc": 1, "version": 3}
    assert 25 < seconds_until(row(first).run_at) <= 30


def test_a_task_that_has_started_or_ended_is_left_alone() -> None:
    first = ax.enqueue_sync("index", {"doc": 1, "version": 1})
    change(first, status=ax.Status.RUNNING, started_at=utc_now())
    second = ax.enqueue_sync("index", {"doc": 1, "version": 2})
    assert second != first
    assert json.loads(row(first).context)["version"] == 1
    change(first, status=ax.Status.QUEUED)  # it is tried again
    assert ax.enqueue_sync("index", {"doc": 1}) == second
    assert ax.cancel_sync(second)
    third = ax.enqueue_sync("index", {"doc": 1})
    assert third not in (first, second)
    assert ax.retry_sync(second) and ax.enqueue_sync("index", {"doc": 1}) == third


def test_further_enqueues_delay_a_task_up_to_a_limit() -> None:
    task = ax.enqueue_sync("index", {"doc": 1})
    change(task, created_at=utc_now() - timedelta(seconds=80), run_at=utc_now() + timedelta(seconds=1))
    assert ax.enqueue_sync("index", {"doc": 1}) == task
    assert 5 < seconds_until(row(task).run_at) <= 10
    change(task, created_at=utc_now() - timedelta(seconds=200), run_at=utc_now() + timedelta(seconds=1))
    assert ax.enqueue_sync("index", {"doc": 1}) == task
    assert seconds_until(row(task).run_at) <= 1, "it is not put off any more"


def test_the_options_of_a_call_take_precedence_and_a_task_without_them_is_not_debounced() -> None:
    plain = {ax.enqueue_sync("plain", {}).agent_id for _ in range(2)}
    assert len(plain) == 2
    assert row(ax.enqueue_sync("index", {"doc": 1}, debounce=0)).run_at is None
    assert row(ax.enqueue_sync("index", {"doc": None})).run_at is None, "its key is not known"
    first = ax.enqueue_sync("plain", {"a": 1}, debounce=timedelta(seconds=60))
    assert ax.enqueue_sync("plain", {"a": 2}, debounce=60) == first
    assert ax.enqueue_sync("other", {"a": 2}, debounce=60) != first, "a key belongs to a task"
    assert ax.enqueue_sync("plain", {"a": 2}, debounce=60, queue_name="q") != first, "and to a queue"
    keyed = ax.enqueue_sync("plain", {"a": "x" * 200}, debounce=60, debounce_key="{a}")
    assert ax.enqueue_sync("plain", {"a": "x" * 200}, debounce=60, debounce_key="{a}") == keyed != first
    assert ax.enqueue_sync("plain", {"a": "x" * 199 + "y"}, debounce=60, debounce_key="{a}") != keyed


def test_many_tasks_are_not_merged() -> None:
    tasks = ax.enqueue_many_sync("index", [{"doc": 1}, {"doc": 1}])
    assert len({task.agent_id for task in tasks}) == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"debounce": -1}, "debounce="),
        ({"debounce_key": "a"}, "need a debounce="),
        ({"debounce": 5, "debounce_max": 4}, "must not be less"),
        ({"debounce": 5, "delay": 5}, "exclude each other"),
        ({"debounce": 5, "idempotency_key": "a"}, "exclude each other"),
        ({"debounce": 5, "debounce_key": "{"}, "debounce_key="),
        ({"debounce": 5, "debounce_key": "{lacking}"}, "does not have"),
        ({"debounce": 5, "expires": 4}, "it would never run"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ax.AgentexecError, match=reason):
        ax.enqueue_sync("plain", {}, **options)
    assert number_of_tasks() == 0


def test_an_enqueue_in_a_transaction_merges_when_that_commits() -> None:
    first = ax.enqueue_sync("index", {"doc": 1, "version": 1})
    with Session(RUNTIME.engine) as session:
        assert ax.enqueue_sync("index", {"doc": 1, "version": 2}, session=session) == first
        session.rollback()
    assert json.loads(row(first).context)["version"] == 1
    with Session(RUNTIME.engine) as session:
        assert ax.enqueue_sync("index", {"doc": 1, "version": 3}, session=session) == first
        new = ax.enqueue_sync("index", {"doc": 2}, session=session)
        session.commit()
    assert json.loads(row(first).context)["version"] == 3
    assert ax.enqueue_sync("index", {"doc": 2}) == new


def test_enqueues_at_the_same_time_are_one_task() -> None:
    with ThreadPoolExecutor(8) as threads:
        tasks = list(threads.map(lambda n: ax.enqueue_sync("index", {"doc": n % 2, "n": n}), range(24)))
    assert len({task.agent_id for task in tasks}) == 2 == number_of_tasks()


async def test_enqueues_of_one_loop_at_the_same_time_are_one_task() -> None:
    tasks = await asyncio.gather(*(ax.enqueue("index", {"doc": 1, "n": n}) for n in range(10)))
    assert len({task.agent_id for task in tasks}) == 1 == number_of_tasks()
