"""Child processes: the supervisor's list of its worker processes and its maintenance process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil

from agentexec.policy import restart_delay

YOUNG_SECONDS = 5.0
"""Seconds. A process that dies younger counts as dying at its start, which delays its replacement."""

EXIT_WAIT = 5.0
"""Seconds that a killed process gets to disappear."""


class ChildProcess:
    """A place for a worker or maintenance process: the process in it, if any, and when the next one may start.

    Moments are monotonic seconds, passed in by the caller.
    """

    def __init__(self, name: str, *, is_worker: bool) -> None:
        self.name = name
        self.is_worker = is_worker
        self.id = ""
        """Id of the latest process: that of its leases, if it is a worker."""
        self.requested = False
        """True while the template is asked for a process."""
        self.restart_at = 0.0
        """Moment from which a process may be started."""
        self.exit_reason: str | None = None
        """Reason of the end, where the supervisor knows more than the exit code says; completes "The process …"."""
        self._process: psutil.Process | None = None
        self._started_at = 0.0
        self._quick_deaths = 0

    @property
    def alive(self) -> bool:
        """True from the start of a process until its end is noted."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Process id, None while none runs."""
        return None if self._process is None else self._process.pid

    def request(self, process_id: str) -> None:
        """Note that the template is asked for a process with this id."""
        self.id, self.requested = process_id, True

    def start(self, pid: int, now: float) -> bool:
        """Note that the process has started; returns False if it is already gone."""
        self._started_at = now
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self.exit_reason = "died at its start"
            return False
        return True

    def fail_to_start(self, reason: str, now: float) -> None:
        """Note that the process could not be started, for a reason that its end will be reported with."""
        self._started_at, self.exit_reason = now, reason

    def end(self) -> str | None:
        """Note that the process has ended, and return the reason if it is known."""
        reason = self.exit_reason
        self._process, self.requested, self.exit_reason = None, False, None
        return reason

    def schedule_restart(self, now: float) -> float:
        """Set when the next process may start, and return the delay in seconds: longer if it keeps dying young."""
        self._quick_deaths = self._quick_deaths + 1 if now - self._started_at < YOUNG_SECONDS else 0
        delay = restart_delay(self._quick_deaths)
        self.restart_at = now + delay
        return delay

    def lasts(self, now: float) -> bool:
        """Return True if the process is alive and not young."""
        return self.alive and now - self._started_at >= YOUNG_SECONDS

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, if there is one."""
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                self._process.send_signal(number)

    def kill(self, reason: str | None = None) -> None:
        """Kill the process, if there is one, for a reason that its end will be reported with."""
        if self._process is not None:
            self.exit_reason = reason or self.exit_reason
            with contextlib.suppress(psutil.Error):
                self._process.kill()

    def wait(self) -> None:
        """Wait for the end of the process, if there is one, for a few seconds."""
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                self._process.wait(EXIT_WAIT)


class ChildProcesses:
    """The maintenance process and the worker processes of a supervisor."""

    def __init__(self) -> None:
        self.maintenance = ChildProcess("maintenance", is_worker=False)
        self.workers: list[ChildProcess] = []

    def __iter__(self) -> Iterator[ChildProcess]:
        return iter([self.maintenance, *self.workers])

    def set_number_of_workers(self, number: int) -> None:
        """Add or remove places for worker processes, before any is started."""
        del self.workers[number:]
        self.workers += [
            ChildProcess(f"worker-{place}", is_worker=True)
            for place in range(len(self.workers) + 1, number + 1)
        ]

    def with_id(self, process_id: str) -> ChildProcess | None:
        """Return the child whose latest process has this id."""
        return next((child for child in self if child.id == process_id), None)

    def with_pid(self, pid: int) -> ChildProcess | None:
        """Return the living child with this pid."""
        return next((child for child in self if child.pid == pid), None)

    def signal_workers(self, number: int) -> None:
        """Send a signal to every worker process."""
        for worker in self.workers:
            worker.send_signal(number)

    @property
    def workers_are_gone(self) -> bool:
        """True if no worker process lives or is about to start."""
        return not any(worker.alive or worker.requested for worker in self.workers)

    def wait_until_replaced(self, child: ChildProcess, delay: float) -> str:
        """Return when the next process starts, to complete "replacing it"."""
        if not delay:
            return " now"
        until = ", and no task starts here until then" if child.is_worker and self.workers_are_gone else ""
        return f" in {delay:.1f} s, because it keeps dying soon after its start{until}"
