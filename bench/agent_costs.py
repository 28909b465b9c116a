"""Command `python -m bench agents`: the same six-turn agent with the plain SDK, with agentexec and with DBOS, side by side.

Each contender is one process that runs 200 agents at once, against a model server of its own that answers at once. All
take turns in each round. Processor time is that of the contender's own processes, without the model server and the database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from sqlalchemy import create_engine
from sqlalchemy.engine import Engine, make_url

import agentexec as ax
from agentexec.runtime import RUNTIME
from bench.figures import QUICK, USUAL
from bench.targets import BenchError, Target, opened
from bench.workers import Workers
from tests.servers import Postgres

HOME = Path(__file__).parent
URL = "BENCH_MODEL_URL"
DBOS_HOME = HOME.parent / ".dev" / "dbos-agents"
DBOS_REQUIREMENTS = ("dbos==3.4.0", "dbos-openai-agents==0.3.0")
PLAIN, DBOS = "plain SDK", "DBOS on PostgreSQL"
TARGETS = {
    "sqlite": ("ours on SQLite", "embedded"),
    "postgres": ("ours on PostgreSQL", "postgres"),
    "redis+postgres": ("ours on Redis + PostgreSQL", "redis+postgres"),
}
AT_ONCE = 200


class Cost(NamedTuple):
    """Cost of one contender in one round."""

    rate: float
    """Agents per second, 200 at once."""
    cpu_ms: float
    """Processor time of an agent then."""
    in_turn_ms: float
    """Median time of an agent, one after another."""
    stored: float = 0.0
    """Bytes that an agent adds to the database."""


def main(arguments: Sequence[str]) -> int:
    """Measure in rounds, and print the medians and their ratios to the plain SDK."""
    parser = argparse.ArgumentParser(prog="bench agents", description=__doc__)
    parser.add_argument("--agents", type=int, default=400, help="agents of each round")
    parser.add_argument("--in-turn", type=int, default=30, help="agents one after another in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[*TARGETS, "dbos"], default=[*TARGETS, "dbos"])
    parser.add_argument(
        "--journal", action="store_true", help="also the cost of each model call and tool call"
    )
    options = parser.parse_args(arguments)
    costs: dict[str, list[Cost]] = {}
    with model_server() as url:
        environment = {**os.environ, URL: url}
        for _ in range(options.rounds):
            for name, cost in _round(options, environment):
                costs.setdefault(name, []).append(cost)
                print(f"{name}: {_row(cost, None)}", file=sys.stderr)
    print(_table(costs))
    if options.journal:
        for name in options.only:
            if name in TARGETS:
                _print_journal(*TARGETS[name], quick=options.rounds == 1)
    return 0


def _round(options: argparse.Namespace, environment: Mapping[str, str]) -> Iterator[tuple[str, Cost]]:
    numbers = (options.agents, options.in_turn)
    yield PLAIN, _peer(sys.executable, "plain", numbers, environment)
    for name in options.only:
        if name in TARGETS:
            title, target = TARGETS[name]
            yield title, _ours(target, numbers, environment[URL])
    if "dbos" in options.only:
        yield DBOS, _dbos(numbers, environment)


def _peer(python: str, kind: str, numbers: tuple[int, int], environment: Mapping[str, str]) -> Cost:
    command = [python, str(HOME / "peer_agents.py"), kind, *map(str, numbers)]
    done = subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise BenchError(f"{kind} did not run: {done.stderr[-800:]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def _ours(target_name: str, numbers: tuple[int, int], url: str) -> Cost:
    number, in_turn = numbers
    module = HOME / "durable_agents.py"
    with opened(target_name) as target:
        target.reset()
        with Workers(target, processes=1, concurrency=AT_ONCE, module=module, **{URL: url}) as workers:
            _run(target, 20)
            stored, used = _size(RUNTIME.engine), workers.cpu_seconds()
            workers.pause()
            asyncio.run(ax.enqueue_many("analyst", [{}] * number))
            workers.resume()
            started = time.perf_counter()
            seconds = _wait(target) - started
            used, stored = workers.cpu_seconds() - used, _size(RUNTIME.engine) - stored
            in_turn_ms = 1000 * median(asyncio.run(_one_after_another(in_turn)))
    return Cost(number / seconds, 1000 * used / number, in_turn_ms, stored / number)


def _run(target: Target, number: int) -> None:
    asyncio.run(ax.enqueue_many("analyst", [{}] * number))
    _wait(target)


def _wait(target: Target) -> float:
    target.wait_until_over()
    statuses = target.statuses()
    if set(statuses) != {str(ax.Status.COMPLETE)}:
        raise BenchError(f"every agent should be complete: {statuses}")
    return time.perf_counter()


async def _one_after_another(number: int) -> list[float]:
    times = []
    for _ in range(number):
        began = time.perf_counter()
        await ax.get_result(await ax.enqueue("analyst", {}))
        times.append(time.perf_counter() - began)
    return times


def _dbos(numbers: tuple[int, int], environment: Mapping[str, str]) -> Cost:
    python = _dbos_python()
    with Postgres(fsync=True) as postgres:
        url = make_url(postgres.create_database("dbos"))
        plain_url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        # The first run creates the tables, whose size is not the agents'.
        _peer(python, plain_url, (1, 1), environment)
        engine = create_engine(url)
        before = _size(engine)
        cost = _peer(python, plain_url, numbers, environment)
        number = sum(numbers) + min(numbers[0], 20)
        stored = (_size(engine) - before) / number
        engine.dispose()
    return cost._replace(stored=stored)


def _size(engine: Engine) -> int:
    """Return the bytes of the database."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            pages, free, size = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("page_count", "freelist_count", "page_size")
            )
            return (pages - free) * size
        query = (
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
        )
        return int(connection.exec_driver_sql(query).scalar_one())


def _dbos_python() -> str:
    """Return the Python of an environment with DBOS and its integration of the SDK, which is made on first use."""
    python, stamp = DBOS_HOME / "bin" / "python", DBOS_HOME / "installed"
    from agents.version import __version__  # noqa: PLC0415 - takes two seconds

    wanted = " ".join([*DBOS_REQUIREMENTS, f"openai-agents=={__version__}"])
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(DBOS_HOME)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted.split()], check=True)
        stamp.write_text(wanted)
    return str(python)


@contextmanager
def model_server(*arguments: str) -> Generator[str]:
    """Run the model server, and yield its base URL."""
    command = [sys.executable, str(HOME / "model_server.py"), *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    finally:
        with suppress(ProcessLookupError):
            server.kill()
        server.wait()


def _print_journal(title: str, target_name: str, *, quick: bool) -> None:
    from bench.journal import journal  # noqa: PLC0415 - importing the SDK takes two seconds

    with opened(target_name) as target:
        for figure in journal(target, QUICK if quick else USUAL):
            print(f"{title}: {figure.name}: {figure.value:,.2f} {figure.unit}")


def _table(costs: Mapping[str, Sequence[Cost]]) -> str:
    """Return a table of the medians, with the ratios of each round to the plain SDK."""
    lines = [
        "| | agents/s | CPU of an agent | one after another | stored |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rounds in costs.items():
        middle = Cost(*(median(values) for values in zip(*rounds, strict=True)))
        ratios = [
            Cost(*(mine / its if its else 0.0 for mine, its in zip(ours, plain, strict=True)))
            for ours, plain in zip(rounds, costs[PLAIN], strict=True)
        ]
        against = Cost(*(median(values) for values in zip(*ratios, strict=True)))
        lines.append(f"| {name} | {_row(middle, None if name == PLAIN else against)} |")
    return "\n".join(lines)


def _row(cost: Cost, ratio: Cost | None) -> str:
    parts = [f"{cost.rate:.1f}", f"{cost.cpu_ms:.1f} ms", f"{cost.in_turn_ms:.1f} ms"]
    if ratio is not None:
        parts[0] += f" ({100 * ratio.rate:.0f} %)"
        parts[1] += f" ({ratio.cpu_ms:.2f} x)"
        parts[2] += f" ({ratio.in_turn_ms:.2f} x)"
    parts.append(f"{cost.stored / 1000:.1f} kB" if cost.stored else "")
    return " | ".join(parts)
