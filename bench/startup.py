"""Measurements of starting: imports, the command line, workers, and what follows a killed worker or host."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import psutil
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME
from bench.figures import Figure, Size, median_of
from bench.targets import BenchError, Target
from bench.workers import START_TIMEOUT, WITH_AGENTS, Workers, pss

MB = 1e6

MATURE = 5.2
"""Seconds after which a crash no longer counts as a failed start, which would delay the successor."""

TASKS, TASK_SECONDS = 20, 5.0
"""Tasks that run when their host dies."""

FROM_IMPORT = "import agentexec as ax; ax.Pool; ax.enqueue"
HAS_AGENTS = f"{FROM_IMPORT}; import sys; print(int('agents' in sys.modules))"
REPOSITORY = Path(__file__).parent.parent


def imports(size: Size) -> Iterator[Figure]:
    """Yield the times that a shell user and an importing program wait for; needs no server."""
    times = max(3, size.starts * 3)
    for name, arguments in (
        ("python -c pass", ("-c", "pass")),
        ("import agentexec", ("-c", "import agentexec")),
        ("import agentexec, with Pool and enqueue used", ("-c", FROM_IMPORT)),
        ("agentexec --help", ("-m", "agentexec", "--help")),
    ):
        _time(arguments)  # compiles the modules and fills the page cache
        yield median_of(name, "s", [_time(arguments) for _ in range(times)])
    with TemporaryDirectory() as folder:
        for arguments in (("migrate",), ("enqueue", "work")):
            _time(("-m", "agentexec", *arguments), folder)
        for name, arguments in (
            ("agentexec list, on SQLite", ("list",)),
            ("agentexec monitor --once, on SQLite", ("monitor", "--once")),
        ):
            _time(("-m", "agentexec", *arguments), folder)
            yield median_of(name, "s", [_time(("-m", "agentexec", *arguments), folder) for _ in range(times)])
    loaded = subprocess.run(
        [sys.executable, "-c", HAS_AGENTS], cwd=REPOSITORY, capture_output=True, check=True
    )
    yield Figure("`agents` in sys.modules after that", float(loaded.stdout), "modules")


def start(target: Target, size: Size) -> Iterator[Figure]:
    """Yield the time from the command to the first task, and from the kill of a worker to its successor's first task."""
    ready: list[float] = []
    working: list[float] = []
    for _ in range(size.starts):
        target.reset()
        task = ax.enqueue_sync("stamp", {})
        with Workers(target) as workers:
            first = asyncio.run(ax.get_result(task, timeout=START_TIMEOUT))
            ready.append(workers.ready_at - workers.started_at)
            working.append(first - workers.started_at)
    yield median_of("start of agentexec worker, until it says ready", "s", ready)
    yield median_of("start of agentexec worker, until a task runs", "s", working)
    yield from _successors(target, size)
    yield from _restarts(target, size)
    yield from _shared_memory(target)


def _shared_memory(target: Target) -> Iterator[Figure]:
    """Yield the memory of a worker whose module loads the Agents SDK: most is shared with the template, and PSS counts it once."""
    target.reset()
    with Workers(target, processes=4, module=WITH_AGENTS) as workers:
        workers.warm()
        shares = [pss([worker]) / MB for worker in workers.workers]
        mapped = [worker.memory_info().rss / MB for worker in workers.workers]
        note = f"mean of {len(shares)}"
        yield Figure(
            "memory of a worker with the Agents SDK, its share (PSS)", fmean(shares), "MB", note=note
        )
        yield Figure(
            "memory of a worker with the Agents SDK, all it sees (RSS)", fmean(mapped), "MB", note=note
        )
        yield Figure("memory of 4 such workers and what started them", pss(_all(workers)) / MB, "MB")


def _all(workers: Workers) -> list[psutil.Process]:
    return [process for role in workers.roles().values() for process in role]


def _successors(target: Target, size: Size) -> Iterator[Figure]:
    target.reset()
    forked: list[float] = []
    working: list[float] = []
    with Workers(target, processes=1) as workers:
        for number in range(size.starts):
            if number:
                time.sleep(MATURE)
            # A finished task shows that the worker is up before it is killed.
            asyncio.run(ax.get_result(ax.enqueue_sync("stamp", {}), timeout=30))
            victim = workers.workers[0]
            template, maintenance = workers.template, workers.maintenance
            killed = time.time()
            victim.kill()
            forked.append(_wait_for_child(template, {victim.pid, maintenance.pid}) - killed)
            first = asyncio.run(ax.get_result(ax.enqueue_sync("stamp", {}), timeout=30))
            working.append(first - killed)
    yield median_of("kill -9 of a worker until its successor is forked", "s", forked)
    yield median_of("kill -9 of a worker until its successor runs a task", "s", working)


def _restarts(target: Target, size: Size) -> Iterator[Figure]:
    """Yield how soon tasks go on after every process of a host was killed, and its worker started again."""
    first: list[float] = []
    done: list[float] = []
    for _ in range(size.starts):
        target.reset()
        with Workers(target) as workers:
            tasks = [ax.enqueue_sync("stamp", {"seconds": TASK_SECONDS}) for _ in range(TASKS)]
            _wait_until_running(TASKS)
            workers.kill()
        with Workers(target) as workers:
            ends = [asyncio.run(ax.get_result(task, timeout=START_TIMEOUT)) for task in tasks]
            first.append(min(ends) - TASK_SECONDS - workers.started_at)
            done.append(max(ends) - workers.started_at)
    kill = "kill -9 of all processes, and restart"
    yield median_of(f"{kill}, until the first task runs again", "s", first)
    yield median_of(f"{kill}, until {TASKS} tasks of {TASK_SECONDS:g} s are done", "s", done)


def _wait_until_running(number: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with Session(RUNTIME.engine) as db:
            if ax.activity.list(db, status="running").total >= number:
                return
        time.sleep(0.05)
    raise BenchError(f"{number} tasks did not start")


def _wait_for_child(parent: psutil.Process, known: set[int]) -> float:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if any(child.pid not in known for child in parent.children()):
            return time.time()
        time.sleep(0.001)
    raise BenchError("a killed worker was not replaced")


def _time(arguments: Sequence[str], folder: Path | str = REPOSITORY) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started
