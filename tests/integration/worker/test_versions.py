"""Versions of code: which one a run began with, and who may run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.changes.versions import Versions, make_report, outdated_names, waiting_message
from agentexec.activity.models import Activity, WorkerProcess
from agentexec.activity.queries.overview import LOST_SECONDS, workers
from agentexec.activity.version_reports import VersionReport, dump_report, read_report
from agentexec.db.clock import utc_now
from agentexec.registry import Registry
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, Deployment, run_in_process


class Pool:
    """A pool with a task that has a version of its own, and one that has none."""

    def __init__(self) -> None:
        self.pool = ax.Pool()
        self.failing = True

        @self.pool.task("report", version="r1")
        async def report(agent_id: UUID, context: dict[str, Any]) -> None:
            """Do nothing."""

        @self.pool.task("research")
        async def research(agent_id: UUID, context: dict[str, Any]) -> None:
            if self.failing:
                raise ValueError("not yet")


def version_of(task: Any) -> str | None:
    with Session(RUNTIME.engine) as db:
        return ax.activity.detail(db, task.agent_id).version


def test_the_record_has_the_version_that_a_run_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ax.CONF, "worker_version", "7")
    world = Pool()
    with ax.testing.harness(world.pool) as harness:
        assert version_of(harness.run("report")) == "r1"
        failed = harness.run("research")
        assert (failed.status, version_of(failed)) == (ax.Status.ERROR, "7")
        world.failing = False
        ax.retry_sync(failed.agent_id)
        assert version_of(failed) is None, "whoever takes it may run it"
        harness.run_all()
        assert version_of(failed) == "7"


def test_without_a_version_the_record_has_none() -> None:
    world = Pool()
    with ax.testing.harness(world.pool) as harness:
        assert version_of(harness.run("research")) is None


@pytest.fixture
def database(sqlite_tables: str) -> Iterator[str]:
    ax.configure(database_url=sqlite_tables)
    yield sqlite_tables
    RUNTIME.close()


def commands_of(deployment: Deployment) -> Callable[..., str]:
    return lambda *arguments: run_in_process(deployment, *arguments)[1]


def add_worker(worker_id: str, report: VersionReport | None, **changes: Any) -> None:
    values = {"worker_id": worker_id, "queue": ax.CONF.queue_name, "host": "here", "pid": 1, "concurrency": 1}
    values |= {"running": 0, "draining": False, "cpu_percent": 0.0, "rss_bytes": 1, "started_at": utc_now()}
    values |= {"seen_at": utc_now(), "versions": None if report is None else dump_report(report), **changes}
    with RUNTIME.engine.begin() as connection:
        connection.execute(insert(WorkerProcess).values(values))


def report_at(version: str, since: float, pinned: bool = True) -> VersionReport:
    return VersionReport({"work": version, "other": "1"}, pinned, since)


def test_the_newest_version_with_live_workers_begins_the_new_tasks(database: str) -> None:
    own, queues = report_at("1", 100.0), [ax.CONF.queue_name]

    def outdated() -> frozenset[str]:
        return outdated_names(RUNTIME.engine, own, "me", queues, utc_now() - timedelta(seconds=LOST_SECONDS))

    assert outdated() == frozenset()
    add_worker("me", report_at("9", 900.0))
    add_worker("older", report_at("0", 50.0))
    add_worker("same", report_at("1", 100.0))
    add_worker("stops", report_at("2", 200.0), draining=True)
    add_worker("lost", report_at("2", 200.0), seen_at=utc_now() - timedelta(seconds=2 * LOST_SECONDS))
    add_worker("elsewhere", report_at("2", 200.0), queue="another")
    add_worker("none", None)
    add_worker("garbage", None, versions='{"tasks": 3}')
    assert outdated() == frozenset()
    add_worker("newer", report_at("2", 200.0))
    assert outdated() == frozenset({"work"})


def test_since_when_a_version_is_there_outlives_its_workers(database: str) -> None:
    first, later = utc_now(), utc_now() + timedelta(hours=1)
    old, new = Versions("1", is_pinned=True), Versions("2", is_pinned=True)
    assert make_report(RUNTIME.engine, Versions(), ["work"], first) is None
    reports = [
        make_report(RUNTIME.engine, versions, ["work"], at) for versions, at in ((old, first), (new, later))
    ]
    again = make_report(RUNTIME.engine, old, ["work"], later + timedelta(hours=1))
    assert again == reports[0] == VersionReport({"work": "1"}, True, first.timestamp())
    assert reports[1] == VersionReport({"work": "2"}, True, later.timestamp())
    assert read_report(dump_report(again)) == again


def test_pinned_workers_need_versions() -> None:
    registry = Registry()

    async def work(agent_id: UUID, context: dict[str, Any]) -> None:
        """Do nothing."""

    registry.add("work", work, version="1")
    registry.require_versions(None)
    registry.add("report", work)
    registry.require_versions("2")
    with pytest.raises(ax.UsageError, match="report has none; set AGENTEXEC_WORKER_VERSION"):
        registry.require_versions(None)


@pytest.mark.parametrize("deploy", ["embedded"], indirect=True)
def test_people_see_which_runs_no_worker_may_take(deploy: Deploy) -> None:
    command = commands_of(deploy())
    task = ax.enqueue_sync("work", {})
    with RUNTIME.engine.begin() as connection:
        begun = {"version": "1", "message": waiting_message("1"), "started_at": utc_now()}
        connection.execute(update(Activity).where(Activity.agent_id == task.agent_id).values(begun))
    add_worker("new", report_at("2", 200.0))
    with Session(RUNTIME.engine) as db:
        [item] = ax.activity.list(db).items
        assert item.waiting is not None
        assert (item.waiting.kind, item.waiting.name) == ("version", "1")
        [worker] = workers(db)
        assert (worker.versions["work"], worker.pinned, worker.serves) == ("2", True, True)
        assert not worker.may_run("work", "1")
        assert worker.may_run("work", "2") and worker.may_run("work", None)
    shown = command("show", str(task.agent_id))
    assert "it began with version 1, and no worker of the queue" in shown
    assert "version:   1" in shown
    found = command("doctor")
    assert "1 open run(s) began with version 1" in found
    assert "1 run(s) of work began with version 1, and no worker of the queue" in found
    add_worker("old", report_at("1", 100.0))
    assert "no worker of the queue" not in command("doctor") + command("show", str(task.agent_id))


@pytest.mark.parametrize("deploy", ["embedded"], indirect=True)
def test_a_worker_that_stops_does_not_count_as_serving(deploy: Deploy) -> None:
    command = commands_of(deploy())
    task = ax.enqueue_sync("work", {})
    add_worker("stops", None, draining=True)
    assert f"none serves {ax.CONF.queue_name}" in command("doctor")
    assert "but only workers that stop serve the queue" in command("show", str(task.agent_id))
