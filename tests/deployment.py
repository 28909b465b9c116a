"""A deployment under test: a database, perhaps a Redis, and real `agentexec worker` processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.schemas import ActivityDetailSchema
from agentexec.migrate import upgrade
from agentexec.runtime import RUNTIME
from tests.waiting import wait_until

MODULE = Path(__file__).parent / "faults" / "worker_module.py"
LEASE = 2.0
"""Seconds: short, so that a test of an expired lease takes seconds."""


class Deployment:
    """Configures this process as the web app, and starts workers as subprocesses."""

    def __init__(
        self, folder: Path, database_url: str, redis_url: str | None = None, *, lease: float = LEASE, **settings: Any
    ) -> None:
        self.folder = folder
        self.ledger_file = folder / "ledger.txt"
        self.ledger_file.touch()
        self.log_file = folder / "worker.log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AGENTEXEC_")},
            "AGENTEXEC_DATABASE_URL": database_url,
            "AGENTEXEC_LEASE_SECONDS": str(lease),
            "AGENTEXEC_NUM_WORKERS": "1",
            "AGENTEXEC_CONNECT_TIMEOUT": "10",
            "LEDGER": str(self.ledger_file),
            "PYTHONUNBUFFERED": "1",
            **({"AGENTEXEC_REDIS_URL": redis_url} if redis_url else {}),
            **{f"AGENTEXEC_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.supervisors: list[subprocess.Popen[bytes]] = []
        for name in ("redis_url", "lease_seconds"):
            value = self.environment.get(f"AGENTEXEC_{name.upper()}")
            setattr(ax.CONF, name, value)
        ax.configure(database_url=database_url)
        upgrade(RUNTIME.engine)

    # ---- processes ---------------------------------------------------------------------------------------

    def start(self, *arguments: str, ready: bool = True, **environment: str) -> subprocess.Popen[bytes]:
        """`agentexec worker` on the test module; waits until its workers take tasks."""
        before = self.log.count("on queue")
        with self.log_file.open("ab") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "agentexec", "worker", str(MODULE), *arguments],
                env={**self.environment, **environment},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.supervisors.append(supervisor)
        if ready:
            wait_until(lambda: self.log.count("on queue") > before or supervisor.poll() is not None, timeout=30)
            assert supervisor.poll() is None, self.log
        return supervisor

    def stop(self, supervisor: subprocess.Popen[bytes] | None = None, *, timeout: float = 30) -> int:
        """SIGTERM, and the exit code."""
        supervisor = supervisor or self.supervisors[-1]
        supervisor.send_signal(signal.SIGTERM)
        return supervisor.wait(timeout)

    def workers(self, supervisor: subprocess.Popen[bytes] | None = None) -> list[psutil.Process]:
        """The worker processes, without the template and the maintenance process."""
        supervisor = supervisor or self.supervisors[-1]
        template = self._template(supervisor)
        children = template.children() if template else []
        # In the order of their start: the maintenance process is always the first.
        return sorted(children, key=lambda child: child.pid)[1:]

    def maintenance(self) -> psutil.Process:
        template = self._template(self.supervisors[-1])
        assert template is not None
        return min(template.children(), key=lambda child: child.create_time())

    def _template(self, supervisor: subprocess.Popen[bytes]) -> psutil.Process | None:
        children = psutil.Process(supervisor.pid).children()
        return children[0] if children else None

    def family(self) -> list[psutil.Process]:
        """Every process of every supervisor, for checks that none outlives it."""
        return [
            process
            for supervisor in self.supervisors
            if supervisor.poll() is None
            for process in psutil.Process(supervisor.pid).children(recursive=True)
        ]

    def close(self) -> None:
        family = self.family()
        for supervisor in self.supervisors:
            if supervisor.poll() is None:
                supervisor.kill()
            supervisor.wait()
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        RUNTIME.close()
        ax.CONF.redis_url = None

    # ---- what happened -----------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def ledger(self, event: str) -> Counter[str]:
        """How often each key has a line for an event."""
        lines = [line.split() for line in self.ledger_file.read_text().splitlines()]
        return Counter(line[1] for line in lines if line[0] == event)

    def detail(self, task: ax.Task | UUID) -> ActivityDetailSchema:
        agent_id = task if isinstance(task, UUID) else task.agent_id
        with Session(RUNTIME.engine) as db:
            return ax.activity.detail(db, agent_id)

    def status(self, task: ax.Task | UUID) -> str:
        return str(self.detail(task).status)

    def wait_for_status(self, task: ax.Task | UUID, *statuses: str, timeout: float = 20) -> ActivityDetailSchema:
        wait_until(lambda: self.status(task) in statuses, timeout=timeout)
        return self.detail(task)

    def wait_for(self, condition: Callable[[], Any], timeout: float = 20) -> Any:
        try:
            return wait_until(condition, timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-4000:]}") from None


def gone(processes: list[psutil.Process], timeout: float = 10) -> bool:
    """True if all of them end in time."""
    deadline = time.monotonic() + timeout
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
