"""The owner of a task: options of tasks and of enqueue, and what the record and the queue learn of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.client.enqueue import entry_of
from agentexec.client.new_task import new_task
from agentexec.runtime import RUNTIME
from agentexec.task import Priority, new_agent_id, stored_entry


class Order(BaseModel):
    tenant: str | None = "acme"


@pytest.fixture
def pool() -> Iterator[ax.Pool]:
    pool = ax.Pool(database_url="sqlite://")

    @pool.task("fair", fairness_key="{tenant}", fairness_weight={"big": 5, "small": 0.5})
    async def fair(agent_id: UUID, context: Order) -> None: ...

    @pool.task("plain")
    async def plain(agent_id: UUID, context: Order) -> None: ...

    yield pool


def key_and_weight(name: str, tenant: str | None = "acme", **options: Any) -> tuple[str | None, float]:
    entry = entry_of(new_task(name, Order(tenant=tenant), **options))
    return entry.fairness_key, entry.fairness_weight


def test_a_task_has_the_key_and_weight_of_its_handler(pool: ax.Pool) -> None:
    assert key_and_weight("fair") == ("acme", 1.0)
    assert key_and_weight("fair", "big") == ("big", 5.0)
    assert key_and_weight("fair", "small") == ("small", 0.5)
    assert key_and_weight("fair", None) == (None, 1.0)
    assert key_and_weight("plain") == (None, 1.0)


def test_the_call_comes_before_the_handler(pool: ax.Pool) -> None:
    assert key_and_weight("fair", fairness_key="of:{tenant}") == ("of:acme", 1.0)
    assert key_and_weight("fair", "big", fairness_weight=2) == ("big", 2.0)
    assert key_and_weight("plain", fairness_key="x", fairness_weight=0.001) == ("x", 0.001)
    assert key_and_weight("unknown", fairness_key="{tenant}") == ("acme", 1.0)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"fairness_weight": 2}, "fairness_weight= needs a fairness_key="),
        ({"fairness_key": "x", "fairness_weight": 0}, "fairness_weight= must be a number from 0.001"),
        ({"fairness_key": "x", "fairness_weight": float("nan")}, "fairness_weight="),
        ({"fairness_key": "x", "fairness_weight": {"x": 1}}, "fairness_weight= must be a number"),
        ({"fairness_key": 7}, "fairness_key= must be a text"),
        ({"fairness_key": "{missing}"}, "names the field missing"),
    ],
)
def test_what_does_not_fit_is_refused_at_enqueue(pool: ax.Pool, options: Any, problem: str) -> None:
    with pytest.raises(ax.UsageError, match=problem):
        ax.enqueue_sync("plain", Order(), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"fairness_key": "{"},
        {"fairness_key": "x", "fairness_weight": 1001},
        {"fairness_key": "x", "fairness_weight": {"a": "1"}},
        {"fairness_key": "x", "fairness_weight": {7: 1}},
    ],
)
def test_what_does_not_fit_is_refused_at_registration(pool: ax.Pool, options: Any) -> None:
    with pytest.raises(ax.UsageError, match="fairness"):
        pool.task("other", **options)(lambda agent_id, context: None)


def test_the_record_keeps_key_and_weight_and_a_retry_has_them_too(pool: ax.Pool) -> None:
    ax.Base.metadata.create_all(RUNTIME.engine)
    task = ax.enqueue_sync("fair", Order(tenant="big"))
    plain = ax.enqueue_sync("plain", Order())
    with Session(RUNTIME.engine) as db:
        row, other = db.get_one(Activity, task.agent_id), db.get_one(Activity, plain.agent_id)
        assert stored_entry(row)[4:6] == ("big", 5.0)
        assert (other.fairness_key, other.fairness_weight) == (None, None)
        assert stored_entry(other)[4:6] == (None, 1.0)
    assert ax.cancel_sync(task)
    pushed: list[Any] = []
    backend = RUNTIME.backend
    original = backend.push
    backend.push = lambda queue, entries, **options: (
        pushed.extend(entries) or original(queue, entries, **options)
    )  # type: ignore[method-assign]
    try:
        assert ax.retry_sync(task)
    finally:
        backend.push = original  # type: ignore[method-assign]
    assert [entry[4:6] for entry in pushed] == [("big", 5.0)]


@pytest.mark.parametrize(("key", "weight"), [("", 1.0), (7, 1.0), (None, 3.0)])
def test_a_forged_key_in_the_record_counts_as_none(key: Any, weight: float) -> None:
    row = Activity(
        agent_id=new_agent_id(),
        agent_type="fair",
        priority=1,
        epoch=0,
        fairness_key=key,
        fairness_weight=weight,
    )
    assert stored_entry(row).fairness_key is None


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "2", None, 1e9])
def test_a_forged_weight_in_the_record_counts_as_1(weight: Any) -> None:
    row = Activity(
        agent_id=new_agent_id(),
        agent_type="fair",
        priority=0,
        epoch=3,
        fairness_key="a",
        fairness_weight=weight,
    )
    assert stored_entry(row, 5.0)[:6] == (row.agent_id, Priority.HIGH, 5.0, 3, "a", 1.0)
