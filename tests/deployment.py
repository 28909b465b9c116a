"""A deployment under test: a database, perhaps a Redis, and real `agentexec worker` processes."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol, TypeVar
from unittest.mock import patch
from uuid import UUID

import psutil
import pytest
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.schemas import ActivityDetailSchema
from agentexec.cli.app import main
from agentexec.runtime import RUNTIME
from tests.conftest import ALL_SERVERS, Servers, ensure_running, reset_server
from tests.servers import Server, Valkey
from tests.waiting import patient, wait_until

T = TypeVar("T", bound=Callable[..., object])

REPOSITORY = Path(__file__).parent.parent
MODULE = Path(__file__).parent / "faults" / "worker_module.py"
FAILING_BACKEND = "tests.faults.failing_backend"

LEASE = 2.0
"""Lease in seconds, short so that tests of expired leases stay short."""

SOON = 12.0
"""Seconds after a fault within which every task must have ended: one lease, the time to notice a leader's absence, and
room for a slow machine."""

FINAL = ("complete", "error", "canceled")

ALTERNATES = {"embedded": ["mariadb"], "valkey+postgres": ["redis_server+mariadb"]}
"""Targets added to a target when the tests run against all servers."""


def try_enqueue(deployment: Deployment) -> ax.Task | None:
    """Enqueue a task; return None if the database cannot be reached."""
    try:
        return deployment.enqueue("work", "late")
    except ax.UnavailableError:
        return None


def on_targets(*targets: str, alternates: bool = True) -> Callable[[T], T]:
    """Run a test on these targets: `embedded` (SQLite alone), `postgres` (alone), or `valkey+` a database.

    By default on the first of them alone, since processes take seconds; with AGENTEXEC_TEST_SERVERS=all, on the last,
    on every second one of the others and on every fourth alternate, from one on by the test's name: each test on each
    would take CI too long, and each kind of fault has several tests.
    """

    def parametrize(test: T) -> T:
        chosen = list(targets[:1])
        if ALL_SERVERS:
            number = zlib.crc32(test.__qualname__.encode())
            chosen = [*targets[:-1][number // 4 % 2 :: 2], targets[-1]]
            if alternates:
                rivals = [rival for target in targets for rival in ALTERNATES.get(target, [])]
                chosen += rivals[number % 4 :: 4]
        return pytest.mark.parametrize("deploy", chosen, indirect=True)(test)

    return parametrize


def on_one_target(*targets: str, alternates: bool = True) -> Callable[[T], T]:
    """Run a test on one of these targets, because its promise is about processes and not about what servers do.

    By default on the first; with AGENTEXEC_TEST_SERVERS=all on the last, every fourth test on the alternate of that.
    """

    def parametrize(test: T) -> T:
        chosen = targets[0]
        if ALL_SERVERS:
            chosen = targets[-1]
            if alternates and zlib.crc32(test.__qualname__.encode()) % 4 == 1:
                [chosen] = ALTERNATES.get(chosen, [chosen])
        return pytest.mark.parametrize("deploy", [chosen], indirect=True)(test)

    return parametrize


class Deployment:
    """Deployment whose web app is this process and whose workers are subprocesses.

    The database has the tables. Settings are given by name (`num_workers=2`). Defaults: one worker process, ten tasks at
    once, a short lease.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str,
        *,
        broker: Valkey | None = None,
        redis_url: str | None = None,
        database: Server | None = None,
        **settings: Any,
    ) -> None:
        redis_url = broker.url if broker else redis_url
        self.folder = folder
        self.broker = broker
        self.database = database
        self.ledger_file = folder / "ledger.txt"
        self.ledger_file.touch()
        self.log_file = folder / "worker.log"
        self.faults = folder / "faults"
        self.faults.mkdir()
        settings = {"num_workers": 1, "lease_seconds": LEASE, "connect_timeout": 10, **settings}
        self.environment = clean_environment(
            AGENTEXEC_DATABASE_URL=database_url,
            **({"AGENTEXEC_REDIS_URL": redis_url} if redis_url else {}),
            **{f"AGENTEXEC_{name.upper()}": str(value) for name, value in settings.items()},
            LEDGER=str(self.ledger_file),
            FAULTS=str(self.faults),
        )
        self.supervisors: list[subprocess.Popen[bytes]] = []
        self._redis_url_before = ax.CONF.redis_url
        ax.CONF.redis_url = redis_url
        ax.configure(database_url=database_url)

    # ---- processes ---------------------------------------------------------------------------------------

    def start(self, *arguments: str, ready: bool = True, **environment: str) -> subprocess.Popen[bytes]:
        """Start `agentexec worker` on the test module, and wait until its workers take tasks."""
        command = [sys.executable, "-m", "agentexec", "worker", str(MODULE), *arguments]
        return self.spawn(command, ready=ready, **environment)

    def spawn(
        self, command: Sequence[str], *, ready: bool = True, session: bool = False, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a program that runs workers. `session`: in its own process group, as a shell starts programs."""
        before = self.log.count("on queue")
        with self.log_file.open("ab") as log:
            supervisor = subprocess.Popen(
                command,
                env={**self.environment, **environment},
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=session,
            )
        self.supervisors.append(supervisor)
        if ready:
            self.wait_for(
                lambda: self.log.count("on queue") > before or supervisor.poll() is not None, timeout=60
            )
            assert supervisor.poll() is None, self.log
        return supervisor

    def stop(self, supervisor: subprocess.Popen[bytes] | None = None, *, timeout: float = 30) -> int:
        """Send SIGTERM, and return the exit code."""
        supervisor = supervisor or self.supervisors[-1]
        supervisor.send_signal(signal.SIGTERM)
        return supervisor.wait(patient(timeout))

    def processes(self) -> list[psutil.Process]:
        """Return every process of this deployment, orphans too: all inherit the path of its ledger."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("LEDGER") == str(self.ledger_file):
                    found.append(process)
            except psutil.Error:
                continue  # ended, ending, or of another user
        return found

    def template(self, supervisor: subprocess.Popen[bytes] | None = None) -> psutil.Process:
        children = psutil.Process((supervisor or self.supervisors[-1]).pid).children()
        assert len(children) == 1, f"a supervisor has one child, the template; found {children}"
        return children[0]

    def maintenance(self, supervisor: subprocess.Popen[bytes] | None = None) -> psutil.Process:
        """Return the maintenance process, which always starts first."""
        return self._forked(supervisor)[0]

    def workers(self, supervisor: subprocess.Popen[bytes] | None = None) -> list[psutil.Process]:
        """Return the worker processes, without the template and the maintenance process."""
        return self._forked(supervisor)[1:]

    def _forked(self, supervisor: subprocess.Popen[bytes] | None) -> list[psutil.Process]:
        return sorted(
            self.template(supervisor).children(), key=lambda child: (child.create_time(), child.pid)
        )

    def process_of(self, key: str) -> psutil.Process:
        """Return the worker process that started a task last."""
        return psutil.Process(self.worker_pids(key)[-1])

    def close(self) -> None:
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        for supervisor in self.supervisors:
            supervisor.wait()
        print(
            f"{self.log[-20_000:]}\n{self.ledger_file.read_text()[-1000:]}"
        )  # pytest shows it if the test failed
        RUNTIME.close()
        ax.CONF.redis_url = self._redis_url_before

    # ---- tasks -------------------------------------------------------------------------------------------

    def enqueue(self, name: str, key: str, *, priority: ax.Priority = ax.Priority.LOW, **job: Any) -> ax.Task:
        """Enqueue a task of the test module; `key` names it in the ledger."""
        return ax.enqueue_sync(name, {"key": key, **job}, priority=priority)

    def produce(self, name: str, key: str, *, kill_at: str | None = None) -> subprocess.CompletedProcess[str]:
        """Enqueue in a separate process, which may be killed at an instant."""
        if kill_at is not None:
            self.arm(kill_at)
        program = f"import agentexec as ax; ax.enqueue_sync({name!r}, {{'key': {key!r}}}); print('accepted')"
        return subprocess.run(
            [sys.executable, "-c", program],
            env={**self.environment, **failing_backend_env()},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=patient(30),
        )

    def arm(self, instant: str) -> None:
        """Have the next process with the failing backend killed when it reaches an instant (`before-push`)."""
        (self.faults / instant).touch()

    def fault_fired(self, instant: str) -> bool:
        """Return True once a process was killed at an armed instant."""
        return not (self.faults / instant).exists()

    # ---- what happened -----------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def ledger(self, event: str) -> Counter[str]:
        """Return the number of lines of each key for an event."""
        return Counter(line[1] for line in self._ledger_lines() if line[0] == event)

    def worker_pids(self, key: str) -> list[int]:
        """Return the ids of the processes that started a task, in order."""
        return [int(line[2]) for line in self._ledger_lines() if line[:2] == ["start", key]]

    def _ledger_lines(self) -> list[list[str]]:
        return [line.split() for line in self.ledger_file.read_text().splitlines()]

    def detail(self, task: ax.Task | UUID) -> ActivityDetailSchema:
        agent_id = task if isinstance(task, UUID) else task.agent_id
        with Session(RUNTIME.engine) as db:
            return ax.activity.detail(db, agent_id)

    def status(self, task: ax.Task | UUID) -> str:
        return str(self.detail(task).status)

    def endings(self, tasks: Iterable[ax.Task]) -> list[list[str]]:
        """Return the final statuses in each task's log: a single one if the task ended exactly once."""
        return [
            [str(line.status) for line in self.detail(task).logs if line.status in FINAL] for task in tasks
        ]

    def depth(self) -> int:
        """Return the number of tasks that the state backend knows."""
        return sum(RUNTIME.backend.depth(ax.CONF.queue_name))

    def wait_for_status(
        self, task: ax.Task | UUID, *statuses: str, timeout: float = SOON
    ) -> ActivityDetailSchema:
        self.wait_for(lambda: self.status(task) in statuses, timeout=timeout)
        return self.detail(task)

    def wait_for_start(self, *keys: str, times: int = 1) -> None:
        """Wait until each of these tasks was started that often."""
        self.wait_for(lambda: all(self.ledger("start")[key] >= times for key in keys))

    def wait_for_ends(self, tasks: Iterable[ax.Task], timeout: float = SOON) -> None:
        """Wait until all of these tasks have ended, whatever their status."""
        left = list(tasks)

        def have_ended() -> bool:
            while left and self.status(left[-1]) in FINAL:
                left.pop()
            return not left

        self.wait_for(have_ended, timeout=timeout)

    def wait_for(self, condition: Callable[[], Any], timeout: float = SOON) -> Any:
        try:
            return wait_until(condition, timeout=timeout)
        except AssertionError as error:
            raise AssertionError(
                f"{error}\n{self.log[-4000:]}\n{self.ledger_file.read_text()[-1000:]}"
            ) from None


def run_in_process(deployment: Deployment, *arguments: str, text: str = "") -> tuple[int, str, str]:
    """Run `agentexec` on a deployment; return its exit code and its output.

    In this process, which is configured as the deployment's: a process of its own takes a second on a busy machine.
    """
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(deployment.folder)
    try:
        with (
            patch.object(sys, "argv", ["agentexec", *arguments]),
            patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()))),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            main()
    except SystemExit as end:
        return int(end.code or 0), out.getvalue(), err.getvalue()
    finally:
        os.chdir(before)


def failing_backend_env() -> dict[str, str]:
    """Return the variables that put `failing_backend` between a process and its state backend."""
    return {"AGENTEXEC_STATE_BACKEND": FAILING_BACKEND, "PYTHONPATH": str(REPOSITORY)}


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment with `variables` and without a developer's settings of agentexec."""
    # Without bytecode each of the many processes would compile its imports, which takes longer than most tests.
    foreign = re.compile("AGENTEXEC_|(DATABASE|REDIS)_URL$|OPENAI_|PYTHONDONTWRITEBYTECODE$")
    own = {name: value for name, value in os.environ.items() if not foreign.match(name)}
    return {**own, "PYTHONUNBUFFERED": "1", **variables}


def all_exited(processes: Iterable[psutil.Process], timeout: float = 10) -> bool:
    """Return True if all of them end in time."""
    processes = list(processes)
    deadline = time.monotonic() + patient(timeout)
    while any(is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Deploy(Protocol):
    """Factory of a test's deployment from settings."""

    def __call__(self, **settings: Any) -> Deployment: ...


@pytest.fixture
def deploy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deploy]:
    """Factory on the target that `@on_targets(...)` names, as in `deploy(num_workers=2)`; the test leaves nothing behind."""
    broker, _, database = request.param.rpartition("+")
    if database in ("embedded", "sqlite"):
        database_url, server = request.getfixturevalue("sqlite_tables"), None
    else:
        database_url, server = (
            request.getfixturevalue(f"{database}_tables"),
            request.getfixturevalue(database),
        )
    made: list[Deployment] = []

    def make(**settings: Any) -> Deployment:
        queue = request.getfixturevalue(broker) if broker else None
        made.append(Deployment(tmp_path, database_url, broker=queue, database=server, **settings))
        return made[-1]

    yield make
    for deployment in made:
        deployment.close()


@pytest.fixture(
    scope="module", params=["embedded", pytest.param("valkey+postgres", marks=pytest.mark.thorough)]
)
def running(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Deployment with a worker that serves all tests of a module."""
    folder = tmp_path_factory.mktemp("running")
    if request.param == "embedded":
        deployment = Deployment(folder, f"sqlite:///{folder / 'test.db'}")
        database = None
    else:
        database = f"running_{folder.name}"
        url = ensure_running(servers.postgres).create_database(database)
        deployment = Deployment(folder, url, broker=reset_server(servers.valkey), database=servers.postgres)
    ax.Base.metadata.create_all(RUNTIME.engine)
    deployment.start()
    yield deployment
    deployment.close()
    if database is not None:
        ensure_running(servers.postgres).drop_database(database)


def run_agentexec(
    *arguments: str, cwd: Path, text: str | None = None, timeout: float = 30, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `agentexec` in a folder, with only the given settings."""
    return run_python("-m", "agentexec", *arguments, cwd=cwd, text=text, timeout=timeout, **environment)


def run_python(
    *arguments: str, cwd: Path, text: str | None = None, timeout: float = 30, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with only the given settings."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=clean_environment(**environment),
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        timeout=patient(timeout),
    )
