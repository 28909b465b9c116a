"""Floors: what the database and Redis alone can do here and now, through the libraries that agentexec uses."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any
from uuid import uuid4

import redis
import redis.asyncio
from sqlalchemy import Column, MetaData, Table, insert

from agentexec.activity.models import Activity
from agentexec.runtime import RUNTIME
from agentexec.task import Status
from bench.figures import Figure, Size, per_second, spread
from bench.targets import Target

BATCH = 500
KEY = "bench:floor"
PAYLOAD = (
    b'{"task_name": "noop", "agent_id": "5c1d9f60-6ac5-4b9e-9f4f-0b7f3e6f2a10", "context": {"number": 1}}'
)

ROUND_TRIPS = 100


def measure(target: Target, size: Size) -> Iterator[Figure]:
    """Floors of a target: of its database, and of its Redis if it has one."""
    yield from _sql(size)
    if target.redis_url:
        yield from _redis(target.redis_url, size)


def _sql(size: Size) -> Iterator[Figure]:
    """Rows like an activity's, in a table with no index but its key."""
    activity: Any = Activity.__table__
    columns = [
        Column(c.name, c.type, primary_key=c.primary_key, nullable=c.nullable) for c in activity.columns
    ]
    table = Table("bench_floor", MetaData(), *columns)
    statement = insert(table)
    engine = RUNTIME.engine
    table.create(engine)
    try:
        # One connection for all: no look whether it still lives, no way through the pool.
        with engine.connect() as connection:

            def one_by_one() -> int:
                for _ in range(size.enqueues):
                    with connection.begin():
                        connection.execute(statement, _row())
                return size.enqueues

            def in_batches() -> int:
                for _ in range(0, size.many, BATCH):
                    rows = [_row() for _ in range(BATCH)]
                    with connection.begin():
                        connection.execute(statement, rows)
                return size.many

            yield per_second("sql: insert and commit one row", "rows/s", one_by_one, size.rounds)
            yield per_second(f"sql: insert {BATCH} rows a commit", "rows/s", in_batches, size.rounds)
    finally:
        table.drop(engine)


def _row() -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "agent_id": uuid4(),
        "agent_type": "noop",
        "status": Status.QUEUED,
        "percentage": 0,
        "message": "Waiting to start.",
        "created_at": now,
        "updated_at": now,
        "queue": "agentexec_tasks",
        "priority": 1,
        "epoch": 0,
        "attempt": 0,
        "crashes": 0,
        "context": '{"number": 1}',
    }


def _redis(url: str, size: Size) -> Iterator[Figure]:
    client = redis.Redis.from_url(url)
    number = size.redis
    try:
        for name, step in (
            ("push", lambda: client.rpush(KEY, PAYLOAD)),
            ("pop", lambda: client.lpop(KEY)),
        ):
            yield per_second(f"redis-py: {name}", "calls/s", _repeated(step, number), size.rounds)
            # What the rounds of a push have left behind is what the rounds of a pop take.
        for name, command in (("push", ("RPUSH", KEY, PAYLOAD)), ("pop", ("LPOP", KEY))):

            def call(command: tuple[Any, ...] = command) -> int:
                return asyncio.run(_async_calls(url, command, number))

            def pipelined(command: tuple[Any, ...] = command) -> int:
                for _ in range(0, number, BATCH):
                    pipeline = client.pipeline(transaction=False)
                    for _ in range(BATCH):
                        pipeline.execute_command(*command)
                    pipeline.execute()
                return number

            yield per_second(f"redis-py asyncio: {name}", "calls/s", call, size.rounds)
            yield per_second(f"redis-py: {name}, {BATCH} a pipeline", "calls/s", pipelined, size.rounds)
    finally:
        client.delete(KEY)
        client.close()
    yield from spread("redis-py: push wakes another process", _wake_ups(url))


def _repeated(step: Callable[[], object], number: int) -> Callable[[], int]:
    def calls() -> int:
        for _ in range(number):
            step()
        return number

    return calls


async def _async_calls(url: str, command: tuple[Any, ...], number: int) -> int:
    async with redis.asyncio.Redis.from_url(url) as client:
        for _ in range(number):
            await client.execute_command(*command)
    return number


def _wake_ups(url: str) -> list[float]:
    """Milliseconds from just before a push until a process that blocks on the list has the element."""
    # Not forked: this process has threads.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_wait_on_list, args=(url, theirs), daemon=True)
    process.start()
    times: list[float] = []
    try:
        ours.recv()
        with redis.Redis.from_url(url) as client:
            for _ in range(ROUND_TRIPS):
                time.sleep(0.01)  # until it blocks again
                pushed = time.time()
                client.rpush(KEY, PAYLOAD)
                times.append((ours.recv() - pushed) * 1000)
    finally:
        process.terminate()
        process.join()
    return times


def _wait_on_list(url: str, answer: Connection) -> None:
    with redis.Redis.from_url(url) as client:
        client.ping()
        answer.send(0.0)
        while True:
            if client.blpop([KEY], timeout=60):
                answer.send(time.time())
