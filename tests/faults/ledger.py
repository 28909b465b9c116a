"""Agents with effects, their workers killed at random: effects that are repeated, and effects that are lost.

`python -m tests.faults.ledger [--agents 200] [--seconds 120] [--target embedded|valkey+postgres]` prints one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from sqlalchemy import text

import agentexec as ax
from agentexec.db.transactions import reading, writing
from agentexec.runtime import RUNTIME
from tests.deployment import REPOSITORY, Deployment
from tests.faults.ledger_script import BOOKING, TOPICS
from tests.servers import Postgres, Valkey
from tests.waiting import patient

MODULE = Path(__file__).parent / "ledger_module.py"
TARGETS = ("embedded", "valkey+postgres")
AT_ONCE = 20
"""Agents that run at the same time: with all of them at once, every kill would hit every agent."""

LATEST = 60.0
"""Seconds after the last kill within which every agent must have ended."""


@dataclasses.dataclass
class Findings:
    """Findings of one run. Each call in an agent's script has one effect."""

    target: str
    agents: int
    seconds: float = 0.0
    kills: int = 0
    supervisor_kills: int = 0
    attempts: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    model_calls: int = 0
    model_turns: int = 0
    charges: int = 0
    charge_lines: int = 0
    charges_repeated: list[str] = dataclasses.field(default_factory=list)
    bookings: int = 0
    bookings_repeated: list[str] = dataclasses.field(default_factory=list)
    posts: int = 0
    posts_cut_off: int = 0
    posts_repeated: list[str] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        """Findings that must not occur."""
        return [
            *self.lost,
            *self.charges_repeated,
            *self.bookings_repeated,
            *self.posts_repeated,
            *self.missing,
        ]


def run(
    deployment: Deployment, *, target: str, agents: int, seconds: float, pace: float, seed: int = 0
) -> Findings:
    """Enqueue agents, kill their workers for some seconds, one every `pace` seconds on average, and audit."""
    chance = random.Random(seed)
    found = Findings(target, agents)
    with writing(RUNTIME.engine) as connection:
        connection.execute(text(f"CREATE TABLE {BOOKING} (agent VARCHAR(20), topic VARCHAR(20))"))
    command = [sys.executable, "-m", "agentexec", "worker", str(MODULE)]
    deployment.spawn(command, PYTHONPATH=str(REPOSITORY))
    started = time.monotonic()
    tasks: dict[str, ax.Task] = {}
    while time.monotonic() - started < seconds or len(tasks) < agents:
        # Start agents evenly over the whole time.
        due = min(agents, 1 + int(agents * (time.monotonic() - started) / seconds))
        while len(tasks) < due:
            key = f"a{len(tasks)}"
            tasks[key] = deployment.enqueue("audit", key, times=len(tasks))
        time.sleep(chance.expovariate(1 / pace))
        if chance.random() < 0.1:
            deployment.supervisors[-1].kill()
            found.supervisor_kills += 1
            deployment.spawn(command, PYTHONPATH=str(REPOSITORY))
        else:
            found.kills += _kill_one(deployment, chance)
    found.seconds = round(time.monotonic() - started, 1)
    deployment.wait_for_ends(tasks.values(), timeout=LATEST)
    audit(deployment, tasks, found)
    return found


def _kill_one(deployment: Deployment, chance: random.Random) -> int:
    try:
        workers = deployment.workers()
        if not workers:
            return 0
        chance.choice(workers).kill()
    except (psutil.Error, AssertionError, IndexError):
        return 0  # between two worker processes
    return 1


def audit(deployment: Deployment, tasks: Mapping[str, ax.Task | UUID], found: Findings) -> None:
    """Compare what the agents must have done with what the record and the ledger say."""
    for key, task in tasks.items():
        detail = deployment.detail(task)
        found.attempts += detail.attempt
        if detail.status is not ax.Status.COMPLETE:
            found.lost.append(f"{key} is {detail.status}: {detail.error}")
        elif (value := ax.get_result_sync(task, timeout=patient(10))) != f"Done: {key}":
            found.lost.append(f"{key} gave {value!r}")
    lines = [json.loads(line) for line in deployment.ledger_file.read_text().splitlines()]
    turns = Counter((line["agent"], line["turn"]) for line in lines if line["event"] == "model")
    found.model_calls, found.model_turns = turns.total(), len(turns)

    charges = [line for line in lines if line["event"] == "charge"]
    by_key = {line["key"]: (line["agent"], line["topic"]) for line in charges}
    effects = Counter(by_key.values())
    found.charge_lines, found.charges = len(charges), effects.total()
    found.charges_repeated = [f"{key} has several keys" for key, count in effects.items() if count > 1]
    found.missing += [f"charge {key}" for key in _expected(tasks, "charge") if key not in effects]

    with reading(RUNTIME.engine) as connection:
        rows = connection.execute(text(f"SELECT agent, topic FROM {BOOKING}"))
        booked = Counter((row.agent, row.topic) for row in rows)
    found.bookings = booked.total()
    found.bookings_repeated = [
        f"{key} was booked {count} times" for key, count in booked.items() if count > 1
    ]
    found.missing += [f"book {key}" for key in _expected(tasks, "book") if key not in booked]

    posts = Counter((line["agent"], line["topic"]) for line in lines if line["event"] == "post")
    found.posts = posts.total()
    found.posts_repeated = [f"{key} was posted {count} times" for key, count in posts.items() if count > 1]
    found.posts_cut_off = len(_expected(tasks, "post")) - len(posts)


def _expected(tasks: dict[str, ax.Task], tool: str) -> list[tuple[str, str]]:
    return [(key, topic) for key in tasks for topic in TOPICS[tool]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument(
        "--pace", type=float, default=1.5, help="seconds from one kill to the next, on average"
    )
    parser.add_argument("--target", choices=TARGETS, default="embedded")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ledger-")))
        broker, url = None, f"sqlite:///{folder / 'test.db'}"
        if options.target != "embedded":
            broker = stack.enter_context(Valkey())
            url = stack.enter_context(Postgres(fsync=False)).create_database("ledger")
        deployment = Deployment(folder, url, broker=broker, **SETTINGS)
        ax.Base.metadata.create_all(RUNTIME.engine)
        stack.callback(deployment.close)
        found = run(
            deployment,
            target=options.target,
            agents=options.agents,
            seconds=options.seconds,
            pace=options.pace,
            seed=options.seed,
        )
    sys.stdout.write(f"{json.dumps(dataclasses.asdict(found), indent=1)}\n")
    return 1 if found.violations else 0


SETTINGS: dict[str, Any] = {"num_workers": 2, "worker_concurrency": AT_ONCE // 2, "max_crashes": 10}

if __name__ == "__main__":
    sys.exit(main())
