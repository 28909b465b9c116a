"""Mailbox of one process: results and cancellations."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, select

from agentexec.activity.models import Activity, ActivityResult
from agentexec.activity.receiver import Receiver, new_address
from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.db.columns import id_in
from agentexec.db.recurring import Recurring
from agentexec.db.round_trips import can_batch
from agentexec.db.transactions import looking_up, reading
from agentexec.payloads.columns import stored
from agentexec.payloads.sealing import unseal
from agentexec.runtime import Runtime
from agentexec.state.messages import CANCEL, DONE, LEFT, QUEUES, format_message, parse_messages, parse_moves
from agentexec.task import FINAL_STATUSES, Status

log = logging.getLogger("agentexec.signals")


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """Outcome of a task, read from the record.

    `age` is the number of seconds since the task ended. `stored_result` is the stored form of its result; None if the task returned
    None or its result has expired.
    """

    agent_id: UUID
    task_name: str
    status: Status
    attempts: int
    error: str | None
    age: float
    stored_result: str | None

    @property
    def result(self) -> str | None:
        """The result as JSON. Raises EncryptionKeyError to who asks, not to all who wait."""
        return None if self.stored_result is None else unseal(self.stored_result)


CheckRows = Callable[[Sequence[Any]], None]
"""Check of the rows of tasks that are to be waited for, which raises an error if they must not be."""

_OUTCOMES = select(
    Activity.agent_id,
    Activity.agent_type,
    Activity.status,
    Activity.queue,
    Activity.lock_key,
    Activity.held_lock,
    Activity.concurrency_key,
    Activity.attempt,
    Activity.error,
    Activity.finished_at,
    stored(ActivityResult.value),
).outerjoin(ActivityResult, ActivityResult.agent_id == Activity.agent_id)


class _Row(NamedTuple):
    """Row of the query, where SQLAlchemy does not make it."""

    agent_id: UUID
    agent_type: str
    status: Status
    queue: str | None
    lock_key: str | None
    held_lock: str | None
    concurrency_key: str | None
    attempt: int
    error: str | None
    finished_at: datetime | None
    value: str | None


class OutcomeQuery:
    """The query of outcomes on one engine. On PostgreSQL it does without SQLAlchemy, which takes longer than all else."""

    def __init__(self, engine: Engine) -> None:
        dialect = engine.dialect
        self._engine = engine
        self._query: Any = _OUTCOMES.where(id_in(Activity.agent_id, dialect.name))
        is_quick = dialect.name == "postgresql" and can_batch(dialect)
        self._quick = Recurring(engine, self._query) if is_quick else None

    def read(self, agent_ids: Sequence[UUID]) -> list[Any]:
        """Return the rows of some tasks. Raises UnavailableError."""
        values = {"ids": list(agent_ids)}
        if self._quick is not None:
            rows = (_Row(*row) for row in self._quick.read(values))
            return [row._replace(status=Status[row.status]) for row in rows]
        with looking_up(self._engine) as connection:
            return list(connection.execute(self._query, values))

    def close(self) -> None:
        """Do nothing: it holds no resource."""


class Mailbox:
    """Mailbox of one process: tells any number of callers how tasks ended, and the process which tasks are canceled."""

    def __init__(self, runtime: Runtime, address: str | None = None) -> None:
        self._runtime = runtime
        self.address = address or new_address()
        self._receiver = Receiver(
            runtime,
            self.address,
            name="agentexec-signals",
            log=log,
            consequence="Results are looked up in the database until it is back.",
            recovered="Messages about finished and canceled tasks are received again.",
            handle=self._handle,
            check=self._check,
            check_record=self._look_up_all,
        )
        self._waiting: dict[UUID, tuple[str, list[Future[TaskOutcome]]]] = {}
        self._lock = threading.Lock()
        self._on_cancel: Callable[[UUID], object] | None = None
        self._on_watch: Callable[[Sequence[UUID]], object] | None = None
        self._on_queues: Callable[[], object] = lambda: None
        self._on_move: Callable[[str], bool] = lambda _queue: False

    def on_cancel(self, call: Callable[[UUID], object]) -> None:
        """Call `call`, in the thread of the mailbox, for each task of this process that is canceled."""
        self._on_cancel = call
        self._receiver.start()

    def on_queues(self, call: Callable[[], object]) -> None:
        """Call `call`, in the thread of the mailbox, when a queue may have been paused or resumed, and every few seconds.

        It may raise UnavailableError.
        """
        self._on_queues = call

    def on_move(self, call: Callable[[str], bool]) -> None:
        """Call `call`, in the thread of the mailbox, with the name of a queue that moves to another state backend.

        It returns True once this process claims none of its tasks, of which the sender is told. It may raise UnavailableError.
        """
        self._on_move = call

    def on_watch(self, call: Callable[[Sequence[UUID]], object]) -> None:
        """Call `call`, in the thread of the caller of `watch`, with the tasks that it watches."""
        self._on_watch = call

    def watch(
        self,
        queue: str,
        agent_ids: Sequence[UUID],
        *,
        also_read: Sequence[UUID] = (),
        check: CheckRows | None = None,
    ) -> list[Future[TaskOutcome]]:
        """Return a future for the outcome of each task. Blocks for two short calls.

        `check` is given the rows of the tasks, and of those to be read with them, and may raise an error of its own.

        Raises:
            UnavailableError: The database cannot be reached.
        """
        futures: list[Future[TaskOutcome]] = []
        with self._lock:
            for agent_id in agent_ids:
                future: Future[TaskOutcome] = Future()
                self._waiting.setdefault(agent_id, (queue, []))[1].append(future)
                futures.append(future)
        self._receiver.start()
        with self._runtime.best_effort(log, "Results are looked up in the database until it is back."):
            self._runtime.backend.watch(queue, agent_ids, self.address)
        # After the watch: nobody was told of a task that ended before it.
        try:
            rows = _read_rows(self._runtime, [*agent_ids, *also_read])
            self._deliver(row for row in rows if row.status in FINAL_STATUSES)
            if check is not None:
                check(rows)
        except BaseException:
            for agent_id, future in zip(agent_ids, futures, strict=True):
                self.unwatch(agent_id, future)
            raise
        if self._on_watch is not None:
            self._on_watch(agent_ids)
        return futures

    def unwatch(self, agent_id: UUID, future: Future[TaskOutcome]) -> None:
        """Drop a future that `watch` returned."""
        with self._lock:
            entry = self._waiting.get(agent_id)
            if entry is not None and future in entry[1]:
                entry[1].remove(future)
                if not entry[1]:
                    del self._waiting[agent_id]

    def close(self) -> None:
        """End the thread after its current turn."""
        self._receiver.close()

    def join(self, timeout: float) -> None:
        """Wake the thread after `close`, and wait up to `timeout` seconds for its end."""
        self._receiver.join(timeout)

    def _handle(self, messages: Sequence[str]) -> None:
        done = parse_messages(messages, DONE)
        if self._on_cancel is not None and (canceled := parse_messages(messages, CANCEL)):
            # Anyone who can write to the state backend can send this for any task: the record decides.
            running = _running(self._runtime, canceled)
            for agent_id in canceled:
                if agent_id not in running:
                    self._on_cancel(agent_id)
        if done:
            self._look_up(done)
        if QUEUES in messages:
            self._on_queues()
        for queue, mailbox in parse_moves(messages):
            if self._on_move(queue):
                self._runtime.backend.send(mailbox, [format_message(LEFT, self.address)])

    def _check(self) -> None:
        self._on_queues()
        for queue, agent_ids in self._waiting_by_queue().items():
            self._look_up(agent_ids)
            # The state backend may have been emptied, and the watch with it.
            self._runtime.backend.watch(queue, agent_ids, self.address)

    def _look_up_all(self) -> None:
        self._on_queues()
        for agent_ids in self._waiting_by_queue().values():
            self._look_up(agent_ids)

    def _waiting_by_queue(self) -> dict[str, list[UUID]]:
        queues: dict[str, list[UUID]] = {}
        with self._lock:
            for agent_id, (queue, _) in self._waiting.items():
                queues.setdefault(queue, []).append(agent_id)
        return queues

    def _look_up(self, agent_ids: Sequence[UUID]) -> None:
        rows = _read_rows(self._runtime, agent_ids)
        self._deliver(row for row in rows if row.status in FINAL_STATUSES)

    def _deliver(self, ended: Iterable[Any]) -> None:
        for outcome in map(_outcome, ended):
            with self._lock:
                entry = self._waiting.pop(outcome.agent_id, None)
            for future in entry[1] if entry else ():
                # Not `cancelled()`: another thread may cancel between that question and set_result.
                if future.set_running_or_notify_cancel():
                    future.set_result(outcome)


def _running(runtime: Runtime, agent_ids: Sequence[UUID]) -> set[UUID]:
    """Return the tasks that are RUNNING according to the record."""
    found: set[UUID] = set()
    with reading(runtime.engine) as connection:
        for chunk in chunks(agent_ids):
            query = select(Activity.agent_id).where(
                Activity.agent_id.in_(chunk), Activity.status == Status.RUNNING
            )
            found.update(connection.execute(query).scalars())
    return found


def read_outcomes(runtime: Runtime, agent_ids: Sequence[UUID]) -> list[TaskOutcome]:
    """Return the outcomes of the tasks that have ended."""
    rows = _read_rows(runtime, agent_ids)
    return [_outcome(row) for row in rows if row.status in FINAL_STATUSES]


def _read_rows(runtime: Runtime, agent_ids: Sequence[UUID]) -> list[Any]:
    query = runtime.get_shared(OutcomeQuery, lambda: OutcomeQuery(runtime.engine))
    return [row for chunk in chunks(agent_ids) for row in query.read(chunk)]


def _outcome(row: Any) -> TaskOutcome:
    age = utc_now().timestamp() - row.finished_at.timestamp() if row.finished_at else 0.0
    return TaskOutcome(row.agent_id, row.agent_type, row.status, row.attempt, row.error, age, row.value)
