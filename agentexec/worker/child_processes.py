"""Child processes: the supervisor's list of its worker processes and its maintenance process."""

from __future__ import annotations

import contextlib
import enum
import signal
from collections.abc import Iterator
from uuid import UUID

import psutil

from agentexec.worker.exits import restart_delay
from agentexec.worker.scoreboard import Cell, State

YOUNG_SECONDS = 5.0
"""Seconds. A process that dies younger counts as dying at its start, which delays its replacement."""

EXIT_WAIT = 5.0
"""Seconds that a killed process gets to disappear."""


class Restart(enum.StrEnum):
    """Reason for which a worker process is replaced by another one."""

    TASKS = "recycle_tasks"
    MEMORY = "recycle_memory"
    RELOAD = "reload"
    HANG = "hang"
    CRASH = "crash"


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
        self.cell: Cell | None = None
        """Place of the latest process on the scoreboard, if it is a worker."""
        self.owner: object = None
        """The generation whose template forks the process."""
        self.killed_for: Restart | None = None
        """Reason for which the supervisor has killed the process."""
        self.culprit: UUID | None = None
        """Task for which it was killed, if that is known."""
        self.successor: ChildProcess | None = None
        """Place that has taken over from this one, which is to end."""
        self.stop_by: int | None = None
        """Signal by which this process is told to end, None if it is asked to on the scoreboard."""
        self.told_at: float | None = None
        """Moment at which this process was first told to end."""
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

    @property
    def state(self) -> State | None:
        """State of a living worker process; None without one."""
        return None if self.cell is None or not self.alive else self.cell.state

    @property
    def serves(self) -> bool:
        """True once the process claims tasks, or has."""
        return self.state not in (None, State.STARTING)

    def request(self, process_id: str, owner: object = None) -> None:
        """Note that the template of a generation is asked for a process with this id."""
        self.id, self.owner, self.requested = process_id, owner, True

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

    def restart_now(self) -> None:
        """Let the next process start at once: the last one has done what it was meant to."""
        self._quick_deaths, self.restart_at = 0, 0.0

    def rss_bytes(self) -> int:
        """Return the memory that the process holds, 0 if there is none."""
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                return int(self._process.memory_info().rss)
        return 0

    def tell_to_end(self, now: float) -> None:
        """Tell the process to end; again each turn, as one that was just forked may not have its handlers yet."""
        if self.told_at is None:
            self.told_at = now
        if self.stop_by is not None:
            self.send_signal(self.stop_by)
        elif self.cell is not None:
            self.cell.order_retirement()

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
        """Place of the maintenance process of the code in service."""
        self.workers: list[ChildProcess] = []
        """Places of worker processes."""
        self.retired: list[ChildProcess] = []
        """Worker processes that others have replaced, and that finish their tasks."""
        self._extra_workers = 0

    def __iter__(self) -> Iterator[ChildProcess]:
        return iter([self.maintenance, *self.all_workers])

    @property
    def all_workers(self) -> list[ChildProcess]:
        """Every place of a worker process, also those that are given up."""
        return [*self.workers, *self.retired]

    def set_number_of_workers(self, number: int) -> None:
        """Add or remove places for worker processes, beside those that were added by signals."""
        number = max(1, number + self._extra_workers)
        for child in self.workers[number:]:
            self._give_up(child, signal.SIGTERM)
        del self.workers[number:]
        self.workers += [
            ChildProcess(f"worker-{place}", is_worker=True)
            for place in range(len(self.workers) + 1, number + 1)
        ]

    def change_number_of_workers(self, change: int) -> None:
        """Add or remove places, for as long as the supervisor runs."""
        number = len(self.workers)
        self._extra_workers += change
        self.set_number_of_workers(number + change - self._extra_workers)

    def replace(self, child: ChildProcess, stop_by: int | None) -> ChildProcess:
        """Give the place of a worker process to a successor, and let the process end once that one serves."""
        place = self.workers.index(child)
        self.workers[place] = child.successor = ChildProcess(child.name, is_worker=True)
        self._give_up(child, stop_by)
        return child.successor

    def predecessors(self, child: ChildProcess) -> list[ChildProcess]:
        """Return the processes from which a worker process takes over."""
        return [
            other for other in self.retired if other.name == child.name and (other.alive or other.requested)
        ]

    def _give_up(self, child: ChildProcess, stop_by: int | None) -> None:
        child.stop_by = stop_by
        if child.alive or child.requested:
            self.retired.append(child)

    def signal_workers(self, number: int) -> None:
        """Send a signal to every worker process."""
        for worker in self.all_workers:
            worker.send_signal(number)

    @property
    def workers_are_gone(self) -> bool:
        """True if no worker process lives or is about to start."""
        return not any(worker.alive or worker.requested for worker in self.all_workers)

    def wait_until_replaced(self, child: ChildProcess, delay: float) -> str:
        """Return when the next process starts, to complete "replacing it"."""
        if not delay:
            return " now"
        until = ", and no task starts here until then" if child.is_worker and self.workers_are_gone else ""
        return f" in {delay:.1f} s, because it keeps dying soon after its start{until}"


def process_start(pid: int) -> float | None:
    """Return when a process has started, in seconds since the epoch; None if there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except (psutil.Error, OverflowError):
        return None
