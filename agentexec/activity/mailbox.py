"""The mailbox of a process: one thread that hears of finished tasks and of cancels, for everyone in it."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select

from agentexec.activity.models import Activity, ActivityResult
from agentexec.db.chunks import chunks
from agentexec.db.transactions import reading
from agentexec.errors import UnavailableError
from agentexec.outage import backoff
from agentexec.runtime import Runtime
from agentexec.state.messages import CANCEL, DONE, parse_messages
from agentexec.task import FINAL_STATUSES, Status

log = logging.getLogger("agentexec.signals")

RECHECK_SECONDS = 5.0
"""How often everything waited for is looked up in the record: a signal may be lost with the state backend, the
record is not."""


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """How a task ended, as the record tells it; `result` is JSON, None for a result of None or one expired."""

    agent_id: UUID
    task_name: str
    status: Status
    attempts: int
    error: str | None
    age: float
    result: str | None


_ENDS = (
    select(
        Activity.agent_id,
        Activity.agent_type,
        Activity.status,
        Activity.attempt,
        Activity.error,
        Activity.finished_at,
        ActivityResult.value,
    )
    .outerjoin(ActivityResult, ActivityResult.agent_id == Activity.agent_id)
    .where(Activity.agent_id.in_(bindparam("ids", expanding=True)))
)


class Mailbox:
    """Waits for ends of tasks on behalf of any number of callers, with one thread and one mailbox."""

    def __init__(self, runtime: Runtime, address: str | None = None) -> None:
        self._runtime = runtime
        self.address = address or f"{os.getpid()}-{secrets.token_hex(6)}"
        self._waiting: dict[UUID, tuple[str, list[Future[TaskOutcome]]]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._on_cancel: Callable[[UUID], object] | None = None
        self._on_watch: Callable[[Sequence[UUID]], object] | None = None
        self._closed = False

    def on_cancel(self, call: Callable[[UUID], object]) -> None:
        """Have `call` called (in the mailbox's thread) for tasks of this process that are canceled."""
        self._on_cancel = call
        self._listen()

    def on_watch(self, call: Callable[[Sequence[UUID]], object]) -> None:
        """Call `call`, in the thread of the caller of `watch`, with the tasks that it watches."""
        self._on_watch = call

    def watch(self, queue: str, agent_ids: Sequence[UUID]) -> list[Future[TaskOutcome]]:
        """Futures of the ends of tasks. Blocks for two short calls; raises UnavailableError."""
        futures: list[Future[TaskOutcome]] = []
        with self._lock:
            for agent_id in agent_ids:
                future: Future[TaskOutcome] = Future()
                self._waiting.setdefault(agent_id, (queue, []))[1].append(future)
                futures.append(future)
        self._listen()
        try:
            self._runtime.backend.watch(queue, agent_ids, self.address)
        except UnavailableError as error:
            log.warning("%s Results are looked up in the database until it is back.", error)
        # After the watch: an end that came before it was told to nobody.
        self._look_up(agent_ids)
        if self._on_watch is not None:
            self._on_watch(agent_ids)
        return futures

    def unwatch(self, agent_id: UUID, future: Future[TaskOutcome]) -> None:
        """Stop waiting."""
        with self._lock:
            entry = self._waiting.get(agent_id)
            if entry is not None and future in entry[1]:
                entry[1].remove(future)
                if not entry[1]:
                    del self._waiting[agent_id]

    def close(self) -> None:
        """End the thread at its next turn."""
        self._closed = True

    def join(self, timeout: float) -> None:
        """Wake the thread after `close`, and wait up to `timeout` seconds for its end."""
        if self._thread is not None:
            self._runtime.backend.send(self.address, ["closed"])
            self._thread.join(timeout)

    def _listen(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agentexec-signals", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        failures = 0
        next_check = time.monotonic() + RECHECK_SECONDS
        while not self._closed:
            try:
                # By the clock: where messages never cease, a signal that was lost would else be waited for without end.
                left = max(0.0, next_check - time.monotonic())
                if messages := self._runtime.backend.receive(self.address, left):
                    self._act_on(messages)
                if time.monotonic() >= next_check:
                    self._check_all()
                    next_check = time.monotonic() + RECHECK_SECONDS
                if failures:
                    log.info("Signals are heard again.")
                failures = 0
            except UnavailableError as error:
                failures += 1
                if failures == 1:
                    log.warning("%s Waiting for it.", error)
                time.sleep(backoff(failures))
                self._check_all_quietly()
            except Exception:
                log.exception("A signal could not be handled.")
                time.sleep(1.0)

    def _act_on(self, messages: Iterable[str]) -> None:
        messages = list(messages)
        done = parse_messages(messages, DONE)
        if self._on_cancel is not None and (canceled := parse_messages(messages, CANCEL)):
            # Who can write to the state backend can send this for any task: the record decides.
            running = _running(self._runtime, canceled)
            for agent_id in canceled:
                if agent_id not in running:
                    self._on_cancel(agent_id)
        if done:
            self._look_up(done)

    def _check_all_quietly(self) -> None:
        try:
            self._check_all()
        except UnavailableError:
            log.debug("The record cannot be read either.")

    def _check_all(self) -> None:
        with self._lock:
            queues: dict[str, list[UUID]] = {}
            for agent_id, (queue, _) in self._waiting.items():
                queues.setdefault(queue, []).append(agent_id)
        for queue, agent_ids in queues.items():
            self._look_up(agent_ids)
            # The state backend may have been emptied, and the watch with it.
            self._runtime.backend.watch(queue, agent_ids, self.address)

    def _look_up(self, agent_ids: Sequence[UUID]) -> None:
        for end in read_outcomes(self._runtime, agent_ids):
            with self._lock:
                entry = self._waiting.pop(end.agent_id, None)
            for future in entry[1] if entry else ():
                # Not `cancelled()`: another thread may cancel between the question and the answer.
                if future.set_running_or_notify_cancel():
                    future.set_result(end)


def _running(runtime: Runtime, agent_ids: Sequence[UUID]) -> set[UUID]:
    """Those that the record has as RUNNING."""
    found: set[UUID] = set()
    with reading(runtime.engine) as connection:
        for chunk in chunks(agent_ids):
            query = select(Activity.agent_id).where(
                Activity.agent_id.in_(chunk), Activity.status == Status.RUNNING
            )
            found.update(connection.execute(query).scalars())
    return found


def read_outcomes(runtime: Runtime, agent_ids: Sequence[UUID]) -> list[TaskOutcome]:
    """The ends of those tasks that have ended."""
    ends: list[TaskOutcome] = []
    with reading(runtime.engine) as connection:
        for start in range(0, len(agent_ids), 500):
            rows = connection.execute(_ENDS, {"ids": list(agent_ids[start : start + 500])})
            ends.extend(_end(row) for row in rows if row.status in FINAL_STATUSES)
    return ends


def _end(row: Any) -> TaskOutcome:
    age = time.time() - row.finished_at.timestamp() if row.finished_at else 0.0
    return TaskOutcome(row.agent_id, row.agent_type, row.status, row.attempt, row.error, age, row.value)
