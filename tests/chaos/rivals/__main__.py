"""Compare task queues under one kill schedule: `python -m tests.chaos.rivals [--only celery dbos]` prints a table.

Each system gets its own environment, a new server, two hosts of 8 slots, and the same tasks. Its worker
processes are killed by the seed's schedule, which also kills whole hosts; each host starts again within three seconds, and what the
killed one left of its process group is killed first, as systemd does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from sqlalchemy import text

import agentexec as ax
from agentexec.db.engine import open_engine
from tests.chaos.plan import EMBEDDED, Action, draw_plan
from tests.deployment import clean_environment
from tests.environments import environment_of
from tests.servers import Postgres, Valkey

HERE = Path(__file__).parent
PACKAGES = {
    "agentexec": "",
    "celery": "celery[redis]==5.7.0",
    "dramatiq": "dramatiq[redis]==2.2.1",
    "docket": "pydocket==0.27.0",
    "dbos": "dbos==3.4.0",
}
HOSTS = ("near", "far")
KINDS = ("kill-worker", "kill-supervisor", "kill-host")
LONGEST_DOWN = 3.0
PATIENCE, SILENCE = 180.0, 60.0
"""Seconds after the last kill, and since the latest line of the ledger, until what has not ended counts as lost."""


class Outcome(NamedTuple):
    """Outcome of one system."""

    name: str
    kills: int
    accepted: int
    lost: int
    started_again: int
    parts_again: int
    seconds: float


def main() -> None:
    """Run each system, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=PACKAGES, default=list(PACKAGES))
    options = parser.parse_args()
    faults = [action for action in draw_plan(options.seed, 3600, EMBEDDED, pause=1.0) if action.kind in KINDS]
    plan = [action for action in faults if action.at < options.seconds]
    print(
        "| system | kills | tasks accepted | lost | started again | parts of tasks done again | all done after |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in options.only:
        found = compare(name, plan, options.tasks, options.seconds)
        *counts, seconds = found[1:]
        print("|", name, "|", " | ".join(map(str, counts)), f"| {seconds:.0f} s |", flush=True)


def compare(name: str, plan: list[Action], tasks: int, seconds: float) -> Outcome:
    """Run one system under a schedule of kills."""
    python = environment_of(name, PACKAGES[name])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"rival-{name}-")))
        redis = stack.enter_context(Valkey())
        database = stack.enter_context(Postgres(fsync=False, settings={"synchronous_commit": "on"}))
        url = database.create_database("rivals")
        variables = {
            "REDIS": redis.url,
            "DATABASE": url,
            "LEDGER": str(folder / "ledger"),
            "PYTHONPATH": str(HERE),
        }
        if name == "agentexec":
            variables |= {"AGENTEXEC_REDIS_URL": redis.url, "AGENTEXEC_DATABASE_URL": url}
            ax.Base.metadata.create_all(engine := open_engine(url))
            engine.dispose()
        (folder / "ledger").touch()
        system = System([str(python), str(HERE / f"{name}_program.py")], variables, folder)
        stack.callback(system.close)
        outcome = system.run(name, plan, tasks, seconds)
        if name == "agentexec":
            show_failed(url)
        return outcome


def show_failed(url: str) -> None:
    """Print why tasks of agentexec have failed: the record has it."""
    engine = open_engine(url)
    with engine.connect() as connection:
        for row in connection.execute(
            text("SELECT status, error FROM agentexec_activity WHERE status <> 'COMPLETE'")
        ):
            print(row.status, row.error, file=sys.stderr)
    engine.dispose()


class System:
    """One system: its hosts, its producer, its ledger."""

    def __init__(self, command: list[str], variables: dict[str, str], folder: Path) -> None:
        self._command, self._variables, self._folder = command, variables, folder
        self._hosts: dict[str, subprocess.Popen[bytes]] = {}
        self._due: dict[str, float] = {}

    def run(self, name: str, plan: list[Action], tasks: int, seconds: float) -> Outcome:
        """Enqueue, kill, wait, count."""
        for host in HOSTS:
            self._hosts[host] = self._start(host, "work")
        time.sleep(5)  # all of them load their modules in less
        producer = self._start("producer", "produce", str(tasks), str(seconds))
        started, kills = time.monotonic(), 0
        for action in plan:
            while time.monotonic() - started < action.at:
                self._restart()
                time.sleep(0.02)
            kills += self._kill(action)
        producer.wait(seconds + 60)
        last_kill = time.monotonic()
        while self._due:
            self._restart()
        self._wait(tasks, last_kill)
        lines = self._lines()
        events = Counter((line["event"], line["key"], line["part"]) for line in lines)
        accepted = {key for event, key, _ in events if event == "accepted"}
        ended = {key for event, key, _ in events if event == "end"}
        again = Counter(event for event, _, _ in events.elements()) - Counter(event for event, _, _ in events)
        end = max((line["at"] for line in lines if line["event"] == "end"), default=started)
        return Outcome(
            name, kills, len(accepted), len(accepted - ended), again["start"], again["part"], end - last_kill
        )

    def _start(self, host: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*self._command, *arguments],
                env=clean_environment(**self._variables, HOST=host),
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _family(self, host: str) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                variables = process.environ()
                ours = variables.get("LEDGER") == self._variables["LEDGER"] and variables.get("HOST") == host
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def _kill(self, action: Action) -> int:
        host = HOSTS[int(action.pick * 1000) % len(HOSTS)]
        family = self._family(host)
        if host in self._due or not family:
            return 0
        if action.kind == "kill-worker":
            # A process that runs tasks is one without children; a system of one process per host has no other.
            family = [process for process in family if not process.children()][-1:]
        elif action.kind == "kill-supervisor":
            family = family[:1]
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if action.kind != "kill-worker" or self._hosts[host].pid == family[0].pid:
            self._due[host] = time.monotonic() + min(action.seconds, LONGEST_DOWN)
        return 1

    def _restart(self) -> None:
        for host in HOSTS:
            if host not in self._due and self._hosts[host].poll() is not None:
                self._due[host] = time.monotonic() + 1.0  # it ended because a child was killed
        for host in [host for host, at in self._due.items() if at <= time.monotonic()]:
            del self._due[host]
            for process in self._family(host):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self._hosts[host].wait()
            self._hosts[host] = self._start(host, "work")

    def _wait(self, tasks: int, last_kill: float) -> None:
        while time.monotonic() - last_kill < PATIENCE:
            self._restart()
            lines = self._lines()
            ended = {line["key"] for line in lines if line["event"] == "end"}
            latest = max((line["at"] for line in lines), default=last_kill)
            if len(ended) >= tasks or time.monotonic() - max(latest, last_kill) > SILENCE:
                break
            time.sleep(0.5)
        time.sleep(3)  # what is done once more after everything was done

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self._folder / "ledger").read_text().splitlines()]

    def close(self) -> None:
        """Kill everything."""
        for host in (*HOSTS, "producer"):
            for process in self._family(host):
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    main()
