"""Command `python -m bench long`: one run of 100 tool calls of 5 KB each, with `kill -9` of its worker on the way.

It prints the rows and the megabytes of the journal, and the calls that were made again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
from sqlalchemy import func, select

import agentexec as ax
from agentexec.journal.models import JournalEntry
from agentexec.runtime import RUNTIME
from bench.agent_case import URL
from bench.agent_costs import model_server
from bench.long_agent import CALLED
from bench.targets import BenchError, Target, opened
from bench.workers import Workers

HOME = Path(__file__).parent
TARGETS = {"sqlite": "embedded", "postgres": "postgres", "redis+postgres": "redis+postgres"}
PATIENCE = 300.0


class Journal(NamedTuple):
    """Size of the journal of one task."""

    rows: int
    bytes: int


class Run(NamedTuple):
    """One run of the agent."""

    seconds: float
    journal: Journal
    model_calls: int
    tool_calls: int


def main(arguments: Sequence[str]) -> int:
    """Run the agent without kills, then with them, on each target, and print a table."""
    parser = argparse.ArgumentParser(prog="bench long", description=__doc__)
    parser.add_argument("--calls", type=int, default=100, help="tool calls of the run, of 5 KB each")
    parser.add_argument(
        "--kills", type=int, default=10, help="kills of the worker, at random facts of the journal"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the kills' places")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    options = parser.parse_args(arguments)
    print("| target | kills | time | journal | model calls | tool calls |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.targets:
        with opened(TARGETS[name]) as target:
            for kills in dict.fromkeys((0, options.kills)):
                target.reset()
                run = measure(target, options.calls, _places(options.calls, kills, options.seed))
                print(_row(name, kills, run, options.calls))
    return 0


def measure(target: Target, calls: int, kills: Sequence[int]) -> Run:
    """Run the agent once, and kill its worker each time the journal has as many rows as `kills` says."""
    answered, called = target.folder / "answered", target.folder / "called"
    for counted in (answered, called):
        counted.write_bytes(b"")
    with model_server(str(calls), str(answered)) as url:
        environment = {URL: url, CALLED: str(called)}
        with Workers(target, processes=1, module=HOME / "long_agent.py", **environment) as workers:
            began = time.perf_counter()
            task = asyncio.run(ax.enqueue("long", {"turns": calls + 2}))
            for rows in kills:
                _wait_for_rows(task, rows)
                for process in workers.workers:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            answer = asyncio.run(ax.get_result(task, timeout=PATIENCE))
            seconds = time.perf_counter() - began
    if not answer:
        raise BenchError("the agent gave an empty answer")
    return Run(seconds, _journal(task), answered.stat().st_size, called.stat().st_size)


def _places(calls: int, kills: int, seed: int) -> list[int]:
    # The run ends with its last fact, so the last kill comes well before it.
    return sorted(random.Random(seed).sample(range(1, 3 * calls - 5), kills))


def _wait_for_rows(task: ax.Task, rows: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := _journal(task).rows) < rows:
        if time.monotonic() > deadline:
            raise BenchError(f"the journal has {found} rows and should have {rows}")
        time.sleep(0.002)


def _journal(task: ax.Task) -> Journal:
    size = func.coalesce(func.sum(func.length(JournalEntry.value)), 0)
    query = select(func.count(), size).where(JournalEntry.agent_id == task.agent_id)
    with RUNTIME.engine.connect() as connection:
        rows, size_now = connection.execute(query).one()
    return Journal(rows, int(size_now))


def _row(name: str, kills: int, run: Run, calls: int) -> str:
    cells = (
        name,
        str(kills),
        f"{run.seconds:.1f} s",
        f"{run.journal.rows} rows, {run.journal.bytes / 1e6:.2f} MB",
        f"{run.model_calls} ({run.model_calls - calls - 1} again)",
        f"{run.tool_calls} ({run.tool_calls - calls} again)",
    )
    return f"| {' | '.join(cells)} |"
