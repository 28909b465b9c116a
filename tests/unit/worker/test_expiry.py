"""Expiry deletes what is past its time, at most once a minute."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from agentexec.activity.changes.served_tasks import report_served, served_names
from agentexec.activity.models import ActivityResult, WorkerProcess
from agentexec.activity.queries.overview import overview
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading, writing
from agentexec.task import Status
from agentexec.worker.expiry import INTERVAL, Expiry, expire
from tests.unit.worker.record import QUEUE, Record, open_record


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


def add_expired_results(record: Record, number: int) -> list:
    tasks = record.enqueue(number)
    past = utc_now() - timedelta(seconds=1)
    with writing(record.runtime.engine) as connection:
        for agent_id in tasks:
            connection.execute(insert(ActivityResult).values(agent_id=agent_id, value="1", expires_at=past))
    return tasks


def kept(record: Record) -> set:
    with reading(record.runtime.engine) as connection:
        return set(connection.execute(select(ActivityResult.agent_id)).scalars())


def test_expired_results_are_deleted_but_not_those_that_a_parent_may_ask_for_again(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentexec.worker.expiry.CHUNK_SIZE", 2)
    [parent] = record.enqueue(1)
    [child, *_] = add_expired_results(record, 5)
    record.change(child, parent_id=parent)
    expire(record.runtime.engine, utc_now())
    assert kept(record) == {child}
    record.change(parent, status=Status.COMPLETE)
    expire(record.runtime.engine, utc_now())
    assert kept(record) == set()


def test_it_runs_once_in_an_interval(record: Record) -> None:
    expiry = Expiry(record.runtime.engine)
    expiry.run_if_due(1_000.0)
    results = set(add_expired_results(record, 1))
    expiry.run_if_due(1_000.0 + INTERVAL - 1)
    assert kept(record) == results
    expiry.run_if_due(1_000.0 + INTERVAL)
    assert kept(record) == set()


def test_reports_of_processes_from_the_future_do_not_count(record: Record) -> None:
    """A forged report would show a worker, and say that it has a task, for ever."""
    now = utc_now()
    facts = {"queue": QUEUE, "host": "h", "pid": 1, "concurrency": 1, "running": 0, "draining": False}
    facts |= {"cpu_percent": 0.0, "rss_bytes": 0, "started_at": now}
    seen = {"forged": now.replace(year=9999), "live": now, "ahead": now + timedelta(seconds=30)}
    with writing(record.runtime.engine) as connection:
        for worker_id, at in seen.items():
            connection.execute(insert(WorkerProcess).values(worker_id=worker_id, seen_at=at, **facts))
    with Session(record.runtime.engine) as db:
        assert {worker.worker_id for worker in overview(db).workers} == {"live", "ahead"}
    expire(record.runtime.engine, now)
    with reading(record.runtime.engine) as connection:
        assert set(connection.execute(select(WorkerProcess.worker_id)).scalars()) == {"live", "ahead"}
    report_served(record.runtime.engine, QUEUE, ["forged"], now.replace(year=9999))
    report_served(record.runtime.engine, QUEUE, ["real"], now)
    with reading(record.runtime.engine) as connection:
        assert served_names(connection, QUEUE, now) == {"real"}
