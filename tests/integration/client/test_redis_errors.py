"""Nothing that Redis or its client raises reaches a caller whose change is committed, and the reconciler delivers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from redis.connection import ConnectionPool
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.config import CONF
from agentexec.runtime import RUNTIME
from agentexec.worker.index_repair import IndexRepair
from tests.deployment import Deploy, Deployment, on_targets
from tests.waiting import wait_until


def every_error() -> list[Exception]:
    """Return an error of each class of the client, and some that it never should raise."""
    kinds = [
        kind
        for _, kind in inspect.getmembers(redis.exceptions, inspect.isclass)
        if issubclass(kind, Exception)
    ]
    others = [OSError, TimeoutError, RuntimeError, UnicodeError, AttributeError, TypeError, RecursionError]
    replies = [
        "MISCONF Errors writing to the AOF file", "NOREPLICAS Not enough good replicas to write.", "ERR unknown command 'EVALSHA'",
        "ERR DB index is out of range", "BUSY Redis is busy running a script", "UNKNOWN reply", "",
    ]  # fmt: skip
    errors = [make(kind) for kind in [*kinds, *others]]
    return [*errors, *map(redis.ResponseError, replies), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")]


def make(kind: type[Exception]) -> Exception:
    try:
        return kind("1234 127.0.0.1:6379")
    except TypeError:
        return kind()


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    return deploy()


class Failing:
    """Switch that makes every use of Redis raise an error."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.raised = 0

    def strike(self) -> None:
        if self.error is not None:
            self.raised += 1
            raise self.error


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    failing = Failing()
    real = ConnectionPool.get_connection

    def get_connection(pool: ConnectionPool, *args: Any, **options: Any) -> Any:
        failing.strike()
        return real(pool, *args, **options)

    monkeypatch.setattr(ConnectionPool, "get_connection", get_connection)
    yield failing
    failing.error = None


def enqueue_async() -> list[ax.Task]:
    return [asyncio.run(ax.enqueue("work"))]


def enqueue_many_async() -> list[ax.Task]:
    return asyncio.run(ax.enqueue_many("work", [None, None]))


def enqueue_in_session() -> list[ax.Task]:
    with Session(RUNTIME.engine) as session:
        task = ax.enqueue_sync("work", session=session)
        session.commit()
    return [task]


def enqueue_in_async_session() -> list[ax.Task]:
    async def enqueue() -> ax.Task:
        engine = create_async_engine(RUNTIME.engine.url.set(drivername="sqlite+aiosqlite"))
        async with AsyncSession(engine) as session:
            task = await ax.enqueue("work", session=session)
            await session.commit()
        await engine.dispose()
        return task

    return [asyncio.run(enqueue())]


def enqueue_with_key() -> list[ax.Task]:
    """Enqueue twice under one key: a caller who repeats a call must get the same task."""
    key = str(uuid4())
    first, second = (ax.enqueue_sync("work", idempotency_key=key) for _ in range(2))
    assert first == second
    return [first]


ENQUEUES: dict[str, Callable[[], list[ax.Task]]] = {
    "async": enqueue_async,
    "sync": lambda: [ax.enqueue_sync("work")],
    "many async": enqueue_many_async,
    "many sync": lambda: ax.enqueue_many_sync("work", [None, None]),
    "session": enqueue_in_session,
    "async session": enqueue_in_async_session,
    "key": enqueue_with_key,
}


OTHER_FORMS = [form for form in ENQUEUES if form not in ("async", "session")]


@pytest.mark.parametrize(
    "form", ["async", "session", *(pytest.param(form, marks=pytest.mark.thorough) for form in OTHER_FORMS)]
)
@on_targets("valkey+sqlite")
def test_enqueue_returns_whatever_redis_raises_and_the_reconciler_delivers(
    deployment: Deployment, failing: Failing, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    tasks: list[ax.Task] = []
    for error in every_error():
        failing.error = error
        failing.raised = 0
        tasks += ENQUEUES[form]()
        wait_until(lambda: failing.raised)  # a session's tasks are pushed in a thread
    failing.error = None
    assert all(deployment.status(task) == "queued" for task in tasks)
    assert deployment.depth() == 0
    repair = IndexRepair(RUNTIME, CONF)
    repair.rebuild_if_emptied()
    assert deployment.depth() == len(tasks)


@pytest.mark.thorough
@on_targets("valkey+sqlite")
def test_cancel_retry_and_events_return_whatever_redis_raises(
    deployment: Deployment, failing: Failing
) -> None:
    for error in every_error():
        failing.error = None
        first, second = ax.enqueue_many_sync("work", [None, None])
        failing.error = error
        assert ax.cancel_sync(first)
        assert asyncio.run(ax.cancel(second))
        assert ax.retry_sync(first)
        assert asyncio.run(ax.retry(second))
        with Session(RUNTIME.engine) as session:
            assert ax.activity.cancel_pending(session) == 2
        assert ax.send_event_sync("nobody-waits") == 0


@on_targets("valkey+sqlite")
def test_thousands_of_failures_are_told_once(
    deployment: Deployment, failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (redis.exceptions.MovedError("1 host:1"), UnicodeError("bug")):
        caplog.clear()
        failing.error = error
        for _ in range(50):
            ax.enqueue_sync("work")
        assert caplog.text.count("will be pushed when it is back") == 1
        assert caplog.text.count("Traceback") <= 1
