"""The handlers of a failure are enqueued once, from the record, wherever and however the task has ended."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

import agentexec as ax
from agentexec.activity.changes.crashes import record_crashes
from agentexec.activity.changes.endings import Ending, end, end_from_outside
from agentexec.activity.changes.expirations import expire_due
from agentexec.activity.models import Activity, FollowUp
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading, writing
from agentexec.errors import UsageError
from agentexec.registry import Registry
from agentexec.runtime import RUNTIME
from agentexec.task import Lease, Status
from agentexec.worker import follow_ups
from agentexec.worker.follow_ups import FOREIGN_SECONDS, FollowUps
from tests.unit.worker.record import QUEUE, Record, open_record

NOBODY = UUID(int=0)


def handler(agent_id: UUID, context: Any) -> None:
    """Do nothing."""


def alert(agent_id: UUID, context: ax.TaskFailure) -> None:
    """Do nothing."""


def page(agent_id: UUID, context: ax.TaskFailure) -> None:
    """Do nothing."""


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


@pytest.fixture(autouse=True)
def _runtime(record: Record) -> Iterator[None]:
    with RUNTIME.replaced(record.runtime.engine, record.backend, Registry()):
        yield


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add("work", handler, on_failure=alert)
    registry.add_failure_handler(page)
    return registry


def follow(record: Record, registry: Registry, later: float = 0.0) -> int:
    now = utc_now() + timedelta(seconds=later)
    return FollowUps(record.runtime.engine, registry, QUEUE).run_once(now)


def fail(record: Record, *agent_ids: UUID, status: Status = Status.ERROR) -> None:
    error = "ValueError: no luck\nTraceback …" if status is Status.ERROR else None
    with writing(record.runtime.engine) as connection:
        end(connection, Ending(Lease(NOBODY, 0), status, "It ended.", error=error), agent_ids, utc_now())


def calls(record: Record) -> list[tuple[str, dict[str, Any]]]:
    """Names and contexts of the tasks that were enqueued, oldest first."""
    query = select(Activity.agent_type, Activity.context).where(Activity.agent_type.like("on_failure.%"))
    with reading(record.runtime.engine) as connection:
        rows = connection.execute(query.order_by(Activity.created_at, Activity.agent_type)).all()
    return [(name, json.loads(context)) for name, context in rows]


def left(record: Record) -> int:
    with reading(record.runtime.engine) as connection:
        return len(connection.execute(select(FollowUp.id)).all())


def test_a_failure_calls_the_handler_of_the_task_and_that_of_the_pool(
    record: Record, registry: Registry
) -> None:
    [task] = record.start(1)
    record.change(task, context='{"n": 1}', metadata_={"tenant": "a"}, attempt=2, priority=0)
    fail(record, task)
    assert follow(record, registry) == 2
    [(first, failure), (second, same)] = calls(record)
    assert (first, second) == ("on_failure.alert", "on_failure.page")
    assert failure == same
    told = ax.TaskFailure.model_validate(failure)
    assert (told.agent_id, told.task_name, told.status, told.queue_name) == (
        task,
        "work",
        Status.ERROR,
        QUEUE,
    )
    assert (told.context, told.metadata, told.attempts) == ({"n": 1}, {"tenant": "a"}, 2)
    assert (told.error, told.details) == ("ValueError: no luck", "ValueError: no luck\nTraceback …")
    assert len(record.claim()) == 2, "they are on the queue"
    assert follow(record, registry) == 0 == left(record)
    with reading(record.runtime.engine) as connection:
        query = select(Activity).where(Activity.agent_type == "on_failure.alert")
        row = connection.execute(query).one()
    assert (row.metadata, row.priority) == ({"tenant": "a"}, 0), "the call belongs to the tenant of the task"


def test_a_task_that_crashed_its_workers_too_often_counts_as_failed(
    record: Record, registry: Registry
) -> None:
    [task] = record.start(1)
    with writing(record.runtime.engine) as connection:
        record_crashes(connection, [Lease(task, 1)], queue=QUEUE, reason="died", max_crashes=1, now=utc_now())
    assert record.statuses([task]) == [Status.ERROR]
    assert follow(record, registry) == 2


def test_a_task_that_expired_counts_as_failed_and_a_canceled_one_does_not(
    record: Record, registry: Registry
) -> None:
    late, canceled = record.enqueue(2)
    record.change(late, expires_at=utc_now() - timedelta(seconds=1))
    with writing(record.runtime.engine) as connection:
        expire_due(connection, utc_now(), 10)
        end_from_outside(
            connection, [canceled], status=Status.CANCELED, message="Canceled.", error=None, now=utc_now()
        )
    assert follow(record, registry) == 2
    assert {(told["agent_id"], told["status"]) for _, told in calls(record)} == {(str(late), "canceled")}


def test_a_task_that_completes_or_is_tried_again_calls_nobody(record: Record, registry: Registry) -> None:
    done, again = record.start(2)
    fail(record, done, status=Status.COMPLETE)
    fail(record, again, status=Status.QUEUED)
    assert left(record) == 0
    assert follow(record, registry) == 0


def test_a_failure_of_a_handler_calls_nobody(record: Record, registry: Registry) -> None:
    fail(record, *record.start(1))
    assert follow(record, registry) == 2
    with reading(record.runtime.engine) as connection:
        handlers = connection.scalars(
            select(Activity.agent_id).where(Activity.agent_type.like("on_failure.%"))
        ).all()
    fail(record, *handlers)
    assert left(record) == 2
    assert follow(record, registry) == 0 == left(record)


def test_a_task_that_was_retried_meanwhile_calls_nobody(record: Record, registry: Registry) -> None:
    [task] = record.start(1)
    fail(record, task)
    record.change(task, status=Status.QUEUED)
    assert follow(record, registry) == 0 == left(record)
    fail(record, task)
    assert follow(record, registry) == 2, "but its next failure does"


def test_two_hosts_call_each_handler_once(
    record: Record, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(record, *record.start(3))
    hosts = [FollowUps(record.runtime.engine, registry, QUEUE) for _ in range(2)]
    due = hosts[0]._due(utc_now())
    assert [host._follow(due) for host in hosts] == [(3, 6), (0, 0)]


def test_a_crash_in_the_middle_calls_each_handler_once(
    record: Record, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(record, *record.start(2))
    written = []

    def crash(connection: Any, new: Any) -> Any:
        written.append(new)
        if len(written) == 3:
            raise KeyboardInterrupt
        return enqueue(connection, new)

    with monkeypatch.context() as patched:
        enqueue = follow_ups.enqueue_in_transaction
        patched.setattr(follow_ups, "enqueue_in_transaction", crash)
        with pytest.raises(KeyboardInterrupt):
            follow(record, registry)
    assert calls(record) == []
    assert follow(record, registry) == 4


def test_tasks_that_another_module_has_are_left_to_its_hosts_for_a_while(
    record: Record, registry: Registry
) -> None:
    [task] = record.start(1)
    record.change(task, agent_type="elsewhere")
    fail(record, task)
    assert follow(record, registry) == 0 and left(record) == 1
    assert follow(record, registry, FOREIGN_SECONDS + 5) == 1, "then the handler of this pool is called"
    assert [name for name, _ in calls(record)] == ["on_failure.page"]


def test_a_context_that_is_not_json_keeps_no_handler_from_its_call(
    record: Record, registry: Registry
) -> None:
    [task] = record.start(1)
    record.change(task, context="{")
    fail(record, task)
    with writing(record.runtime.engine) as connection:
        connection.execute(update(Activity).values(error=""))
    assert follow(record, registry) == 2
    assert calls(record)[0][1]["context"] is None


def test_a_handler_is_a_function_a_task_or_the_name_of_a_task() -> None:
    registry = Registry()
    registry.add("alert", alert, retries=1)
    registry.add("by function", handler, on_failure=alert)
    registry.add("by name", handler, on_failure="later")
    registry.add("new", handler, on_failure=page)
    assert registry.handlers_of_failure("by function") == ["alert"]
    assert registry.handlers_of_failure("new") == ["on_failure.page"]
    assert (registry.get("alert").retries, registry.get("on_failure.page").retries) == (1, 5)
    with pytest.raises(UsageError, match="names later as its on_failure, and there is no such task"):
        registry.complete()
    registry.add("later", page)
    registry.complete()
    assert registry.handlers_of_failure("by name") == ["later"]
    with pytest.raises(UsageError, match="on_failure must be a handler or the name of a task, not 5"):
        registry.add("bad", handler, on_failure=5)

    def takes_a_failure(failure: object) -> None:
        """Do nothing."""

    with pytest.raises(UsageError, match="agent_id"):
        registry.add("bad", handler, on_failure=takes_a_failure)


async def test_the_harness_calls_handlers() -> None:
    pool = ax.Pool(database_url="sqlite://")
    told: list[str] = []

    @pool.task("work")
    async def work(agent_id: UUID, context: dict[str, Any]) -> None:
        raise ValueError("no luck")

    @pool.on_failure
    async def note(agent_id: UUID, context: ax.TaskFailure) -> None:
        told.append(f"{context.task_name} {context.context} {context.error}")

    async with ax.testing.harness(pool) as harness:
        await harness.enqueue("work", {"n": 1})
        await harness.run_all()
    assert told == ["work {'n': 1} ValueError: no luck"]
