"""Reads and actions beside the screen, one after the other: keys are answered also while a database is slow or away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread

Take = Callable[[], None]
"""What is to be done on the screen with what was read."""


class Background:
    """One thread. It is a daemon: who quits does not wait for a database that gives no answer."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._jobs: SimpleQueue[Callable[[], Take]] = SimpleQueue()
        self._results: SimpleQueue[Take] = SimpleQueue()
        self._open = 0
        Thread(target=self._work, name="agentexec-monitor", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Something was given that has not come back."""
        return self._open > 0

    def submit(self, job: Callable[[], Take]) -> None:
        """Run this after what was given before."""
        self._open += 1
        self._jobs.put(job)

    def results(self) -> Iterator[Take]:
        """What has come back since. An error of the job is raised by its result."""
        while True:
            try:
                take = self._results.get_nowait()
            except Empty:
                return
            self._open -= 1
            yield take

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                take = job()
            except BaseException as error:
                take = _raising(error)
            self._results.put(take)
            self._wake()


def _raising(error: BaseException) -> Take:
    def take() -> None:
        raise error

    return take
