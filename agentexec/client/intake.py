"""Group commit of new tasks: tasks that are accepted at the same moment share a transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.arguments.checks import first_line
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.errors import SchemaError, UnavailableError, UsageError
from agentexec.redaction import redact
from agentexec.runtime import RUNTIME

T = TypeVar("T")


class Waiting(NamedTuple):
    """A new task, and the future on which its caller waits."""

    task: NewTask
    done: Future[None]


class Intake:
    """Queue of new tasks: one caller writes the tasks of all callers that came during the last transaction.

    With one caller at a time this costs nothing. With many callers, the database commits once for all of them.
    """

    def __init__(self, write: Callable[[Sequence[NewTask]], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._waiting: list[Waiting] = []
        self._writing = False

    def put(self, task: NewTask) -> tuple[Future[None], bool]:
        """Add a task. Return a future that is done once the task is accepted, and True if the caller must call `run`."""
        done: Future[None] = Future()
        with self._lock:
            self._waiting.append(Waiting(task, done))
            must_run = not self._writing
            self._writing = True
        return done, must_run

    def run(self, until: Future[None] | None = None) -> bool:
        """Write the tasks that wait. Return False when `until` is done and others still wait: call `run` again for those."""
        while True:
            with self._lock:
                batch, self._waiting = self._waiting[:CHUNK_SIZE], self._waiting[CHUNK_SIZE:]
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
        """Do nothing: an intake holds no resource."""

    def _settle(self, batch: Sequence[Waiting]) -> None:
        try:
            self._write([waiting.task for waiting in batch])
        except (UnavailableError, SchemaError) as error:
            # No task is the cause, so none would fare better alone.
            _fail(batch, error)
        except Exception as error:
            # A single task is the cause: write one by one, so that only that task fails.
            if len(batch) == 1:
                _fail(batch, error)
                return
            for waiting in batch:
                self._settle([waiting])
        except BaseException as error:
            _fail(batch, error)
        else:
            for waiting in batch:
                waiting.done.set_result(None)


def _fail(batch: Sequence[Waiting], error: BaseException) -> None:
    for waiting in batch:
        waiting.done.set_exception(error)


def _by_queue(batch: Sequence[Waiting]) -> list[list[Waiting]]:
    parts: dict[Hashable, list[Waiting]] = {}
    for waiting in batch:
        # A caller that was canceled no longer wants its task.
        if waiting.done.set_running_or_notify_cancel():
            parts.setdefault(waiting.task.queue, []).append(waiting)
    return list(parts.values())


@contextmanager
def naming_refusals(batch: Sequence[NewTask]) -> Generator[None]:
    """Turn what a database or its driver raises about values into a UsageError. An idempotency key may still be taken."""
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, ValueError, TypeError, OverflowError) as error:
        reason = first_line(getattr(error, "orig", None) or error)
        raise UsageError(
            f"Task {batch[0].task_name} could not be recorded: the database refuses a value ({redact(reason)})."
        ) from error


def with_tables(record: Callable[[], T]) -> T:
    """Record tasks. Only agentexec uses the embedded database, so its first user creates the tables."""
    try:
        return record()
    except SchemaError:
        if not RUNTIME.embedded:
            raise
        # Imported on use: it loads the tables of everything.
        from agentexec.schema.migrate import upgrade  # noqa: PLC0415

        upgrade(RUNTIME.engine)
        return record()
