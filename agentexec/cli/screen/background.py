"""The monitor's second thread: keys are answered even while the database is slow or away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread

Update = Callable[[], None]
"""Change of the monitor's state, made on the screen's thread with what a job returned."""

Job = Callable[[], Update]


class Background:
    """One thread that runs jobs in order.

    The screen's thread calls every method; jobs run on the other one. It is a daemon, so quitting does not wait for
    a database that does not answer.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._updates: SimpleQueue[Update] = SimpleQueue()
        self._pending = 0
        Thread(target=self._run_jobs, name="agentexec-monitor", daemon=True).start()

    @property
    def busy(self) -> bool:
        """True while a submitted job's update has not been taken."""
        return self._pending > 0

    def submit(self, job: Job) -> None:
        """Run a job after those submitted before."""
        self._pending += 1
        self._jobs.put(job)

    def updates(self) -> Iterator[Update]:
        """Yield the updates of the jobs that have finished. Calling one raises its job's error."""
        while True:
            try:
                update = self._updates.get_nowait()
            except Empty:
                return
            self._pending -= 1
            yield update

    def _run_jobs(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                update = job()
            except BaseException as error:
                update = _raising(error)
            self._updates.put(update)
            self._wake()


def _raising(error: BaseException) -> Update:
    def update() -> None:
        raise error

    return update
