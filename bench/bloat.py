"""Command `python -m bench bloat`: size of each table of PostgreSQL while many tasks pass, and after `prune`.

PostgreSQL is the only server, and tasks do nothing. A bounded number of them is open at every moment, as under a steady load,
so what the tables of the queue keep beyond that is bloat. The tables of the record grow with the tasks that they keep.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.runtime import RUNTIME
from agentexec.task import ACTIVE_STATUSES
from bench.targets import Target, opened
from bench.workers import Workers

OPEN, BATCH = 10_000, 2_000
"""Tasks that are open at most while more are enqueued, and tasks that are enqueued together."""

KB, MB = 1_000, 1_000_000
SMALL = 100 * KB
"""Bytes below which a table is left out of a report, unless it had more at an earlier one."""

HEADS = ("table", "MB", "indexes, MB", "rows", "dead rows", "free in the table")


class Extent(NamedTuple):
    """Extent of a table: bytes of itself and of its indexes, rows, and the shares of dead rows and of free space."""

    table: int
    indexes: int
    rows: int
    dead: int
    free: float


def main(arguments: Sequence[str]) -> int:
    """Run the tasks, and print the tables at each mark, after VACUUM, and after everything was pruned."""
    parser = argparse.ArgumentParser(prog="bench bloat", description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--marks", nargs="+", type=int, default=[100_000, 500_000])
    options = parser.parse_args(arguments)
    marks = sorted({mark for mark in options.marks if mark < options.tasks} | {options.tasks})
    with opened("postgres") as target:
        with RUNTIME.engine.begin() as connection:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS pgstattuple"))
        shown: set[str] = set()
        with Workers(target, concurrency=100) as workers:
            workers.warm()
            started, done = time.monotonic(), 0
            for mark in marks:
                done = _run(done, mark)
                target.wait_until_over()
                rate = mark / (time.monotonic() - started)
                _report(f"after {mark:,} tasks, {rate:,.0f} a second", shown)
        _vacuum()
        _report("after VACUUM", shown)
        started = time.monotonic()
        with Session(RUNTIME.engine) as db:
            removed = ax.activity.prune(db, timedelta(0))
        print(f"\nprune removed {removed:,} tasks, {removed / (time.monotonic() - started):,.0f} a second")
        _vacuum()
        _report("after prune and VACUUM", shown)
        _refill(target, shown, min(options.tasks, marks[0]))
    return 0


def _refill(target: Target, shown: set[str], number: int) -> None:
    """Run tasks again, which must fit into the space that was freed."""
    with Workers(target, concurrency=100):
        _run(0, number)
        target.wait_until_over()
        _report(f"after {number:,} more tasks", shown)


def _run(done: int, until: int) -> int:
    """Enqueue tasks from one number to another, while few are open."""
    still_open = select(func.count()).where(Activity.status.in_(ACTIVE_STATUSES))
    while done < until:
        number = min(BATCH, until - done)
        asyncio.run(ax.enqueue_many("noop", ({"number": done + at} for at in range(number))))
        done += number
        while True:
            with RUNTIME.engine.connect() as connection:
                if connection.execute(still_open).scalar_one() < OPEN:
                    break
            time.sleep(0.1)
    return done


def _vacuum() -> None:
    with RUNTIME.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM")


def _report(when: str, shown: set[str]) -> None:
    print(f"\n{when}\n\n| {' | '.join(HEADS)} |\n| --- {'| ---: ' * (len(HEADS) - 1)}|", flush=True)
    for name, extent in _extents():
        if extent.table + extent.indexes >= SMALL or name in shown:
            shown.add(name)
            sizes = f"{extent.table / MB:,.1f} | {extent.indexes / MB:,.1f}"
            print(
                f"| {name} | {sizes} | {extent.rows:,} | {extent.dead:,} | {extent.free:.0f} % |", flush=True
            )


def _extents() -> Iterator[tuple[str, Extent]]:
    query = text(
        "SELECT pg_table_size(c.oid) AS bytes, pg_indexes_size(c.oid) AS index_bytes, t.tuple_count, t.dead_tuple_count, t.free_percent "
        "FROM pg_class c, pgstattuple(c.oid) t WHERE c.oid = CAST(:name AS REGCLASS)"
    )
    with RUNTIME.engine.connect() as connection:
        for table in ax.Base.metadata.sorted_tables:
            yield table.name, Extent(*connection.execute(query, {"name": table.name}).one())
