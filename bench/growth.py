"""Command `python -m bench growth`: cost of each step with a growing number of queued and running tasks.

The cost is what the server of the queue or the record tells, so a busy machine changes little: buffers on PostgreSQL, steps of
the virtual machine on SQLite (in tens), microseconds of processor time on Redis. The processor time is that of the caller.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, create_engine, event, insert, text
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.activity.queries import counts
from agentexec.config import CONF
from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.runtime import RUNTIME
from agentexec.state.sql_models import QueueEntry
from agentexec.task import Entry, Lease, Status
from agentexec.worker.index_repair import IndexRepair
from agentexec.worker.reconciler import QueueRepair
from tests.servers import Postgres, Valkey

TARGETS = ("sqlite", "postgres", "redis")
QUICK, FULL = (10, 10_000, 100_000), (10, 10_000, 1_000_000)
RUNNING = (10, 5_000)
ROUNDS = 20
BATCH = 10
"""Tasks of a claim, of a renewal, and of an ending."""

STEPS = 10
LEASE_SECONDS = 3600.0
AGE_SECONDS = 3600
"""Age of the tasks: those of the last minute are looked at more often."""

FLAT, LOGARITHMIC = 1.5, 4.0
"""Factors between the smallest and the largest number of tasks below which a cost counts as flat, or as logarithmic."""

MICROSECONDS = 1_000_000


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
    sizes = [
        (queued, running)
        for queued in options.queued or (QUICK if options.quick else FULL)
        for running in options.running
    ]
    for target in options.targets:
        table: dict[str, list[Cost]] = {}
        unit = ""
        for queued, running in sizes:
            with opened(target) as place:
                unit = place.unit
                for name, cost in measures(place, queued, running):
                    table.setdefault(name, []).append(cost)
                    print(
                        f"{target} {queued:,}/{running:,} {name}: {cost.server:,.0f} {unit}, {cost.caller_ms:.2f} ms",
                        flush=True,
                    )
        print("\n".join(as_markdown(target, unit, sizes, table)), flush=True)
    return 0


def as_markdown(
    target: str, unit: str, sizes: Sequence[tuple[int, int]], table: dict[str, list[Cost]]
) -> Iterator[str]:
    """Yield the lines of a table: the steps, their cost at each size, and how it grows."""
    heads = [f"{queued:,} / {running:,}" for queued, running in sizes]
    yield ""
    yield f"| {target}: {unit} (caller, ms) | " + " | ".join(heads) + " | growth |"
    yield "| --- |" + " --- |" * (len(heads) + 1)
    for name, costs in table.items():
        cells = [f"{cost.server:,.0f} ({cost.caller_ms:.1f})" for cost in costs]
        yield f"| {name} | " + " | ".join(cells) + f" | {growth(costs)} |"


def growth(costs: Sequence[Cost]) -> str:
    """Say how a cost grows from the smallest to the largest number of tasks."""
    factor = max(cost.server for cost in costs) / max(costs[0].server, 1.0)
    return "flat" if factor <= FLAT else "logarithmic" if factor <= LOGARITHMIC else f"{factor:,.0f} times"


def measures(place: Place, queued: int, running: int) -> Iterator[tuple[str, Cost]]:
    """Fill the target, and yield the cost of each step."""
    fill(queued, running)
    queue, backend = CONF.queue_name, RUNTIME.backend
    yield from _queue_steps(place, queue)
    repair = QueueRepair(RUNTIME, CONF, "bench", queue)
    repair.run_once()  # the first turn looks at all open tasks
    yield "reconciler, a usual turn", cost(place, repair.run_once)
    sweep = cost(place, lambda: IndexRepair(RUNTIME, CONF, queue).push_lost(0.0), rounds=1)
    each = 1000 / max(queued + running, 1000)
    yield "reconciler, all open tasks, for each 1,000", Cost(sweep.server * each, sweep.caller_ms * each)
    counts.refresh(RUNTIME.engine)
    with Session(RUNTIME.engine) as db:
        yield "list, first page", cost(place, lambda: ax.activity.list(db, page_size=20))
        yield "list, status=queued", cost(place, lambda: ax.activity.list(db, page_size=20, status="queued"))
        yield "count of active tasks", cost(place, lambda: ax.activity.count_active(db))
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


def fill(queued: int, running: int) -> None:
    """Put tasks into record and queue; the first ones run."""
    now, queue = utc_now() - timedelta(seconds=AGE_SECONDS), CONF.queue_name
    at = int(now.timestamp() * MICROSECONDS)
    ids = [UUID(int=(int(now.timestamp() * 1000) << 80) | number) for number in range(queued + running)]
    is_sql = RUNTIME.backend.transactional
    for part in chunks(list(enumerate(ids)), 5000):
        rows = [
            _activity(agent_id, number < running, now + timedelta(microseconds=number), queue)
            for number, agent_id in part
        ]
        with RUNTIME.engine.begin() as connection:
            connection.execute(insert(Activity), rows)
            if is_sql:
                entries = [_entry(agent_id, number, running, at, queue) for number, agent_id in part]
                connection.execute(insert(QueueEntry), entries)
    if not is_sql:
        for part in chunks(ids, 1000):
            RUNTIME.backend.push(queue, [Entry(agent_id) for agent_id in part])
        left = running
        while left:
            found = RUNTIME.backend.claim(
                queue, "others", limit=min(left, 500), low_quota=500, lease_seconds=LEASE_SECONDS
            )
            left -= len(found.leases)
    RUNTIME.backend.mark_intact(queue)


def _activity(agent_id: UUID, runs: bool, now: Any, queue: str) -> dict[str, Any]:
    status = Status.RUNNING if runs else Status.QUEUED
    return {
        **{
            "agent_id": agent_id,
            "agent_type": "noop",
            "status": status,
            "percentage": 0,
            "message": "Waiting to start.",
        },
        **{
            "created_at": now,
            "updated_at": now,
            "started_at": now if runs else None,
            "queue": queue,
            "priority": 1,
        },
        **{"epoch": int(runs), "attempt": int(runs), "crashes": 0},
    }


def _entry(agent_id: UUID, number: int, running: int, at: int, queue: str) -> dict[str, Any]:
    runs = number < running
    return {
        **{"agent_id": agent_id, "queue": queue, "priority": 1, "lane": 2 if runs else 1, "epoch": int(runs)},
        "at": at + AGE_SECONDS * MICROSECONDS + int(LEASE_SECONDS * MICROSECONDS) if runs else at + number,
        **{"worker": "others" if runs else None, "grouped": 0},
    }


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


def _steps(engine: Engine) -> Callable[[], float]:
    """Return a function that returns the steps that SQLite has taken so far, in tens."""
    steps = [0]

    def note() -> None:
        steps[0] += 1

    engine.dispose()
    event.listen(engine, "connect", lambda raw, _record: raw.set_progress_handler(note, STEPS))
    return lambda: float(steps[0])
