"""`agentexec queues`, and what the other commands tell about queues and pauses."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import agentexec as ax
from agentexec.activity.models import Activity, QueuePause, WorkerProcess
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.runtime import RUNTIME
from agentexec.state.messages import QUEUES
from agentexec.task import Status
from tests.deployment import Deploy, Deployment, on_targets, run_agentexec, run_in_process

Cli = Any


@pytest.fixture
def queues(deploy: Deploy) -> Generator[Deployment]:
    """Deployment without worker processes."""
    yield deploy()


def enqueue(queue: str, number: int = 1, **options: Any) -> list[ax.Task]:
    return [ax.enqueue_sync("work", {}, queue_name=queue, **options) for _ in range(number)]


def change(task: ax.Task, **values: Any) -> None:
    with writing(RUNTIME.engine) as connection:
        connection.execute(update(Activity).where(Activity.agent_id == task.agent_id).values(**values))


def add_worker(worker_id: str, queue: str, queues: str | None = None, ago: float = 0.0) -> None:
    now = utc_now() - timedelta(seconds=ago)
    row = {"worker_id": worker_id, "queue": queue, "queues": queues, "started_at": now, "seen_at": now}
    rest = {"host": "h", "pid": 1, "concurrency": 1, "running": 0, "draining": False, "cpu_percent": 0.0}
    with writing(RUNTIME.engine) as connection:
        connection.execute(insert(WorkerProcess).values(rss_bytes=1, **row, **rest))


def listed(deployment: Deployment) -> dict[str, dict[str, Any]]:
    code, out, _ = run_in_process(deployment, "queues", "--json")
    assert code == 0
    return {queue["name"]: queue for queue in json.loads(out)}


@on_targets("embedded", "postgres")
def test_queues_are_listed_with_what_they_hold_and_who_serves_them(queues: Deployment) -> None:
    ready, older, running, ended, failed = enqueue("high", 5)
    enqueue("high", 2, delay=600)
    enqueue("low", 1)
    change(older, created_at=utc_now() - timedelta(seconds=100))
    change(running, status=Status.RUNNING, created_at=utc_now() - timedelta(seconds=999))
    for task, status in ((ended, Status.COMPLETE), (failed, Status.ERROR)):
        change(task, status=status, finished_at=utc_now())
    change(ready, run_at=utc_now() - timedelta(seconds=200))
    add_worker("w1", "high", '["high", "other"]')
    add_worker("w2", "high", ago=60)
    found = listed(queues)
    assert set(found) == {"agentexec_tasks", "high", "low", "other"}
    high = found["high"]
    assert (high["ready"], high["delayed"], high["running"], high["workers"]) == (2, 2, 1, 1)
    assert 200 <= high["oldest_age"] < 260
    assert high["ended_per_minute"] == 0.4
    assert (found["other"]["workers"], found["other"]["oldest_age"]) == (1, None)
    _, out, _ = run_in_process(queues, "queues")
    [low] = [line for line in out.splitlines() if line.startswith("low")]
    assert low.endswith("no worker serves it")


@on_targets("embedded", "postgres")
def test_a_pause_is_recorded_with_who_made_it_and_told_everywhere(queues: Deployment) -> None:
    add_worker("w1", "other", '["other", "high"]')
    add_worker("w2", "low")
    [task] = enqueue("high")
    _, out, err = run_in_process(queues, "queues", "pause", "high", "--reason", "bad\x1b[31m deploy")
    assert out.startswith("Queue high is paused.") and err == ""
    assert RUNTIME.backend.receive("w1", 1) == [QUEUES]
    assert RUNTIME.backend.receive("w2", 0) == [], "it does not serve the queue"
    pause = listed(queues)["high"]["pause"]
    assert (pause["reason"], "@" in pause["paused_by"]) == ("bad\x1b[31m deploy", True)
    assert "paused before" in run_in_process(queues, "queues", "pause", "high")[1]
    assert listed(queues)["high"]["pause"] == pause, "the first pause stays"
    told = [
        run_in_process(queues, "queues")[1],
        run_in_process(queues, "list")[2],
        run_in_process(queues, "show", str(task.agent_id))[1],
        run_in_process(queues, "doctor")[1],
    ]
    for text_ in told:
        assert "paused since" in text_ and "deploy" in text_ and "\x1b" not in text_, text_
    shown = json.loads(run_in_process(queues, "show", str(task.agent_id), "--json")[1])
    assert shown["queue_pause"]["paused_by"] == pause["paused_by"]
    assert run_in_process(queues, "queues", "resume", "high")[1] == "Queue high is resumed.\n"
    assert RUNTIME.backend.receive("w1", 1) == [QUEUES] * 2, "of the second pause, and of the end"
    assert listed(queues)["high"]["pause"] is None
    assert run_in_process(queues, "queues", "resume", "high")[1] == "Queue high was not paused.\n"
    assert "paused" not in run_in_process(queues, "list")[2]


@on_targets("embedded")
def test_a_name_that_nobody_knows_is_paused_with_a_warning(queues: Deployment) -> None:
    code, _, err = run_in_process(queues, "queues", "pause", "hihg")
    assert (code, "is this its name?" in err) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["stop", "high"], "There is no action stop"),
        (["pause"], "Name the queue"),
        (["pause", "x" * 101], "at most 100 characters"),
        (["pause", ""], "NAME must not be empty"),
        (["resume", "high", "--reason", "why"], "--reason belongs to"),
    ],
)
@on_targets("embedded")
def test_bad_arguments_are_explained(queues: Deployment, arguments: list[str], complaint: str) -> None:
    code, _, err = run_in_process(queues, "queues", *arguments)
    assert (code, complaint in err) == (2, True)


@on_targets("embedded")
def test_rows_that_somebody_else_wrote_stop_no_listing_of_workers(queues: Deployment) -> None:
    add_worker("w1", "high", "[" * 10_000)
    add_worker("w2", "high", '{"a": 1}')
    assert listed(queues)["high"]["workers"] == 2
    assert ax.queues.pause_sync("high")
    with writing(RUNTIME.engine) as connection:
        connection.execute(text(f"UPDATE {QueuePause.__tablename__} SET reason = 'x', paused_by = ''"))
    assert listed(queues)["high"]["pause"]["paused_by"] == ""


@on_targets("embedded", alternates=False)
async def test_a_program_pauses_and_lists_queues_without_blocking_its_loop(queues: Deployment) -> None:
    assert await ax.queues.pause("high", reason="r", by="breaker")
    assert not await ax.queues.pause("high")
    engine = create_async_engine(str(RUNTIME.engine.url).replace("sqlite://", "sqlite+aiosqlite://"))
    async with AsyncSession(engine) as db:
        [high] = [queue for queue in await ax.queues.list(db) if queue.name == "high"]
    await engine.dispose()
    assert high.pause is not None
    assert high.pause.paused_by == "breaker"
    assert await ax.queues.resume("high")
    assert not await ax.queues.resume("high")
    for bad in ({"queue": 3}, {"queue": "high", "by": ""}, {"queue": "high", "reason": 5}):
        with pytest.raises(ax.UsageError):
            await ax.queues.pause(**bad)


@on_targets("embedded")
def test_the_queue_of_a_task_is_its_definitions_unless_the_call_names_one(queues: Deployment) -> None:
    pool, plain = ax.Pool(queue_name="pools"), ax.Pool()

    @pool.task("urgent", queue="high")
    async def urgent(agent_id: Any, context: dict[str, str]) -> None: ...

    @pool.task("usual")
    async def usual(agent_id: Any, context: dict[str, str]) -> None: ...

    @plain.task("own", queue="own")
    async def own(agent_id: Any, context: dict[str, str]) -> None: ...

    queues_of = {name: ax.enqueue_sync(name, {}).queue_name for name in ("urgent", "usual", "own", "foreign")}
    assert queues_of == {"urgent": "high", "usual": "pools", "own": "own", "foreign": "agentexec_tasks"}
    assert ax.enqueue_sync("urgent", {}, queue_name="night").queue_name == "night"
    with pytest.raises(ax.UsageError, match="Task bad: queue"):
        pool.add_task("bad", usual, queue="")


@on_targets("embedded")
def test_the_worker_refuses_queues_that_cannot_be_read(queues: Deployment) -> None:
    done = run_agentexec("worker", "x.py", "-Q", "high:3,low", cwd=queues.folder)
    assert done.returncode == 2
    assert "gives low no weight" in done.stderr
    done = run_agentexec(
        "worker", "x.py", cwd=queues.folder, AGENTEXEC_QUEUES="high,high", PATH=os.environ["PATH"]
    )
    assert done.returncode == 2
    assert "AGENTEXEC_QUEUES cannot be used: queues names high twice." in done.stderr
