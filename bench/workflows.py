"""Cost of pipelines and wide fan-out, compared with plain tasks and with DBOS on the same PostgreSQL server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

import agentexec as ax
from bench.figures import Figure, Size, median_of
from bench.targets import BenchError, Target
from bench.workers import Workers

STEPS = 4
NOOPS = "no-op tasks, in the same run"
PEER = Path(__file__).with_name("peer_dbos.py")
PEER_HOME = Path(__file__).parents[1] / ".dev" / "dbos"
PEER_REQUIREMENT = "dbos==3.4.0"


def workflows(target: Target, size: Size) -> Iterator[Figure]:
    """Yield pipelines per second, the time that a step adds to a task, and the time of 10,000 children of one task."""
    number = size.many // 5
    wide = size.many * 2
    plain: list[float] = []
    piped: list[float] = []
    spans: list[float] = []
    for _ in range(size.rounds):
        plain.append(_drain(target, "noop", number))
        piped.append(_drain(target, "four_steps", number))
        spans.append(_wide(target, wide))
    yield median_of(NOOPS, "tasks/s", plain)
    yield median_of(f"pipelines of {STEPS} steps", "pipelines/s", piped)
    costs = [
        1000 * (1 / pipelines - 1 / tasks) / STEPS for pipelines, tasks in zip(piped, plain, strict=True)
    ]
    yield median_of("a step of a pipeline", "ms", costs, "of two processes' time for all")
    yield median_of(f"ax.map of {wide:,}, from the call to its return", "s", spans)
    if target.database_url.startswith("postgres"):
        yield from _peer(target, number)


def _drain(target: Target, name: str, number: int) -> float:
    """Return tasks per second by the record, from the first start to the last end, on 2 warm processes of 10."""
    target.reset()
    with Workers(target) as workers:
        workers.warm()
        since = datetime.now(UTC)
        workers.pause()
        asyncio.run(ax.enqueue_many(name, [{"number": at} for at in range(number)]))
        workers.resume()
        target.wait_until_over()
        first, last = target.span(since, number)
    return number / (last - first)


def _wide(target: Target, number: int) -> float:
    target.reset()
    with Workers(target) as workers:
        workers.warm()
        since = datetime.now(UTC)
        ax.enqueue_sync("wide", {"number": number})
        target.wait_until_over()
        first, last = target.span(since, number + 1)
    return last - first


def _peer(target: Target, number: int) -> Iterator[Figure]:
    """Yield the figures of DBOS with as many processes and concurrent workflows, on its own database of the same server."""
    python = _peer_python()
    url = make_url(target.database_url).set(drivername="postgresql")
    name = "dbos_bench"
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    database = url.set(database=name).render_as_string(hide_password=False)
    run = [python, str(PEER), database, str(number)]
    done = subprocess.run([*run, "enqueue"], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise BenchError(f"DBOS could not enqueue: {done.stderr[-500:]}")
    workers = [
        subprocess.Popen([*run, "work"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    try:
        yield Figure(f"DBOS: workflows of {STEPS} steps", _peer_rate(database, number), "workflows/s")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    direct = subprocess.run([*run, "direct"], capture_output=True, text=True, timeout=300, check=False)
    if direct.returncode:
        raise BenchError(f"DBOS could not run: {direct.stderr[-500:]}")
    yield Figure(
        f"DBOS: workflows of {STEPS} steps, without a queue, in one process",
        json.loads(direct.stdout.splitlines()[-1])["rate"],
        "workflows/s",
    )


def _peer_rate(database: str, number: int) -> float:
    query = (
        "SELECT count(*), min(started_at_epoch_ms), max(updated_at) FROM dbos.workflow_status "
        "WHERE status = 'SUCCESS' AND queue_name = 'bench'"
    )
    deadline = time.monotonic() + 300
    with psycopg.connect(database, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(query).fetchone()
            if row is not None and row[0] == number:
                return 1000 * number / (row[2] - row[1])
            time.sleep(0.05)
    raise BenchError(f"DBOS did not finish {number} workflows in 300 s")


def _peer_python() -> str:
    """Return the Python of an environment with DBOS, which is made on first use."""
    python = PEER_HOME / "bin" / "python"
    stamp = PEER_HOME / "installed"
    if not stamp.exists() or stamp.read_text() != PEER_REQUIREMENT:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEER_HOME)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", PEER_REQUIREMENT], check=True)
        stamp.write_text(PEER_REQUIREMENT)
    return str(python)
