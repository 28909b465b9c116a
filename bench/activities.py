"""`python -m bench activities`: what reading the record costs when it holds a million activities.

Beside it the query that dashboards usually begin with, a window function over the log, in the same run.
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

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity import counts
from agentexec.activity.models import Activity, ActivityLog
from agentexec.db import utc_now
from agentexec.runtime import RUNTIME
from agentexec.task import Status
from bench import crowd
from tests.servers import MariaDB, Postgres

ROUNDS = 15
FIRST_PAGE = "list, first page with its count"
UNCOUNTED = "list, everything counted (nothing remembered)"
"""What a list costs until the leader has counted for the first time."""

USUAL = "the usual window function over the log, first page"
GOALS = {FIRST_PAGE: 10.0, "active_count": 10.0}
FILTER_GOAL = 50.0
SIZES = {"sqlite": 200_000, "postgres": 1_000_000, "mariadb": 1_000_000}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench activities", description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--activities", type=int, help="default: 1,000,000, on SQLite 200,000")
    parser.add_argument("--logs", type=int, default=10, help="log lines of each activity")
    options = parser.parse_args(arguments)
    for name in options.targets:
        with _opened(name) as engine:
            number = options.activities or SIZES[name]
            start = time.perf_counter()
            crowd.fill(engine, number, options.logs)
            filled = time.perf_counter() - start
            print(f"{name}: {number:,} activities, {number * options.logs:,} log lines, in {filled:.0f} s")
            first = 0.0
            for what, milliseconds in _measures(engine):
                verdict = _verdict(what, milliseconds)
                if what == FIRST_PAGE:
                    first = milliseconds
                elif what == USUAL:
                    verdict = f"  {milliseconds / first:,.0f} times the first page above"
                print(f"  {what:<58} {milliseconds:10.2f} ms{verdict}", flush=True)
    return 0


def _verdict(what: str, milliseconds: float) -> str:
    goal = GOALS.get(what)
    if goal is None and what.startswith("list, ") and what != UNCOUNTED:
        goal = FILTER_GOAL
    if goal is None:
        return ""
    return f"  goal {goal:g} ms" + (": MISSED" if milliseconds > goal else "")


@contextmanager
def _opened(name: str) -> Generator[Engine]:
    with tempfile.TemporaryDirectory(prefix="agentexec-bench-") as folder:
        if name == "sqlite":
            yield from _prepared(f"sqlite:///{Path(folder) / 'bench.db'}")
            return
        server = Postgres(fsync=False) if name == "postgres" else MariaDB(fsync=False)
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
    yield UNCOUNTED, _time(engine, listed(), rounds=3)
    start = time.perf_counter()
    counts.remember(engine)
    yield "the leader remembers the counts", 1000 * (time.perf_counter() - start)
    with Session(engine) as db:
        page = ax.activity.list(db, page_size=50)
        agent_id = page.items[0].agent_id
        cursor = ax.activity.list(db, 200, 50, status=Status.COMPLETE).next_cursor
    yield FIRST_PAGE, _time(engine, listed())
    yield "list, page 200", _time(engine, listed(page=200))
    yield "list, behind page 200 by cursor", _time(engine, listed(after=cursor))
    yield "list, status=error", _time(engine, listed(status="error"))
    yield "list, status=queued", _time(engine, listed(status="queued"))
    yield "list, agent_type", _time(engine, listed(agent_type="task_7"))
    yield "list, agent_type and status", _time(engine, listed(agent_type="task_7", status="error"))
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
    yield "list, text that many have", _time(engine, listed(text="acme"))
    yield "list, text that none has", _time(engine, listed(text="nowhere"))
    yield "active_count", _time(engine, ax.activity.active_count)
    yield "detail", _time(engine, lambda db: ax.activity.detail(db, agent_id))
    yield USUAL, _time(engine, _usual, rounds=2)
    number = 0

    def cancel(db: Session) -> None:
        nonlocal number
        number = ax.activity.cancel_pending(db)

    spent = _time(engine, cancel, rounds=1)
    yield f"cancel_pending, {number:,} of them", spent


def _usual(db: Session) -> None:
    """What a list costs whose status is that of the newest log line."""
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
    """Milliseconds: the median of some rounds, the first of which is not counted."""
    taken: list[float] = []
    for _ in range(rounds + (rounds > 2)):
        with Session(engine) as db:
            start = time.perf_counter()
            work(db)
            taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[1:] if rounds > 2 else taken)
