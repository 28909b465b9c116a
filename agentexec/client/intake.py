"""The way of new tasks into the record: those that are accepted at the same moment share a transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from sqlalchemy.exc import IntegrityError

from agentexec.activity.changes.new_tasks import NewTask

MAX_BATCH_SIZE = 500
"""Tasks in one transaction."""


class Waiting(NamedTuple):
    """A task, and where its caller waits."""

    task: NewTask
    done: Future[None]


class Intake:
    """Callers put a task in; one of them writes for all who came while the last transaction was under way.

    With one caller at a time this costs nothing; with many the database confirms once for all of them.
    """

    def __init__(self, write: Callable[[Sequence[NewTask]], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._waiting: list[Waiting] = []
        self._writing = False

    def put(self, task: NewTask) -> tuple[Future[None], bool]:
        """Add a task. Returns what becomes done once it is accepted, and whether the caller must see to `run`."""
        done: Future[None] = Future()
        with self._lock:
            self._waiting.append(Waiting(task, done))
            must_run = not self._writing
            self._writing = True
        return done, must_run

    def run(self, until: Future[None] | None = None) -> bool:
        """Write what waits. Returns False when `until` is done and others still wait: another must go on then."""
        while True:
            with self._lock:
                batch, self._waiting = self._waiting[:MAX_BATCH_SIZE], self._waiting[MAX_BATCH_SIZE:]
                if not batch:
                    self._writing = False
                    return True
            for part in _by_queue(batch):
                self._settle(part)
            if until is not None and until.done():
                with self._lock:
                    if self._waiting:
                        return False

    def close(self) -> None:
        """Nothing is kept open."""

    def _settle(self, batch: Sequence[Waiting]) -> None:
        try:
            self._write([waiting.task for waiting in batch])
        except IntegrityError as error:
            # An idempotency key that is taken: find it, so that the others are not harmed.
            if len(batch) == 1:
                batch[0].done.set_exception(error)
                return
            for waiting in batch:
                self._settle([waiting])
        except BaseException as error:
            for waiting in batch:
                waiting.done.set_exception(error)
        else:
            for waiting in batch:
                waiting.done.set_result(None)


def _by_queue(batch: Sequence[Waiting]) -> list[list[Waiting]]:
    parts: dict[Hashable, list[Waiting]] = {}
    for waiting in batch:
        # A caller that was canceled meanwhile wants its task no more.
        if waiting.done.set_running_or_notify_cancel():
            parts.setdefault(waiting.task.queue, []).append(waiting)
    return list(parts.values())
