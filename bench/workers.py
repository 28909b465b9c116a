"""Workers as users run them: `agentexec worker`, started, watched and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

import agentexec as ax
from bench.frozen import resume, suspend
from bench.targets import BenchError, Target
from tests.servers import KEEPER

MODULE = Path(__file__).with_name("tasks.py")
WITH_AGENTS = Path(__file__).with_name("agent_tasks.py")
READY = "worker(s) with"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
WARM_TASKS = 100


class Workers:
    """Command `agentexec worker MODULE -w PROCESSES -c CONCURRENCY` on a target, during a `with` block."""

    def __init__(
        self,
        target: Target,
        *,
        processes: int = 2,
        concurrency: int = 10,
        module: Path = MODULE,
        **environment: str,
    ) -> None:
        self._environment = environment
        self._target = target
        self._module = module
        self._number = processes
        self._concurrency = concurrency
        self._lines: list[tuple[float, str]] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self.started_at = time.time()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "agentexec", "worker", str(self._module)),
                *("-w", str(self._number), "-c", str(self._concurrency)),
            ],
            cwd=self._target.folder,
            env={
                **os.environ,
                **self._target.environment,
                **self._environment,
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": str(MODULE.parent.parent),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C goes to the benchmark alone, which then stops its workers
        )
        # Stops the workers if the benchmark was killed and cannot.
        self._keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "keeper", "TERM", str(self._process.pid), str(self._target.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            self.ready_at = self.wait_for_line(READY)
            self._wait_for_processes()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    # ---- processes ---------------------------------------------------------------------------------------

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process(self._process.pid)

    @property
    def template(self) -> psutil.Process:
        """Process that has loaded the tasks and forks the others."""
        return self.supervisor.children()[0]

    @property
    def maintenance(self) -> psutil.Process:
        """Maintenance process, which is always forked first."""
        return self._forked()[0]

    @property
    def workers(self) -> list[psutil.Process]:
        return self._forked()[1:]

    def roles(self) -> dict[str, list[psutil.Process]]:
        """Return the processes by role."""
        maintenance, *workers = self._forked()
        return {
            "supervisor": [self.supervisor],
            "template": [self.template],
            "maintenance": [maintenance],
            "worker": workers,
        }

    def kill(self) -> None:
        """Kill every process at the same time, as the end of a host does."""
        for process in [self.supervisor, *self.supervisor.children(recursive=True)]:
            process.kill()

    def pause(self) -> None:
        """Suspend the worker processes, so that tasks enqueued now wait for `resume`."""
        suspend(self.workers, self._target.database_url)

    def resume(self) -> None:
        """Resume suspended workers."""
        resume(self.workers)

    def _forked(self) -> list[psutil.Process]:
        return sorted(self.template.children(), key=lambda process: (process.create_time(), process.pid))

    def _wait_for_processes(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while len(self._forked()) < self._number + 1:
            if time.monotonic() > deadline:
                raise BenchError(f"the workers did not start: {self._log_tail()}")
            time.sleep(0.01)

    # ---- tasks -------------------------------------------------------------------------------------------

    def cpu_seconds(self) -> float:
        """Return the processor time that all processes have used."""
        family = [self.supervisor, *self.supervisor.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in family)

    def warm(self) -> None:
        """Have the workers run some tasks, so that connections and caches are as in production."""
        asyncio.run(ax.enqueue_many("stamp", [{"number": number} for number in range(WARM_TASKS)]))
        self._target.wait_until_over(60)

    # ---- log ---------------------------------------------------------------------------------------------

    def wait_for_line(self, text: str, timeout: float = START_TIMEOUT) -> float:
        """Wait for a log line with `text`, and return its time. Raises BenchError if the process ends without it."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: any(text in line for _, line in self._lines) or self._process.poll() is not None,
                timeout,
            )
            for moment, line in self._lines:
                if text in line:
                    return moment
        state = "ended" if found else f"logged no {text!r} within {timeout:g} s"
        raise BenchError(f"agentexec worker {state}: {self._log_tail()}")

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append((time.time(), line.rstrip()))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _log_tail(self) -> str:
        return " | ".join(line for _, line in self._lines[-8:]) or "(no log)"

    # ---- stop --------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        self._keeper.kill()
        self._keeper.communicate()
        family = self._family()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, 5)
        self._reader.join(5)

    def _family(self) -> list[psutil.Process]:
        try:
            family = [self.supervisor, *self.supervisor.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        return family[1:]


def pss(processes: Iterable[psutil.Process]) -> int:
    """Return the bytes of memory that processes use.

    On Linux, shared memory counts once; elsewhere, only the memory of each process alone counts.
    """
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
    return total
