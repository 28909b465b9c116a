"""Queued tasks that were not started in time are canceled, without a worker that claims them."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from agentexec.activity.models import Activity, ActivityLog
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading
from agentexec.task import Status
from agentexec.worker import task_expiry
from agentexec.worker.task_expiry import TaskExpiry
from tests.unit.worker.record import QUEUE, Record, open_record

AGO, AHEAD = timedelta(seconds=-5), timedelta(hours=1)


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


def expiring(record: Record, agent_id: UUID, after: timedelta, **values: object) -> None:
    record.change(agent_id, expires_at=utc_now() + after, **values)


def test_a_task_that_was_not_started_in_time_is_canceled_and_says_so(record: Record) -> None:
    late, waiting = record.enqueue(2)
    expiring(record, late, AGO)
    expiring(record, waiting, AHEAD)
    TaskExpiry(record.runtime).run_once()
    assert record.statuses([late, waiting]) == [Status.CANCELED, Status.QUEUED]
    assert record.backend.unknown_tasks(QUEUE, [late, waiting]) == [late], "it has left the queue"
    with reading(record.runtime.engine) as connection:
        lines = connection.execute(
            select(ActivityLog.message).where(ActivityLog.activity_id == late).order_by(ActivityLog.id)
        )
        [_, message] = lines.scalars().all()
    assert message.startswith("It expired: not started by 20")
    assert message.endswith("Z.")


def test_a_task_that_has_started_keeps_running(record: Record) -> None:
    [running] = record.start(1)
    [retried] = record.enqueue(1)
    expiring(record, running, AGO, started_at=utc_now())
    expiring(record, retried, AGO, started_at=utc_now())
    TaskExpiry(record.runtime).run_once()
    assert record.statuses([running, retried]) == [Status.RUNNING, Status.QUEUED]
    with reading(record.runtime.engine) as connection:
        assert set(connection.execute(select(Activity.expires_at)).scalars()) == {None}, "not looked at again"


def test_tasks_of_queues_without_workers_and_any_number_of_tasks_expire(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_expiry, "CHUNK_SIZE", 2)
    tasks = record.enqueue(5)
    for agent_id in tasks:
        expiring(record, agent_id, AGO, queue="nobody serves it")
    TaskExpiry(record.runtime).run_once()
    assert set(record.statuses(tasks)) == {Status.CANCELED}


def test_many_expired_tasks_are_found_by_their_index(record: Record) -> None:
    with reading(record.runtime.engine) as connection:
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT agent_id FROM agentexec_activity WHERE expires_at <= '2030-01-01' "
            "ORDER BY expires_at LIMIT 500"
        ).all()
    assert "ix_agentexec_activity_expires" in str(plan)
