"""Accepting tasks: the promises of `enqueue` before any worker has seen the task."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, on_targets
from tests.servers import free_port
from tests.waiting import wait_until

everywhere = on_targets("embedded", "postgres", "valkey+sqlite", "valkey+postgres")
"""The queue within the record's transactions (SQLite, PostgreSQL), and beside them (Redis)."""


class Research(BaseModel):
    company: str
    depth: int = 1


@pytest.fixture
def pool() -> ax.Pool:
    """Return a pool with a task whose context type this process knows."""
    pool = ax.Pool()

    @pool.task("research")
    async def research(agent_id: UUID, context: Research) -> str:
        return context.company

    return pool


def claimable(queue: str | None = None) -> list[UUID]:
    """Claim all tasks that are ready, in the order in which workers would."""
    claimed = RUNTIME.backend.claim(
        queue or ax.CONF.queue_name, "test", limit=100, low_quota=0, lease_seconds=30
    )
    return [lease.agent_id for lease in claimed.leases]


def activities() -> int:
    with Session(RUNTIME.engine) as db:
        return ax.activity.list(db).total


def context_of(task: ax.Task) -> str | None:
    with RUNTIME.engine.connect() as connection:
        query = text("SELECT context FROM agentexec_activity WHERE agent_type = :name")
        return connection.execute(query, {"name": task.task_name}).scalar()


# ---- what is accepted --------------------------------------------------------------------------------------


@everywhere
async def test_an_accepted_task_is_in_the_record_and_in_the_queue(deploy: Deploy) -> None:
    deployment = deploy()
    task = await ax.enqueue("anything", {"company": "Acme"}, metadata={"tenant": "t1"})
    detail = deployment.detail(task)
    assert (detail.agent_type, detail.status, detail.percentage, detail.attempt) == (
        "anything",
        "queued",
        0,
        0,
    )
    assert [(line.status, line.message, line.percentage) for line in detail.logs] == [
        ("queued", "Waiting to start.", 0)
    ]
    assert detail.metadata == {"tenant": "t1"}
    assert claimable() == [task.agent_id]


@everywhere
async def test_high_goes_to_the_front_and_each_priority_is_first_in_first_out(deploy: Deploy) -> None:
    deploy()
    low = [await ax.enqueue("work") for _ in range(2)]
    high = [await ax.enqueue("work", priority=ax.Priority.HIGH) for _ in range(2)]
    low.append(await ax.enqueue("work", priority=ax.Priority.LOW))
    assert claimable() == [task.agent_id for task in (*high, *low)]


@everywhere
async def test_a_delayed_task_may_start_when_its_time_has_come(deploy: Deploy) -> None:
    deployment = deploy()
    soon = await ax.enqueue("work", delay=2)
    later = await ax.enqueue("work", delay=timedelta(hours=1))
    at = await ax.enqueue("work", eta=datetime.now(UTC) + timedelta(hours=2))
    past = await ax.enqueue("work", eta=datetime.now(UTC) - timedelta(hours=2))
    negative = await ax.enqueue("work", delay=-1)
    assert sorted(claimable()) == sorted([past.agent_id, negative.agent_id])
    assert wait_until(claimable) == [soon.agent_id]
    assert [deployment.status(task) for task in (later, at)] == ["queued", "queued"]
    assert RUNTIME.backend.depth(ax.CONF.queue_name).delayed == 2


@everywhere
async def test_a_task_goes_to_the_queue_that_is_named(deploy: Deploy) -> None:
    deploy()
    task = await ax.enqueue("work", queue_name="reports")
    assert task.queue_name == "reports"
    assert claimable() == []
    assert claimable("reports") == [task.agent_id]


@everywhere
async def test_many_tasks_are_accepted_in_order(deploy: Deploy) -> None:
    deploy()
    tasks = await ax.enqueue_many("work", [{"number": number} for number in range(1_100)])
    assert len({task.agent_id for task in tasks}) == 1_100
    claimed = [agent_id for _ in range(11) for agent_id in claimable()]
    assert claimed == [task.agent_id for task in tasks]
    assert await ax.enqueue_many("work", []) == []


@on_targets("embedded")
async def test_many_tasks_are_refused_together_if_one_is_bad(deploy: Deploy, pool: ax.Pool) -> None:
    deploy()
    with pytest.raises(ax.ContextInvalidError, match="company"):
        await ax.enqueue_many("research", [{"company": "Acme"}, {}])
    assert activities() == 0


@on_targets("embedded")
def test_code_without_an_event_loop_enqueues_too(deploy: Deploy) -> None:
    deploy()
    task = ax.enqueue_sync("work", {"company": "Acme"}, priority=ax.Priority.HIGH)
    assert claimable() == [task.agent_id]


# ---- contexts ----------------------------------------------------------------------------------------------


@on_targets("embedded")
async def test_the_task_need_not_be_registered_where_it_is_enqueued(deploy: Deploy) -> None:
    deploy()
    task = await ax.enqueue("known_elsewhere", Research(company="Acme"))
    assert context_of(task) == '{"company":"Acme","depth":1}'


@on_targets("embedded")
async def test_the_context_of_a_registered_task_is_validated_immediately(
    deploy: Deploy, pool: ax.Pool
) -> None:
    deploy()
    with pytest.raises(ax.ContextInvalidError, match=r"research is not valid: company: Field required\."):
        await ax.enqueue("research", {"firm": "Acme"})
    with pytest.raises(ax.ContextInvalidError, match="depth"):
        await ax.enqueue("research", {"company": "Acme", "depth": "deep"})
    with pytest.raises(ax.ContextInvalidError, match="company"):
        await ax.enqueue("research")
    assert activities() == 0


@on_targets("embedded")
async def test_another_model_with_the_same_fields_is_accepted(deploy: Deploy, pool: ax.Pool) -> None:
    class SlimResearch(BaseModel):
        company: str

    deploy()
    task = await ax.enqueue("research", SlimResearch(company="Acme"))
    assert context_of(task) == '{"company":"Acme","depth":1}'


@on_targets("embedded")
async def test_a_context_may_contain_ids_times_and_models(deploy: Deploy) -> None:
    deploy()
    agent_id = uuid4()
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    task = await ax.enqueue("work", {"id": agent_id, "at": moment, "of": Research(company="Acme")})
    assert context_of(task) == (
        f'{{"id": "{agent_id}", "at": "2026-01-02T00:00:00+00:00", "of": {{"company": "Acme", "depth": 1}}}}'
    )


@pytest.mark.parametrize(
    "context",
    [["a", "list"], {"value": object()}, {"value": float("nan")}, "text", 5],
    ids=["list", "object", "nan", "text", "number"],
)
@on_targets("embedded")
async def test_a_context_that_is_not_a_json_object_is_refused(deploy: Deploy, context: Any) -> None:
    deploy()
    with pytest.raises(ax.UsageError, match="context of task work"):
        await ax.enqueue("work", context)
    assert activities() == 0


@everywhere
async def test_text_of_every_kind_is_stored_unchanged(deploy: Deploy) -> None:
    deploy()
    task = await ax.enqueue(
        "work", {"text": "Zoë 研究 🚀 \u0000 ' \" \\"}, metadata={"tenant": "Zoë 研究 🚀"}
    )
    assert claimable() == [task.agent_id]
    with Session(RUNTIME.engine) as db:
        assert ax.activity.list(db, metadata_filter={"tenant": "Zoë 研究 🚀"}).total == 1


@on_targets("embedded")
async def test_a_payload_above_the_limit_is_refused(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy()
    monkeypatch.setattr(ax.CONF, "max_payload_bytes", 1024)
    overhead = len('{"text": ""}')
    await ax.enqueue("work", {"text": "x" * (1024 - overhead)})
    with pytest.raises(ax.PayloadTooLargeError, match="AGENTEXEC_MAX_PAYLOAD_BYTES=1024"):
        await ax.enqueue("work", {"text": "x" * (1025 - overhead)})
    with pytest.raises(ax.PayloadTooLargeError, match="1032 bytes"):
        await ax.enqueue("work", Research(company="研" * 336))
    with pytest.raises(ax.PayloadTooLargeError, match="metadata"):
        await ax.enqueue("work", metadata={"text": "x" * 1024})
    assert activities() == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"task_name": ""}, "task_name= must not be empty"),
        ({"task_name": "x" * 201}, "task_name= has at most 200 characters"),
        ({"queue_name": "x" * 101}, "queue_name= has at most 100 characters"),
        ({"idempotency_key": "x" * 201}, "idempotency_key= has at most 200 characters"),
        ({"eta": datetime(2030, 1, 1)}, "time zone"),
        ({"eta": datetime(2030, 1, 1, tzinfo=UTC), "delay": 1}, "not both"),
        ({"metadata": {"text": "a\0b"}}, "NUL"),
        ({"metadata": {"value": object()}}, "metadata= cannot be written as JSON"),
        ({"metadata": ["tenant"]}, "metadata= must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@on_targets("embedded")
async def test_invalid_arguments_are_refused(
    deploy: Deploy, arguments: dict[str, Any], complaint: str
) -> None:
    deploy()
    with pytest.raises(ax.UsageError, match=complaint):
        await ax.enqueue(**{"task_name": "work", **arguments})
    assert activities() == 0


# ---- idempotency -------------------------------------------------------------------------------------------


@everywhere
async def test_a_second_enqueue_with_the_same_key_returns_the_first_task(deploy: Deploy) -> None:
    deploy()
    first = await ax.enqueue("work", {"number": 1}, idempotency_key="order-1")
    second = await ax.enqueue("work", {"number": 2}, idempotency_key="order-1")
    other = await ax.enqueue("work", idempotency_key="order-2")
    assert second == first
    assert claimable() == [first.agent_id, other.agent_id]


@everywhere
def test_only_one_of_many_concurrent_enqueues_with_the_same_key_adds_a_task(deploy: Deploy) -> None:
    deploy()
    together = threading.Barrier(8)

    def one(_number: int) -> ax.Task:
        together.wait()
        return ax.enqueue_sync("work", idempotency_key="order-1")

    with ThreadPoolExecutor(8) as threads:
        tasks = list(threads.map(one, range(8)))
    assert len({task.agent_id for task in tasks}) == 1
    assert claimable() == [tasks[0].agent_id]


@everywhere
@pytest.mark.parametrize("how", ["alone", "in a session"])
async def test_a_task_that_failed_or_was_canceled_frees_its_key(deploy: Deploy, how: str) -> None:
    deploy()

    async def enqueue(**options: Any) -> ax.Task:
        if how == "alone":
            return await ax.enqueue("work", idempotency_key="order-1", **options)
        with Session(RUNTIME.engine) as db:
            task = await ax.enqueue("work", idempotency_key="order-1", session=db, **options)
            db.commit()
            return task

    first = await enqueue()
    assert await ax.cancel(first)
    assert await enqueue(keep_key=True) == first
    second = await enqueue()
    assert second != first
    assert await enqueue() == second, "the new task has the key"
    ax.activity.error(second.agent_id, "It failed.")
    third = await enqueue()
    assert third not in (first, second)
    ax.activity.complete(third.agent_id)
    assert await enqueue() == third, "a task that has done its work keeps the key"


@everywhere
def test_one_of_many_concurrent_enqueues_takes_over_a_free_key(deploy: Deploy) -> None:
    deploy()
    first = ax.enqueue_sync("work", idempotency_key="order-1")
    ax.cancel_sync(first)
    together = threading.Barrier(8)

    def one(_number: int) -> ax.Task:
        together.wait()
        return ax.enqueue_sync("work", idempotency_key="order-1")

    with ThreadPoolExecutor(8) as threads:
        tasks = {task.agent_id for task in threads.map(one, range(8))}
    assert len(tasks) == 1
    assert first.agent_id not in tasks
    assert claimable() == list(tasks)


# ---- within the caller's own transaction -------------------------------------------------------------------


@everywhere
async def test_a_task_of_a_session_exists_once_the_session_commits(deploy: Deploy) -> None:
    deploy()
    with Session(RUNTIME.engine) as db:
        tasks = [await ax.enqueue("work", session=db) for _ in range(2)]
        assert ax.activity.active_count(db) == 2, "the session sees its own"
        db.commit()
    got: list[UUID] = []
    wait_until(lambda: got.extend(claimable()) or len(got) >= 2)
    assert got == [task.agent_id for task in tasks]


@everywhere
async def test_a_task_of_a_session_vanishes_with_its_rollback_and_the_session_goes_on(deploy: Deploy) -> None:
    deploy()
    with Session(RUNTIME.engine) as db:
        await ax.enqueue("work", session=db)
        db.rollback()
        assert ax.activity.active_count(db) == 0
        kept = await ax.enqueue("work", session=db)
        db.commit()
        db.commit()
    assert wait_until(claimable) == [kept.agent_id]
    assert activities() == 1
    assert sum(RUNTIME.backend.depth(ax.CONF.queue_name)) == 1


@everywhere
async def test_a_task_of_a_savepoint_is_kept_or_dropped_with_it(deploy: Deploy) -> None:
    deployment = deploy()
    with Session(RUNTIME.engine) as db:
        with db.begin_nested():
            kept = await ax.enqueue("work", session=db)
        nested = db.begin_nested()
        dropped = await ax.enqueue("work", session=db)
        nested.rollback()
        late = await ax.enqueue("work", session=db)
        db.commit()
    wait_until(lambda: RUNTIME.backend.depth(ax.CONF.queue_name).ready >= 2)
    assert deployment.status(kept) == deployment.status(late) == "queued"
    with pytest.raises(ax.ActivityNotFoundError):
        deployment.detail(dropped)
    assert [agent_id for agent_id in claimable() if agent_id != dropped.agent_id] == [
        kept.agent_id,
        late.agent_id,
    ]


@on_targets("valkey+sqlite", "valkey+postgres")
async def test_nothing_is_pushed_before_the_session_commits(deploy: Deploy) -> None:
    deployment = deploy()
    with Session(RUNTIME.engine) as db:
        with db.begin_nested():
            await ax.enqueue("work", session=db)
        db.flush()
        assert deployment.depth() == 0
        db.commit()
    wait_until(lambda: deployment.depth() == 1)


@on_targets("embedded", "valkey+postgres")
async def test_a_session_on_the_applications_engine_is_accepted(deploy: Deploy) -> None:
    deploy()
    engine = create_engine(RUNTIME.engine.url)
    with Session(engine) as db, db.begin():
        task = await ax.enqueue("work", session=db)
    assert wait_until(claimable) == [task.agent_id]
    engine.dispose()


@on_targets("embedded", "postgres", "valkey+sqlite", "valkey+postgres", alternates=False)
async def test_an_async_session_is_accepted(deploy: Deploy) -> None:
    deployment = deploy()
    engine = create_async_engine(str(RUNTIME.engine.url).replace("sqlite:", "sqlite+aiosqlite:"))
    async with AsyncSession(engine) as db:
        await ax.enqueue("work", session=db)
        await db.rollback()
        async with db.begin():
            kept = await ax.enqueue("work", session=db, idempotency_key="order-1")
        async with db.begin():
            assert await ax.enqueue("work", session=db, idempotency_key="order-1") == kept
    assert wait_until(claimable) == [kept.agent_id]
    assert deployment.depth() == 1
    await engine.dispose()


@on_targets("embedded")
async def test_a_scoped_session_is_accepted_and_other_sessions_of_its_factory_are_left_alone(
    deploy: Deploy,
) -> None:
    deploy()
    factory = sessionmaker(RUNTIME.engine)
    scoped = scoped_session(factory)
    tasks = [ax.enqueue_sync("work", session=scoped), await ax.enqueue("work", session=scoped)]
    scoped.commit()
    scoped.remove()
    got: list[UUID] = []
    wait_until(lambda: got.extend(claimable()) or len(got) >= 2)
    assert got == [task.agent_id for task in tasks]
    with factory() as other:
        other.execute(text("SELECT 1"))
        other.commit()


@everywhere
async def test_a_key_that_was_taken_while_the_session_was_open_returns_that_task(deploy: Deploy) -> None:
    deploy()
    first = await ax.enqueue("work", idempotency_key="order-1")
    with Session(RUNTIME.engine) as db:
        assert await ax.enqueue("work", session=db, idempotency_key="order-1") == first
        db.commit()
    assert claimable() == [first.agent_id]


# ---- servers away ------------------------------------------------------------------------------------------


@on_targets("valkey+sqlite")
async def test_a_task_is_accepted_while_redis_is_away(
    deploy: Deploy, caplog: pytest.LogCaptureFixture
) -> None:
    deployment = deploy()
    deployment.broker.kill()
    task = await ax.enqueue("work")
    assert deployment.status(task) == "queued"
    assert "1 accepted task(s) will be pushed when it is back" in caplog.text


@on_targets("valkey+sqlite")
async def test_an_unreachable_database_is_named_without_its_password(deploy: Deploy) -> None:
    deploy()
    ax.configure(database_url=f"postgresql://someone:hunter2@127.0.0.1:{free_port()}/app")
    with pytest.raises(ax.UnavailableError, match=r"someone:\*\*\*@127\.0\.0\.1") as refusal:
        await ax.enqueue("work")
    assert "hunter2" not in str(refusal.value)
