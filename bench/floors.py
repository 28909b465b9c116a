"""Floors: speed of the database and of Redis alone, on this machine, through the libraries that agentexec uses."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any, Self
from uuid import UUID, uuid4

import redis
import redis.asyncio
from sqlalchemy import Column, MetaData, Table, event, insert

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.runtime import RUNTIME
from agentexec.task import Status, new_agent_id
from bench.figures import Figure, Size, interleave, percentiles

SQL_ONE = "sql: insert and commit one row"
SQL_SAME = "sql: the statements of an enqueue, by the driver alone"
SQL_BATCH = "sql: insert 500 rows a commit"
REDIS_POP = "redis-py asyncio: pop"
REDIS_WAKE = "redis-py: push wakes another process"

BATCH = 500
KEY = "bench:floor"
PAYLOAD = (
    b'{"task_name": "noop", "agent_id": "5c1d9f60-6ac5-4b9e-9f4f-0b7f3e6f2a10", "context": {"number": 1}}'
)

ROUND_TRIPS = 100


class SqlFloor:
    """Floors of the database: rows like an activity's go into a table with no index but its key.

    The table exists during a `with` block.
    """

    def __init__(self, size: Size) -> None:
        self._size = size
        activity: Any = Activity.__table__
        columns = [
            Column(c.name, c.type, primary_key=c.primary_key, nullable=c.nullable) for c in activity.columns
        ]
        self._table = Table("bench_floor", MetaData(), *columns)
        self._insert = insert(self._table)

    def __enter__(self) -> Self:
        self._table.create(RUNTIME.engine)
        # One connection for all rows: no pings, and no pool.
        self._connection = RUNTIME.engine.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._table.drop(RUNTIME.engine)

    def one_by_one(self) -> int:
        """Insert rows with a commit for each."""
        for _ in range(self._size.enqueues):
            with self._connection.begin():
                self._connection.execute(self._insert, _row())
        return self._size.enqueues

    def same_statements(self) -> int:
        """Send the statements of an enqueue by the driver alone, with a commit for each task."""
        statements, agent_id = _statements_of_an_enqueue()
        raw: Any = self._connection.connection.dbapi_connection
        cursor = raw.cursor()
        for _ in range(self._size.enqueues):
            fresh = new_agent_id()
            swap = {agent_id: fresh, agent_id.hex: fresh.hex}
            for statement, parameters in statements:
                cursor.execute(statement, _swapped(parameters, swap))
            raw.commit()
        return self._size.enqueues

    def in_batches(self) -> int:
        """Insert rows with a commit for each `BATCH` of them."""
        for _ in range(0, self._size.many, BATCH):
            rows = [_row() for _ in range(BATCH)]
            with self._connection.begin():
                self._connection.execute(self._insert, rows)
        return self._size.many


def _statements_of_an_enqueue() -> tuple[list[tuple[str, Any]], UUID]:
    """Return the statements of one enqueue with their parameters, and the id of its task."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith(("INSERT", "WITH")):
            sent.append((statement, parameters))

    event.listen(RUNTIME.engine, "before_cursor_execute", note)
    try:
        task = ax.enqueue_sync("noop", {"number": 1})
    finally:
        event.remove(RUNTIME.engine, "before_cursor_execute", note)
    return sent, task.agent_id


def _swapped(parameters: Any, swap: dict[Any, Any]) -> Any:
    def swapped(value: Any) -> Any:
        return swap.get(value, value) if isinstance(value, UUID | str) else value

    if isinstance(parameters, dict):
        return {name: swapped(value) for name, value in parameters.items()}
    return [swapped(value) for value in parameters]


def sql(size: Size) -> Iterator[Figure]:
    """Yield the floors of the database, for runs in which `enqueue` does not measure them."""
    with SqlFloor(size) as floor:
        yield from interleave(
            "rows/s", {SQL_ONE: floor.one_by_one, SQL_BATCH: floor.in_batches}, rounds=size.rounds
        )


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
        "crashes_in_row": 0,
        "context": '{"number": 1}',
    }


def redis_py(url: str, size: Size) -> Iterator[Figure]:
    """Yield the floors of Redis: a bare loop of pushes, one of as many pops, and the wake-up of a blocked reader."""
    client = redis.Redis.from_url(url)
    number = size.redis
    work: dict[str, Callable[[], int]] = {}
    for name, command in (("push", ("RPUSH", KEY, PAYLOAD)), ("pop", ("LPOP", KEY))):

        def call(command: tuple[Any, ...] = command) -> int:
            for _ in range(number):
                client.execute_command(*command)
            return number

        def call_async(command: tuple[Any, ...] = command) -> int:
            return asyncio.run(_async_calls(url, command, number))

        def pipelined(command: tuple[Any, ...] = command) -> int:
            for _ in range(0, number, BATCH):
                pipeline = client.pipeline(transaction=False)
                for _ in range(BATCH):
                    pipeline.execute_command(*command)
                pipeline.execute()
            return number

        work[f"redis-py: {name}"] = call
        work[f"redis-py asyncio: {name}"] = call_async
        work[f"redis-py: {name}, {BATCH} a pipeline"] = pipelined
    try:
        yield from interleave("calls/s", work, rounds=size.rounds)
    finally:
        client.delete(KEY)
        client.close()
    yield from percentiles(REDIS_WAKE, _wake_ups(url))


async def _async_calls(url: str, command: tuple[Any, ...], number: int) -> int:
    async with redis.asyncio.Redis.from_url(url) as client:
        for _ in range(number):
            await client.execute_command(*command)
    return number


def _wake_ups(url: str) -> list[float]:
    """Return the milliseconds from just before a push until a process that blocks on the list has the element."""
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
                time.sleep(0.01)  # until the reader blocks again
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
