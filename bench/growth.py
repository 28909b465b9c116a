"""Command `python -m bench growth`: cost of each step with a growing number of queued and running tasks.

The cost is what the server of the queue or the record tells, so a busy machine changes little: buffers on PostgreSQL, rows read on
MariaDB, steps of the virtual machine on SQLite (in tens), microseconds of processor time on Redis. The processor time is
that of the caller. The numbers grow from column to column, first that of the running tasks.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, create_engine, event, text, true
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.queries import counts
from agentexec.config import CONF
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.runtime import RUNTIME
from agentexec.task import Entry, Lease, Status
from agentexec.worker.index_repair import IndexRepair
from agentexec.worker.reconciler import QueueRepair
from bench.backlog import LEASE_SECONDS, MICROSECONDS, Backlog
from tests.servers import MariaDB, Postgres, Valkey

TARGETS = ("sqlite", "postgres", "redis", "mariadb")
QUICK, FULL = (10, 10_000, 100_000), (10, 10_000, 1_000_000)
RUNNING = (10, 5_000)
ROUNDS = 20
BATCH = 10
"""Tasks of a claim, of a renewal, and of an ending."""

STEPS = 10
PAGE_AT = 0.9
"""Share of the tasks before the page of open tasks that is looked at: its cost must not depend on the place."""

FLAT, LOGARITHMIC = 1.5, 4.0
"""Factors between the smallest and the largest number of tasks below which a cost counts as flat, or as logarithmic."""


class Mark(NamedTuple):
    """Place in the order of open tasks."""

    created_at: datetime
    agent_id: UUID


class Cost(NamedTuple):
    """Cost of one call: of its server, and of its caller in milliseconds of processor time."""

    server: float
    caller_ms: float


@dataclass
class Place:
    """A target that is open: how its server counts."""

    name: str
    unit: str
    count: Callable[[], float]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench growth", description=__doc__)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument(
        "--quick", action="store_true", help="up to 100,000 queued tasks instead of 1,000,000"
    )
    parser.add_argument("--queued", nargs="+", type=int, help="numbers of queued tasks")
    parser.add_argument(
        "--running", nargs="+", type=int, default=list(RUNNING), help="numbers of running tasks"
    )
    options = parser.parse_args(arguments)
    queued = options.queued or (QUICK if options.quick else FULL)
    sizes = [(queued[0], running) for running in options.running]
    sizes += [(number, options.running[-1]) for number in queued[1:]]
    for target in options.targets:
        table: dict[str, dict[tuple[int, int], Cost]] = {}
        with opened(target) as place:
            backlog = Backlog()
            for size in sizes:
                backlog.grow(*size)
                for name, cost in measures(place, backlog):
                    table.setdefault(name, {})[size] = cost
                    print(
                        f"{target} {size[0]:,}/{size[1]:,} {name}: {cost.server:,.0f} {place.unit}, {cost.caller_ms:.2f} ms",
                        flush=True,
                    )
        print("\n".join(as_markdown(target, place.unit, sizes, table)), flush=True)
    return 0


def as_markdown(
    target: str, unit: str, sizes: Sequence[tuple[int, int]], table: dict[str, dict[tuple[int, int], Cost]]
) -> Iterator[str]:
    """Yield the lines of a table: the steps, their cost at each size, and how it grows."""
    heads = [f"{queued:,} / {running:,}" for queued, running in sizes]
    yield ""
    yield f"| {target}: {unit} (caller, ms) | " + " | ".join(heads) + " | growth |"
    yield "| --- |" + " --- |" * (len(heads) + 1)
    for name, costs in table.items():
        cells = [
            f"{costs[size].server:,.0f} ({costs[size].caller_ms:.1f})" if size in costs else ""
            for size in sizes
        ]
        yield f"| {name} | " + " | ".join(cells) + f" | {growth([*costs.values()])} |"


def growth(costs: Sequence[Cost]) -> str:
    """Say how a cost grows from the smallest to the largest number of tasks."""
    factor = max(cost.server for cost in costs) / max(costs[0].server, 1.0)
    return "flat" if factor <= FLAT else "logarithmic" if factor <= LOGARITHMIC else f"{factor:,.0f} times"


def measures(place: Place, backlog: Backlog) -> Iterator[tuple[str, Cost]]:
    """Yield the cost of each step."""
    queue, backend = CONF.queue_name, RUNTIME.backend
    yield from _queue_steps(place, queue)
    repair = QueueRepair(RUNTIME, CONF, "bench", queue)
    repair._lead()
    # The first turn would look at all open tasks, of which a page is looked at below.
    repair._index._next_full_sweep = math.inf
    repair.run_once()
    yield "reconciler, a usual turn", cost(place, repair.run_once)
    repair.resign()
    index = IndexRepair(RUNTIME, CONF, queue)
    last = Mark(backlog.moment(PAGE_AT), UUID(int=0))
    if backlog.queued * (1 - PAGE_AT) > CHUNK_SIZE:
        yield (
            f"reconciler, {CHUNK_SIZE} of all open tasks",
            cost(place, lambda: index.repair_page(Status.QUEUED, true(), last), rounds=3),
        )
    counts.refresh(RUNTIME.engine)
    with Session(RUNTIME.engine) as db:
        yield "list, first page", cost(place, lambda: ax.activity.list(db, page_size=20), rounds=5)
        yield (
            "list, status=queued",
            cost(place, lambda: ax.activity.list(db, page_size=20, status="queued"), rounds=5),
        )
        yield "count of active tasks", cost(place, lambda: ax.activity.count_active(db), rounds=5)
    yield "depth of the queue", cost(place, lambda: backend.depth(queue), rounds=3)


def _queue_steps(place: Place, queue: str) -> Iterator[tuple[str, Cost]]:
    """Yield the cost of the steps that each task takes on the queue; what they took is pushed again."""
    backend = RUNTIME.backend
    spent: dict[str, list[Cost]] = {
        "claim of 10 tasks": [],
        "renewal of 10 leases": [],
        "ending of 10 tasks": [],
    }
    for _ in range(ROUNDS):
        leases: list[Lease] = []

        def claim(taken: list[Lease] = leases) -> None:
            found = backend.claim(queue, "bench", limit=BATCH, low_quota=BATCH, lease_seconds=LEASE_SECONDS)
            taken.extend(found.leases)

        steps = (
            claim,
            lambda taken=leases: backend.renew(queue, "bench", taken, LEASE_SECONDS),
            lambda taken=leases: backend.finish(queue, taken),
        )
        for name, step in zip(spent, steps, strict=True):
            spent[name].append(cost(place, step, rounds=1))
        backend.push(queue, [Entry(lease.agent_id, epoch=lease.epoch) for lease in leases])
    for name, costs in spent.items():
        yield name, Cost(sum(c.server for c in costs) / ROUNDS, sum(c.caller_ms for c in costs) / ROUNDS)


def cost(place: Place, call: Callable[[], object], rounds: int = ROUNDS) -> Cost:
    """Return the mean cost of a call."""
    server, caller = place.count(), time.process_time()
    for _ in range(rounds):
        call()
    caller = time.process_time() - caller
    return Cost((place.count() - server) / rounds, 1000 * caller / rounds)


@contextmanager
def opened(name: str) -> Generator[Place]:
    """Start the servers of a target, and configure this process for it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentexec-bench-")))
        valkey = stack.enter_context(Valkey()) if name == "redis" else None
        url = f"sqlite:///{folder / 'bench.db'}"
        postgres = None
        if name == "postgres":
            settings = {
                "shared_preload_libraries": "pg_stat_statements",
                "pg_stat_statements.track_utility": "off",
            }
            postgres = stack.enter_context(Postgres(fsync=False, settings=settings))
            url = postgres.create_database("bench")
        if name == "mariadb":
            pages = {"innodb-buffer-pool-size": "1G"}
            url = stack.enter_context(MariaDB(fsync=False, settings=pages)).create_database("bench")
        CONF.lease_seconds = LEASE_SECONDS
        CONF.redis_url = valkey.url if valkey else None
        ax.configure(database_url=url)
        stack.callback(RUNTIME.close)
        ax.Base.metadata.create_all(RUNTIME.engine)
        if postgres is not None:
            yield Place(name, "buffers", stack.enter_context(_buffers(postgres.url)))
        elif valkey is not None:
            client = stack.enter_context(valkey.client())
            yield Place(name, "µs of Redis", lambda: _processor_time(client.info("cpu")))
        elif name == "mariadb":
            yield Place(name, "rows", stack.enter_context(_rows_read(url)))
        else:
            yield Place(name, "tens of steps", _steps(RUNTIME.engine))


def _processor_time(facts: dict[str, Any]) -> float:
    return MICROSECONDS * (facts["used_cpu_user"] + facts["used_cpu_sys"])


@contextmanager
def _buffers(url: str) -> Generator[Callable[[], float]]:
    """Yield a function that returns the buffers that statements on the bench's database have read so far."""
    query = text(
        "SELECT SUM(shared_blks_hit + shared_blks_read) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
        "WHERE d.datname = 'bench'"
    )
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))
        yield lambda: float(connection.execute(query).scalar() or 0)
    engine.dispose()


@contextmanager
def _rows_read(url: str) -> Generator[Callable[[], float]]:
    """Yield a function that returns the rows that MariaDB has read so far, without those of this question."""
    query = text(
        "SELECT SUM(variable_value) FROM information_schema.global_status WHERE variable_name LIKE 'Handler_read%'"
    )
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:

        def read() -> float:
            return float(connection.execute(query).scalar() or 0)

        own, asked = -read() + read(), [0]

        def count() -> float:
            asked[0] += 1
            return read() - own * asked[0]

        yield count
    engine.dispose()


def _steps(engine: Engine) -> Callable[[], float]:
    """Return a function that returns the steps that SQLite has taken so far, in tens."""
    steps = [0]

    def note() -> None:
        steps[0] += 1

    engine.dispose()
    event.listen(engine, "connect", lambda raw, _record: raw.set_progress_handler(note, STEPS))
    return lambda: float(steps[0])
