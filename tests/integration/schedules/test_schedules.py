"""Each tick of a schedule enqueues one task, however many processes try, and whatever happened before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import text, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Schedule
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.runtime import RUNTIME
from agentexec.schedules.record import ScheduleSchema, find_schedule, find_schedules
from agentexec.worker.scheduler import Scheduler
from tests.deployment import Deploy, Deployment, on_targets, run_in_process

everywhere = on_targets("embedded", "postgres", "valkey+sqlite")
alone = on_targets("embedded", alternates=False)

HOUR = timedelta(hours=1)


class Report(BaseModel):
    """Context of a scheduled task."""

    region: str = "all"


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    return deploy()


def new_pool() -> ax.Pool:
    pool = ax.Pool(engine=RUNTIME.engine)

    @pool.task("report")
    async def report(agent_id: UUID, context: Report) -> None: ...

    return pool


def scheduler_of(pool: ax.Pool) -> Scheduler:
    return Scheduler(RUNTIME.engine, pool.registry, ax.CONF.queue_name)


def declared(**options: Any) -> Scheduler:
    """Return the scheduler of a worker that declares the hourly report, which it has declared in the record."""
    pool = new_pool()
    pool.add_schedule("hourly", "0 * * * *", task="report", **options)
    scheduler = scheduler_of(pool)
    scheduler.run_once(utc_now())
    return scheduler


def hourly() -> ScheduleSchema:
    return find_schedule(RUNTIME.engine, ax.CONF.queue_name, "hourly")


def next_at() -> datetime:
    moment = hourly().next_at
    assert moment is not None
    return moment


def tasks() -> list[ax.activity.ActivityListItemSchema]:
    with Session(RUNTIME.engine) as db:
        return ax.activity.list(db, page_size=1000, task_name="report").items


@everywhere
def test_of_many_processes_one_enqueues_the_task_of_a_tick(deployment: Deployment) -> None:
    first = declared(context=Report(region="EU"), metadata={"tenant": "a"}, priority=ax.Priority.HIGH)
    others = [first, *(declared(context=Report(region="EU"), metadata={"tenant": "a"}) for _ in range(7))]
    due = next_at()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda scheduler: scheduler.run_once(due), others))
    [task] = tasks()
    assert (task.status, task.metadata) == (ax.Status.QUEUED, {"tenant": "a"})
    assert task.latest_log_message == f"Scheduled by hourly for {due:%Y-%m-%d %H:%M:%S} UTC."
    assert deployment.depth() == 1
    schedule = hourly()
    assert (schedule.runs, schedule.last_at, schedule.next_at) == (1, due, due + HOUR)
    assert schedule.last_agent_id == task.agent_id


@alone
def test_the_next_look_is_when_the_next_tick_is_due(deployment: Deployment) -> None:
    scheduler, due = declared(), next_at()
    assert scheduler.run_once(due - timedelta(seconds=3)) == pytest.approx(3.0)
    assert scheduler.run_once(due - timedelta(minutes=3)) == 5.0
    assert tasks() == []


@everywhere
def test_ticks_that_were_missed_are_skipped_but_the_latest_one_may_be_late(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler, due = declared(), next_at()
    scheduler.run_once(due + 5 * HOUR + timedelta(minutes=4))
    [task] = tasks()
    assert f"{due + 5 * HOUR:%H:%M:%S} UTC" in str(task.latest_log_message)
    assert "skipped the ticks" in caplog.text
    scheduler.run_once(due + 8 * HOUR + timedelta(minutes=6))
    assert len(tasks()) == 1
    assert (hourly().runs, hourly().next_at) == (1, due + 9 * HOUR)


@everywhere
def test_with_backfill_every_missed_tick_gets_its_task(deployment: Deployment) -> None:
    scheduler, due = declared(backfill=True), next_at()
    scheduler.run_once(due + 5 * HOUR)
    found = sorted(str(task.latest_log_message) for task in tasks())
    assert found == sorted(
        f"Scheduled by hourly for {due + number * HOUR:%Y-%m-%d %H:%M:%S} UTC." for number in range(6)
    )
    assert hourly().next_at == due + 6 * HOUR


@alone
def test_a_long_backfill_is_done_in_parts(deployment: Deployment) -> None:
    scheduler, due = declared(backfill=True), next_at()
    now = due + 149 * HOUR
    assert scheduler.run_once(now) < 1
    assert hourly().runs == 100
    scheduler.run_once(now)
    assert hourly().runs == 150


@pytest.mark.parametrize("options", [{}, {"backfill": True}], ids=["skipping", "backfill"])
@alone
def test_a_schedule_ends_after_its_last_repetition(deployment: Deployment, options: dict[str, Any]) -> None:
    scheduler, due = declared(repeat=2, **options), next_at()
    for number in range(4):
        scheduler.run_once(due + number * HOUR)
    assert len(tasks()) == 2
    assert (hourly().runs, hourly().next_at) == (2, None)
    declared(repeat=2, **options)
    assert hourly().next_at is None
    declared(repeat=3, **options)
    assert hourly().next_at is not None
    declared(repeat=1, **options)
    assert hourly().next_at is None
    pool = new_pool()
    pool.add_schedule("hourly", "30 * * * *", task="report", repeat=2, **options)
    scheduler_of(pool).run_once(utc_now())
    assert (hourly().runs, next_at().minute) == (0, 30), "a changed expression starts over"


@alone
def test_a_changed_expression_starts_anew_and_an_unchanged_one_goes_on(deployment: Deployment) -> None:
    declared()
    due = next_at()
    later = declared(context=Report(region="US"))
    assert next_at() == due
    pool = new_pool()
    pool.add_schedule("hourly", "30 * * * *", task="report")
    scheduler_of(pool).run_once(utc_now())
    assert next_at().minute == 30
    # Workers of the earlier release, which still run, follow the record.
    later.run_once(next_at())
    assert len(tasks()) == 1
    assert next_at().minute == 30


@alone
def test_a_schedule_ticks_only_where_a_worker_declares_it(deployment: Deployment) -> None:
    declared()
    due = next_at()
    scheduler_of(new_pool()).run_once(due)
    assert tasks() == []
    assert next_at() == due


@alone
def test_a_tick_whose_task_cannot_be_enqueued_is_skipped_and_the_others_go_on(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    pool = new_pool()
    pool.add_schedule("a", "0 * * * *", task="report", context={"region": "EU"})
    pool.add_schedule("b", "0 * * * *", task="report")
    scheduler = scheduler_of(pool)
    scheduler.run_once(utc_now())

    with writing(RUNTIME.engine) as connection:
        connection.execute(update(Schedule).where(Schedule.name == "a").values(context='{"region": 5}'))
    due = find_schedules(RUNTIME.engine)[0].next_at
    assert due is not None
    scheduler.run_once(due)
    assert "Schedule a could not enqueue task report" in caplog.text
    assert [task.latest_log_message for task in tasks()] == [
        f"Scheduled by b for {due:%Y-%m-%d %H:%M:%S} UTC."
    ]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("cron", "61 * * * *"),
        ("cron", "@every inf"),
        ("cron", "@every 0"),
        ("timezone", "../../etc"),
        ("context", "{"),
        ("runs", 2**63 - 1),
        ("priority", 77),
        ("next_at", "garbage"),
        ("last_agent_id", "zz"),
    ],
)
@alone
def test_a_row_that_somebody_else_has_written_to_is_replaced_and_the_others_tick(
    deployment: Deployment, column: str, value: object
) -> None:
    pool = new_pool()
    for name in "abc":
        pool.add_schedule(name, "0 * * * *", task="report")
    scheduler = scheduler_of(pool)
    scheduler.run_once(utc_now())
    due = find_schedules(RUNTIME.engine)[0].next_at
    assert due is not None
    with RUNTIME.engine.begin() as connection:
        row = text(f"UPDATE agentexec_schedule SET {column} = :value WHERE name = 'a'")
        connection.execute(row, {"value": value})
    scheduler.run_once(due)
    enqueued = {str(task.latest_log_message).split()[2] for task in tasks()}
    assert enqueued - {"a"} == {"b", "c"}
    scheduler.run_once(due)
    assert [schedule.name for schedule in find_schedules(RUNTIME.engine)] == ["a", "b", "c"]
    assert "a" in call(deployment)


@on_targets("postgres", alternates=False)
def test_workers_may_declare_the_same_schedule_at_the_same_moment(deployment: Deployment) -> None:
    pools = [new_pool() for _ in range(6)]
    for pool in pools:
        pool.add_schedule("hourly", "0 * * * *", task="report")
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda pool: scheduler_of(pool).run_once(utc_now()), pools))
    assert len(find_schedules(RUNTIME.engine)) == 1


def call(deployment: Deployment, *arguments: str) -> str:
    code, printed, errors = run_in_process(deployment, "schedules", *arguments)
    assert code == 0, errors
    return printed


@everywhere
def test_operators_list_pause_resume_and_run_schedules(deployment: Deployment) -> None:
    scheduler = declared(repeat=5)
    due = next_at()
    listed = call(deployment)
    assert "hourly" in listed
    assert "0 of 5" in listed
    assert "paused" in call(deployment, "pause", "hourly")
    assert "paused" in call(deployment)
    scheduler.run_once(due)
    assert tasks() == []
    assert "its next tick is" in call(deployment, "resume", "hourly")
    assert hourly().paused_at is None
    agent_id = call(deployment, "run", "hourly").strip()
    [task] = tasks()
    assert str(task.agent_id) == agent_id
    assert (hourly().runs, task.latest_log_message) == (0, "Scheduled by hourly and started by hand.")
    assert '"name": "hourly"' in call(deployment, "--json")
    ax.queues.pause_sync(ax.CONF.queue_name, reason="deploy")
    assert "paused since" in run_in_process(deployment, "schedules")[2]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["pause"], "Name the schedule"),
        (["stop", "hourly"], "There is no action stop"),
        (["run", "daily"], "There is no schedule named daily"),
    ],
)
@alone
def test_mistakes_of_operators_are_explained(
    deployment: Deployment, arguments: list[str], complaint: str
) -> None:
    declared()
    code, _, errors = run_in_process(deployment, "schedules", *arguments)
    assert code == 2
    assert complaint in errors


@pytest.mark.parametrize(
    ("declare", "complaint"),
    [
        (lambda pool: pool.add_schedule("x", "* * * * *"), "no task named x"),
        (lambda pool: pool.add_schedule("x", "* * * *", task="report"), "not a cron expression"),
        (lambda pool: pool.add_schedule("", "* * * * *", task="report"), "name of a schedule"),
        (lambda pool: pool.add_schedule("x", "* * * * *", task="report", repeat=0), "repeat="),
        (lambda pool: pool.add_schedule("x", "* * * * *", task="report", backfill=1), "backfill="),
        (lambda pool: pool.add_schedule("x", "* * * * *", task="report", timezone="Mars"), "time zone"),
        (lambda pool: pool.add_schedule("x", "* * * * *", task="report", context={"region": []}), "region"),
        (lambda pool: pool.add_schedule("x", "0 0 30 2 *", task="report"), "not a cron expression"),
        (lambda pool: pool.add_schedule("twice", "1 * * * *", task="report"), "declared twice"),
    ],
)
@alone
def test_a_schedule_that_could_not_work_is_refused_where_it_is_declared(
    deployment: Deployment, declare: Callable[[ax.Pool], None], complaint: str
) -> None:
    pool = new_pool()
    pool.add_schedule("twice", "0 * * * *", task="report")
    with pytest.raises(ax.AgentexecError, match=complaint):
        declare(pool)


@alone
def test_a_decorator_registers_the_task_and_its_schedule(deployment: Deployment) -> None:
    pool = ax.Pool(engine=RUNTIME.engine)

    @pool.schedule("nightly", "@daily", context=Report(region="EU"), repeat=-1, metadata={"kind": "cleanup"})
    async def nightly(agent_id: UUID, context: Report) -> None: ...

    schedule = pool.registry.schedules["nightly"]
    assert (schedule.task_name, schedule.cron, schedule.repeat) == ("nightly", "0 0 * * *", None)
    assert (schedule.context, schedule.metadata) == ('{"region":"EU"}', {"kind": "cleanup"})


@alone
def test_a_schedule_is_in_the_queue_of_its_task(deployment: Deployment) -> None:
    pool = ax.Pool(engine=RUNTIME.engine)

    @pool.task("report", queue="high")
    async def report(agent_id: UUID, context: Report) -> None: ...

    @pool.task("other")
    async def other(agent_id: UUID, context: Report) -> None: ...

    pool.add_schedule("hourly", "0 * * * *", task="report")
    pool.add_schedule("others", "0 * * * *", task="other")
    hosts = [Scheduler(RUNTIME.engine, pool.registry, queue) for queue in ("low", "elsewhere")]
    for scheduler in hosts:
        scheduler.run_once(utc_now())
    due = find_schedule(RUNTIME.engine, "high", "hourly").next_at
    assert due is not None
    for scheduler in hosts:
        scheduler.run_once(due)
    assert len(tasks()) == 1, "whatever queues their workers serve"
    assert RUNTIME.backend.depth("high").ready == 1
    assert RUNTIME.backend.depth("low").ready == 1
