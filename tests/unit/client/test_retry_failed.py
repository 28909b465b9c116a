"""Failed tasks are put back on their queues in batches, each of them once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.activity.queries.failed import FailedFilter, count_failed, failed_groups, newest_failed
from agentexec.client import retry_failed
from agentexec.client.retry_failed import RetryBatch, failed_filter
from agentexec.db.clock import utc_now
from agentexec.runtime import RUNTIME


@pytest.fixture(autouse=True)
def _record(sqlite_tables: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retry_failed, "BATCH", 2)
    ax.configure(database_url=sqlite_tables)
    yield
    RUNTIME.close()


def change(agent_id: UUID, **values: Any) -> None:
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == agent_id).values(**values))


def failed(name: str = "work", ago: float = 60, error: str = "ValueError: no", **options: Any) -> UUID:
    task = ax.enqueue_sync(name, **options)
    RUNTIME.backend.remove(task.queue_name, [task.agent_id])  # a worker has run it
    at = utc_now() - timedelta(seconds=ago)
    change(task.agent_id, status=ax.Status.ERROR, finished_at=at, error=error, message=f"Failed: {error}")
    return task.agent_id


def queued() -> set[UUID]:
    with RUNTIME.engine.connect() as connection:
        return set(connection.scalars(select(Activity.agent_id).where(Activity.status == ax.Status.QUEUED)))


def on_queues(*agent_ids: UUID) -> set[UUID]:
    """Those of these tasks that a worker can claim."""
    return {*agent_ids} - {*RUNTIME.backend.unknown_tasks(ax.CONF.queue_name, agent_ids)}


def test_all_failed_tasks_are_queued_again_in_batches() -> None:
    tasks = {failed() for _ in range(5)}
    canceled = failed()
    change(canceled, status=ax.Status.CANCELED)
    assert ax.retry_failed_sync() == 5
    assert queued() == tasks == on_queues(*tasks, canceled)
    assert ax.retry_failed_sync() == 0


async def test_a_name_a_time_and_labels_choose_tasks() -> None:
    old, recent = failed(ago=7200), failed(ago=60)
    other, tenant = failed("other"), failed("other", metadata={"tenant": "a"})
    hour_ago = utc_now() - timedelta(hours=1)
    assert await ax.retry_failed(task_name="work", since=hour_ago) == 1
    assert queued() == {recent}
    assert await ax.retry_failed(metadata_filter={"tenant": "a"}) == 1
    assert queued() == {recent, tenant}
    assert await ax.retry_failed(task_name="other") == 1
    assert queued() == {recent, tenant, other}
    assert await ax.retry_failed() == 1
    assert queued() == {recent, tenant, other, old}


def test_a_call_that_was_killed_half_way_may_be_made_again() -> None:
    tasks = [failed(ago=60 - number) for number in range(5)]
    assert RetryBatch(failed_filter(None, None, None)).retry() == 2  # and then it was killed
    assert queued() == {*tasks[:2]}, "the oldest failures come first"
    assert ax.retry_failed_sync() == 3
    assert queued() == {*tasks}


def test_a_task_that_fails_again_meanwhile_is_not_retried_twice() -> None:
    first, second, third = (failed(ago=60 - number) for number in range(3))
    wanted = failed_filter(None, None, None)
    assert RetryBatch(wanted).retry() == 2
    change(first, status=ax.Status.ERROR, finished_at=utc_now() + timedelta(milliseconds=1))
    assert RetryBatch(wanted).retry() == 1
    assert RetryBatch(wanted).retry() == 0
    assert queued() == {second, third}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"since": datetime(2030, 1, 1)}, "since= must have a time zone"),
        ({"task_name": ""}, "task_name="),
        ({"metadata_filter": {"list": [1]}}, "metadata_filter"),
    ],
)
def test_invalid_filters_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ax.UsageError, match=reason):
        ax.retry_failed_sync(**options)


def test_failures_are_listed_newest_first_and_counted_by_name_and_error() -> None:
    tasks = [failed(ago=60 - number) for number in range(3)]
    other = failed("other", error="TimeoutError: late", ago=10)
    with Session(RUNTIME.engine) as db:
        everything = FailedFilter()
        assert count_failed(db, everything) == 4
        assert [row.agent_id for row in newest_failed(db, everything, 2)] == [other, tasks[2]]
        [many, single] = failed_groups(db, everything, 10)
        assert (many.task_name, many.count, many.example) == ("work", 3, tasks[2])
        assert (single.task_name, single.count, single.message) == ("other", 1, "Failed: TimeoutError: late")
        assert count_failed(db, FailedFilter("other")) == 1
