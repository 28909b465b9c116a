"""Command `python -m bench activities`: cost of reading a record with a million activities.

The same run measures the query that dashboards usually start with, a window function over the log.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, delete, func, insert, make_url, select, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, ActivityLog
from agentexec.activity.queries import counts
from agentexec.db.clock import utc_now
from agentexec.runtime import RUNTIME
from agentexec.task import Status
from bench import sample_record
from tests.servers import MariaDB, Postgres

ROUNDS = 15
FIRST_PAGE = "list, first page with its count"
UNCACHED = "list, everything counted (no cached counts)"
"""A list before the leader has counted for the first time."""

LONG = 10_000
"""Log lines of the activity with a long log."""

USUAL = "the usual window function over the log, first page"
GOALS = {FIRST_PAGE: 10.0, "active_count": 10.0}
FILTER_GOAL = 50.0
SIZES = {"sqlite": 200_000, "postgres": 1_000_000, "mariadb": 1_000_000}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench activities", description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--activities", type=int, help="default: 1,000,000, on SQLite 200,000")
    parser.add_argument("--logs", type=int, default=10, help="log lines of each activity")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="measure in this database instead: it is filled if it has no activities, and stays as it is",
    )
    options = parser.parse_args(arguments)
    for target in [kind_of(options.database)] if options.database else options.targets:
        with opened(target, options.database) as engine:
            _fill(engine, options.activities or SIZES[target], options.logs)
            first = 0.0
            for name, milliseconds in _measures(engine):
                verdict = _verdict(name, milliseconds)
                if name == FIRST_PAGE:
                    first = milliseconds
                elif name == USUAL:
                    verdict = f"  {milliseconds / first:,.0f} times the first page above"
                print(f"  {name:<58} {milliseconds:10.2f} ms{verdict}", flush=True)
    return 0


def kind_of(url: str) -> str:
    backend = make_url(url).get_backend_name()
    return {"postgresql": "postgres", "mysql": "mariadb"}.get(backend, backend)


def _fill(engine: Engine, number: int, logs: int) -> None:
    with Session(engine) as db:
        found = db.scalar(select(func.count()).select_from(Activity))
    if found:
        print(f"{engine.dialect.name}: {found:,} existing activities", flush=True)
        return
    start = time.perf_counter()
    sample_record.fill(engine, number, logs)
    spent = time.perf_counter() - start
    print(
        f"{engine.dialect.name}: {number:,} activities, {number * logs:,} log lines, in {spent:.0f} s",
        flush=True,
    )


def _verdict(name: str, milliseconds: float) -> str:
    goal = GOALS.get(name)
    if goal is None and name.startswith("list, ") and name != UNCACHED:
        goal = FILTER_GOAL
    if goal is None:
        return ""
    return f"  goal {goal:g} ms" + (": MISSED" if milliseconds > goal else "")


@contextmanager
def opened(name: str, url: str | None) -> Generator[Engine]:
    if url is not None:
        yield from _prepared(url)
        return
    with tempfile.TemporaryDirectory(prefix="agentexec-bench-") as folder:
        if name == "sqlite":
            yield from _prepared(f"sqlite:///{Path(folder) / 'bench.db'}")
            return
        # MariaDB bypasses the file cache of the system, which PostgreSQL and SQLite rely on, so it gets a cache of its own.
        memory = {"innodb-buffer-pool-size": "2G"}
        server = Postgres(fsync=False) if name == "postgres" else MariaDB(fsync=False, settings=memory)
        with server:
            yield from _prepared(server.create_database("bench"))


def _prepared(url: str) -> Iterator[Engine]:
    ax.configure(database_url=url)
    ax.Base.metadata.create_all(RUNTIME.engine)
    yield RUNTIME.engine
    RUNTIME.close()


def _measures(engine: Engine) -> Iterator[tuple[str, float]]:
    def listed(**filters: Any) -> Callable[[Session], Any]:
        return lambda db: ax.activity.list(db, page_size=50, **filters)

    now = utc_now()
    yield UNCACHED, _time(engine, listed(), rounds=3)
    start = time.perf_counter()
    counts.refresh(engine)
    yield "the leader caches the counts", 1000 * (time.perf_counter() - start)
    with Session(engine) as db:
        page = ax.activity.list(db, page_size=50)
        agent_id = page.items[0].agent_id
        cursor = ax.activity.list(db, 200, 50, status=Status.COMPLETE).next_cursor
    yield FIRST_PAGE, _time(engine, listed())
    yield "list, page 200", _time(engine, listed(page=200))
    yield "list, after page 200 by cursor", _time(engine, listed(after=cursor))
    yield "list, status=error", _time(engine, listed(status="error"))
    yield "list, status=queued", _time(engine, listed(status="queued"))
    yield "list, task_name", _time(engine, listed(task_name="task_7"))
    yield "list, task_name and status", _time(engine, listed(task_name="task_7", status="error"))
    yield "list, the largest tenant", _time(engine, listed(metadata_filter={"tenant": "t0"}))
    yield "list, a small tenant", _time(engine, listed(metadata_filter={"tenant": "t50"}))
    yield (
        "list, the largest tenant, status=error",
        _time(engine, listed(metadata_filter={"tenant": "t0"}, status="error")),
    )
    yield (
        "list, tenant and user",
        _time(engine, listed(metadata_filter={"tenant": "t0", "user": "u10"})),
    )
    week = {"created_after": now - timedelta(days=40), "created_before": now - timedelta(days=33)}
    yield "list, a week", _time(engine, listed(**week))
    yield "list, a week of a tenant", _time(engine, listed(**week, metadata_filter={"tenant": "t0"}))
    yield "list, text that many contain", _time(engine, listed(text="acme"))
    yield "list, text that none contains", _time(engine, listed(text="nowhere"))
    yield "active_count", _time(engine, ax.activity.active_count)
    yield "detail", _time(engine, lambda db: ax.activity.detail(db, agent_id))
    long = _with_long_log(engine)
    yield f"detail, {LONG:,} log lines", _time(engine, lambda db: ax.activity.detail(db, long), rounds=5)
    yield USUAL, _time(engine, _usual, rounds=2)
    number = 0

    def cancel(db: Session) -> None:
        nonlocal number
        number = ax.activity.cancel_pending(db)

    with _requeued_after(engine):
        spent = _time(engine, cancel, rounds=1)
    yield f"cancel_pending, {number:,} of them", spent


def _with_long_log(engine: Engine) -> UUID:
    """Return the id of an activity with a long log, to which lines are added if it is too short."""
    lines = {
        "created_at": utc_now(),
        "status": Status.ERROR,
        "message": "One of many lines.",
        "percentage": 50,
    }
    with Session(engine) as db:
        query = select(Activity.agent_id).where(Activity.status == Status.ERROR)
        found = db.scalars(query.order_by(Activity.created_at.desc()).limit(1)).one()
        own = select(func.count()).select_from(ActivityLog).where(ActivityLog.activity_id == found)
        missing = LONG - (db.scalar(own) or 0)
        if missing > 0:
            db.execute(insert(ActivityLog), [{"activity_id": found, **lines}] * missing)
            db.commit()
    return found


@contextmanager
def _requeued_after(engine: Engine) -> Generator[None]:
    """Queue the tasks again that the block cancels, so that a kept database is measured like a new one."""
    with Session(engine) as db:
        queued = db.execute(
            select(Activity.agent_id, Activity.message).where(Activity.status == Status.QUEUED)
        ).all()
        newest = db.scalar(select(func.max(ActivityLog.id)))
    yield
    with Session(engine) as db:
        rows = [
            {"agent_id": agent_id, "message": message, "status": Status.QUEUED, "finished_at": None}
            for agent_id, message in queued
        ]
        db.execute(update(Activity), rows)
        db.execute(delete(ActivityLog).where(ActivityLog.id > newest))
        db.commit()
    sample_record.analyze(engine)


def _usual(db: Session) -> None:
    """List activities with the status of their newest log line, as dashboards usually do."""
    newest = select(
        ActivityLog.activity_id,
        ActivityLog.status,
        ActivityLog.message,
        func.row_number()
        .over(partition_by=ActivityLog.activity_id, order_by=ActivityLog.id.desc())
        .label("place"),
    ).subquery()
    query = (
        select(Activity.agent_id, newest.c.status, newest.c.message)
        .join(newest, newest.c.activity_id == Activity.agent_id)
        .where(newest.c.place == 1)
        .order_by(Activity.created_at.desc())
        .limit(50)
    )
    db.execute(query).all()


def _time(engine: Engine, work: Callable[[Session], Any], rounds: int = ROUNDS) -> float:
    """Return the median of some rounds in milliseconds; the first round does not count."""
    taken: list[float] = []
    for _ in range(rounds + (rounds > 2)):
        with Session(engine) as db:
            start = time.perf_counter()
            work(db)
            taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[1:] if rounds > 2 else taken)
