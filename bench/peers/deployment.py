"""One queue with its servers, its workers and its client, each a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

import agentexec as ax
from agentexec.db.engine import open_engine
from bench.peers.catalog import Peer
from bench.targets import BenchError
from bench.workers import pss
from tests.environments import environment_of
from tests.servers import Postgres, Valkey

PROGRAMS = Path(__file__).parent / "programs"
STOP_SECONDS = 5.0


class Deployment:
    """Running queue. `ask` has its client measure; the workers can be stopped meanwhile."""

    def __init__(
        self,
        client: subprocess.Popen[str],
        workers: list[subprocess.Popen[bytes]],
        start: Callable[[], list[subprocess.Popen[bytes]]],
        log: Path,
    ) -> None:
        self._client, self._workers, self._start, self._log = client, workers, start, log
        self._read()

    def ask(self, command: str, number: int) -> dict[str, Any]:
        """Have the client obey a command, and return what it measured. Raises BenchError if it ends instead."""
        assert self._client.stdin is not None
        self._client.stdin.write(f"{command} {number}\n")
        self._client.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._client.stdout is not None
        for line in self._client.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise BenchError(f"the client has ended: {self._log.read_text()[-1500:]}")

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the workers."""
        found = []
        for worker in self._workers:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(worker.pid)
                found += [process, *process.children(recursive=True)]
        return found

    @contextmanager
    def without_workers(self) -> Generator[None]:
        """Stop the workers meanwhile. Suspended ones would keep their locks, and lose what is sent to them."""
        _end(self._workers)
        self._workers.clear()
        try:
            yield
        finally:
            self._workers += self._start()

    def memory(self) -> float:
        """Return the megabytes of all processes of the workers, shared ones counted once."""
        return pss(self.processes()) / 1e6

    def idle(self, seconds: float) -> float:
        """Return the share of one processor, in percent, that the workers use without a task."""
        before = _processor_seconds(family := self.processes())
        time.sleep(seconds)
        return 100 * (_processor_seconds(family) - before) / seconds


def _processor_seconds(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def opened(peer: Peer) -> Generator[Deployment]:
    """Start the servers, the workers and the client of a queue; all of it is ended afterwards."""
    python = environment_of(peer.program.removesuffix("_program"), peer.packages)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentexec-peer-")))
        environment = {**os.environ, **_servers(peer, stack, folder)}
        environment |= {
            "STAMPS": str(folder / "stamps"),
            "PYTHONPATH": str(PROGRAMS),
            "PATH": f"{python.parent}:{os.environ['PATH']}",
        }
        log = folder / "log"
        output = stack.enter_context(log.open("ab"))
        common: Any = {"env": environment, "cwd": PROGRAMS, "stderr": output, "start_new_session": True}
        if peer.prepare:
            subprocess.run(_command(peer.prepare, python), check=True, stdout=output, **common)
        # First, as it receives the workers' stamps.
        client = subprocess.Popen(
            [str(python), "serve.py", peer.program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **common,
        )
        stack.callback(_end, [client])

        def start() -> list[subprocess.Popen[bytes]]:
            return [
                subprocess.Popen(_command(command, python), stdout=output, **common)
                for command in peer.workers
            ]

        workers = start()
        stack.callback(_end, workers)
        yield Deployment(client, workers, start, log)


def _command(command: str, python: Path) -> list[str]:
    program, *arguments = shlex.split(command)
    return [str(python.parent / program), *arguments]


def _servers(peer: Peer, stack: ExitStack, folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    if peer.redis:
        found["REDIS"] = stack.enter_context(Valkey()).url
    if peer.database == "postgres":
        url = stack.enter_context(Postgres(fsync=True)).create_database("bench")
        found["DATABASE"] = url if not peer.packages else url.replace("postgresql+psycopg", "postgresql")
    elif peer.database == "sqlite":
        found["DATABASE"] = f"sqlite:///{folder / 'bench.db'}"
    if not peer.packages:
        ax.Base.metadata.create_all(engine := open_engine(found["DATABASE"]))
        engine.dispose()
        found = {f"AGENTEXEC_{name}_URL": value for name, value in found.items()}
    return found


def _end(processes: list[Any]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
