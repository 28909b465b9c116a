"""Command `python -m bench timeline`: where the time of a lone task goes, from `enqueue` to the value in hand.

One task at a time runs on an idle worker. Both processes note when they enter and leave the functions at which one segment ends
and the next begins, by the same monotonic clock, and a further task returns the worker's notes. The handler sleeps, so that its caller
waits for the result by then; the sleep is left out. Beside the segments are their floors, which the driver or the server
sets: one commit, one round trip of Redis, and the wake-up of a process that is blocked.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import os
import sqlite3
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import redis.connection
from pydantic import BaseModel
from sqlalchemy import Pool, event

import agentexec as ax
from agentexec.activity.changes.postgres_store import PostgresRecordStore
from agentexec.activity.changes.sqlite_store import SqliteRecordStore
from agentexec.activity.changes.store import RecordStore
from agentexec.activity.mailbox import Mailbox
from agentexec.runtime import RUNTIME
from agentexec.state.redis_backend import RedisBackend
from agentexec.state.sql_backend import SqlBackend
from agentexec.worker.admission import Admitter
from agentexec.worker.queue_claims import QueueClaims
from bench.figures import QUICK
from bench.floors import REDIS_WAKE, SQL_ONE, redis_py, sql
from bench.targets import BenchError, Target, opened
from bench.workers import Workers

TARGETS = ("embedded", "redis+sqlite", "redis+postgres", "postgres")
IN_WORKER = "BENCH_TIMELINE"
"""Environment variable that makes a worker note moments."""

WARM_TASKS = 20
NAP = 0.05
"""Seconds that the handler sleeps."""

TRIES = 3
"""Tasks run for each sample, at most."""

PAUSE = 0.05
"""Seconds between two tasks: the worker has just become idle."""

TRIP = "trip"
"""Name of the moment at which a round trip begins, or a statement or a commit of SQLite."""

ROUNDS = 300
"""Samples of a floor."""

MODULE = Path(__file__)

Mark = tuple[str, int]
"""Name of a moment, and its nanoseconds by the monotonic clock."""

SEGMENTS: tuple[tuple[str, str, str], ...] = (
    ("enqueue: checks, hop to a thread", "called", "insert>"),
    ("enqueue: statements and commit", "insert>", "insert<"),
    ("enqueue: push, wake-up call", "insert<", "accepted<"),
    ("worker: wake-up", "accepted<", "claim>"),
    ("worker: claim", "claim>", "claim<"),
    ("worker: hand-over", "claim<", "start>"),
    ("worker: start in the record", "start>", "start<"),
    ("worker: hop to the event loop", "start<", "handler>"),
    ("worker: hop to the writer", "handler<", "end>"),
    ("worker: ending in the record", "end>", "end<"),
    ("worker: acknowledge and notify", "end<", "notify<"),
    ("caller: wake-up", "notify<", "told>"),
    ("caller: read of the result", "told>", "read<"),
    ("caller: hop to the event loop", "read<", "returned"),
)
"""Name of each segment, and the moments between which it lies. A moment ends with > where a function is entered, with < where it
is left. A negative segment overlaps the next one."""

_marks: list[Mark] = []

pool = ax.Pool()


class Window(BaseModel):
    """Two moments in nanoseconds of the monotonic clock."""

    start: int = 0
    end: int = 0


@pool.task("lone")
async def lone(*, agent_id: UUID, context: Window) -> float:
    """Sleep, and note the moments around it."""
    _note("handler>")
    await asyncio.sleep(NAP)
    _note("handler<")
    return NAP


@pool.task("marks")
async def marks(*, agent_id: UUID, context: Window) -> list[Mark]:
    """Return the moments that this process noted within the window, and forget all."""
    found = [mark for mark in _marks if context.start <= mark[1] <= context.end]
    _marks.clear()
    return found


def note_moments() -> None:
    """Note the moments of this process from now on."""
    accepting = importlib.import_module("agentexec.client.enqueue")
    _wrap(accepting, "_record_and_push", "accepted")
    _wrap(RecordStore, "insert", "insert")
    _wrap(PostgresRecordStore, "insert", "insert")
    _wrap(QueueClaims, "claim", "claim")
    for store in (RecordStore, PostgresRecordStore):
        _wrap(store, "start_fresh", "start")
        _wrap(store, "record", "end")
    _wrap(SqliteRecordStore, "record", "end")
    for store in (RecordStore, SqliteRecordStore):
        _wrap(store, "admit", "start")
    _wrap(Admitter, "start_within", "start")
    for backend in (SqlBackend, RedisBackend):
        _wrap(backend, "notify_done", "notify")
    _wrap(RedisBackend, "finish_and_notify", "notify")
    _wrap(Mailbox, "_handle", "told")
    note_round_trips()
    _wrap(importlib.import_module("agentexec.activity.mailbox"), "_read_rows", "read")


def note_round_trips() -> None:
    """Note each round trip to PostgreSQL and Redis, and each statement and commit of SQLite."""
    wait = psycopg.Connection.wait
    psycopg.Connection.wait = lambda self, steps, *options, **named: wait(  # ty: ignore[invalid-assignment]
        self, _noting_steps(steps), *options, **named
    )
    _note_calls(redis.connection.AbstractConnection, "send_packed_command")
    event.listen(Pool, "connect", _note_on_sqlite)


def _note_on_sqlite(connection: Any, *_: Any) -> None:
    # By the driver: with a listener of SQLAlchemy's statements, none would take the short way that users' statements take.
    if isinstance(connection, sqlite3.Connection):
        connection.set_trace_callback(_note_statement)


def _note_statement(statement: str) -> None:
    if not statement.startswith(("BEGIN", "PRAGMA")):
        _note(TRIP)


def _noting_steps(steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Note a conversation with PostgreSQL when it first waits for the socket: some need no answer."""
    try:
        ready = yield next(steps)
        _note(TRIP)
        while True:
            ready = yield steps.send(ready)
    except StopIteration as end:
        return end.value


def _note_calls(owner: Any, name: str) -> None:
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def noting(*arguments: Any, **options: Any) -> Any:
        _note(TRIP)
        return inner(*arguments, **options)

    setattr(owner, name, noting)


def _note(name: str) -> None:
    _marks.append((name, time.monotonic_ns()))


def _wrap(owner: Any, name: str, moment: str) -> None:
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def noting(*arguments: Any, **options: Any) -> Any:
        _note(f"{moment}>")
        try:
            return inner(*arguments, **options)
        finally:
            _note(f"{moment}<")

    setattr(owner, name, noting)


def timeline(caller: Sequence[Mark], worker: Sequence[Mark]) -> dict[str, float]:
    """Return the microseconds of each segment of one task, and their sum."""
    at = dict(caller)
    at["insert>"], at["insert<"] = _first(caller, "insert>"), _last(caller, "insert<")
    # The claim that found the task is the last one before its start in the record.
    at["start>"], at["start<"] = _first(worker, "start>"), _last(worker, "start<")
    before = [mark for mark in worker if mark[1] <= at["start>"]]
    at["claim>"] = _last(before, "claim>")
    claimed = [moment for name, moment in before if name == "claim<" and moment > at["claim>"]]
    if claimed:
        at["claim<"] = claimed[-1]
    else:
        # SQLite alone starts tasks within the claim, whose commit counts for the start.
        at["claim<"] = at["start>"]
        at["start<"] = _first([mark for mark in worker if mark[1] > at["start>"]], "claim<")
    at["handler>"], at["handler<"] = _first(worker, "handler>"), _first(worker, "handler<")
    after = [mark for mark in worker if mark[1] >= at["handler<"]]
    at["end>"], at["end<"] = _first(after, "end>"), _last(after, "end<")
    at["notify<"] = _last(after, "notify<")
    received = [mark for mark in caller if mark[1] >= at["handler<"]]
    at["told>"], at["read<"] = _first(received, "told>"), _last(received, "read<")
    found = {name: (at[end] - at[start]) / 1000 for name, start, end in SEGMENTS}
    for name, start, end in SEGMENTS:
        side = worker if name.startswith("worker") else caller
        trips = sum(mark == TRIP and at[start] <= moment < at[end] for mark, moment in side)
        found[f"trips {name}"] = trips
    found["pick-up: enqueue to handler"] = (at["handler>"] - at["called"]) / 1000
    found["result: handler to value"] = (at["returned"] - at["handler<"]) / 1000
    return found


def _first(marks: Sequence[Mark], name: str) -> int:
    return _next(moment for found, moment in marks if found == name)


def _last(marks: Sequence[Mark], name: str) -> int:
    return _next(moment for found, moment in reversed(marks) if found == name)


def _next(moments: Iterator[int]) -> int:
    if (moment := next(moments, None)) is None:
        raise BenchError("A task passed without one of the moments.")
    return moment


async def _run_one() -> dict[str, float]:
    _marks.clear()
    called = time.monotonic_ns()
    task = await ax.enqueue("lone", Window())
    await ax.get_result(task, timeout=30)
    returned = time.monotonic_ns()
    caller = sorted([*_marks, ("called", called), ("returned", returned)], key=lambda mark: mark[1])
    await asyncio.sleep(PAUSE)  # the worker notes the end of what it does after the caller knows
    asked = await ax.enqueue("marks", Window(start=called, end=time.monotonic_ns()))
    worker = [(name, moment) for name, moment in await ax.get_result(asked, timeout=30)]
    await asyncio.sleep(PAUSE)
    return timeline(caller, sorted(worker, key=lambda mark: mark[1]))


async def _run(number: int) -> list[dict[str, float]]:
    for _ in range(WARM_TASKS):
        await ax.get_result(await ax.enqueue("lone", Window()), timeout=30)
    found: list[dict[str, float]] = []
    for _ in range(TRIES * number):
        # On a busy machine the handler may end before its caller waits, which then is told nothing.
        with suppress(BenchError):
            found.append(await _run_one())
        if len(found) == number:
            return found
    raise BenchError("Most tasks ended before their caller waited: the machine is too busy.")


def measure(target: Target, number: int) -> dict[str, float]:
    """Return the median microseconds of each segment on a target."""
    os.environ[IN_WORKER] = "1"
    try:
        with Workers(target, processes=1, module=MODULE):
            found = asyncio.run(_run(number))
    finally:
        del os.environ[IN_WORKER]
    return {name: statistics.median(segments[name] for segments in found) for name in found[0]}


def floors(target: Target) -> dict[str, float]:
    """Return the microseconds that the servers and Python take by themselves."""
    rates = {figure.name: figure.value for figure in sql(QUICK)}
    found = {"floor: insert and commit one row": 1e6 / rates[SQL_ONE]}
    with RUNTIME.engine.connect() as connection:
        found["floor: one round trip to the database"] = _median(
            lambda: connection.exec_driver_sql("SELECT 1").scalar()
        )
    if target.valkey is not None:
        with target.valkey.client() as client:
            found["floor: one round trip to Redis"] = _median(client.ping)
        waking = {figure.name: figure.value for figure in redis_py(target.valkey.url, QUICK)}
        found["floor: Redis wakes a blocked process"] = 1000 * waking[f"{REDIS_WAKE}, p50"]
    found["floor: hop to a thread and back"] = asyncio.run(_hop())
    return found


async def _hop() -> float:
    samples = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        await asyncio.to_thread(int)
        samples.append(1e6 * (time.perf_counter() - begun))
    return statistics.median(samples)


def _median(call: Callable[[], object]) -> float:
    samples = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        call()
        samples.append(1e6 * (time.perf_counter() - begun))
    return statistics.median(samples)


def table(columns: dict[str, dict[str, float]]) -> list[str]:
    """Return the lines of a Markdown table, with a column for each target."""
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    lines = [f"| microseconds (round trips) | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for name in names:
        if not name.startswith(TRIP):
            values = [_cell(figures, name) for figures in columns.values()]
            lines.append(f"| {name} | {' | '.join(values)} |")
    return lines


def _cell(figures: dict[str, float], name: str) -> str:
    if name not in figures:
        return ""
    trips = figures.get(f"{TRIP}s {name}")
    return f"{figures[name]:,.0f} ({trips:.0f})" if trips else f"{figures[name]:,.0f}"


def main(arguments: Sequence[str]) -> int:
    """Measure and print, for each target."""
    parser = argparse.ArgumentParser(prog="bench timeline", description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--tasks", type=int, default=50, help="tasks of which each segment is the median")
    options = parser.parse_args(arguments)
    note_moments()
    columns: dict[str, dict[str, float]] = {}
    for name in options.targets:
        with opened(name) as target:
            columns[name] = measure(target, options.tasks) | floors(target)
    print("\n".join(table(columns)))
    return 0


if os.environ.get(IN_WORKER):
    note_moments()
