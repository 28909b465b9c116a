"""Running tasks: one asyncio task for each handler, on the event loop of the process."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from agentexec.activity.changes.admissions import Admitted
from agentexec.activity.changes.endings import Ending
from agentexec.config import Settings
from agentexec.journal.user_errors import guard_threads
from agentexec.registry import Registry
from agentexec.task import Lease, Status
from agentexec.telemetry.meter import Meter
from agentexec.worker.attempt import execute_attempt, permanent_failure
from agentexec.worker.event_loop import AttemptTask, protect_loop
from agentexec.worker.failure_log import log_failure
from agentexec.worker.leased_tasks import LeasedTasks
from agentexec.worker.task_measures import TaskMeasures

if TYPE_CHECKING:
    from agentexec.telemetry.tracing import Tracing

log = logging.getLogger("agentexec.worker")

TASK_PREFIX = "agentexec:"
"""Start of the names of asyncio tasks that run a handler; the name of the handler's task follows."""

STOPPED_MESSAGE = "The worker stopped before the task was finished; the task goes back to the queue."
"""Message in a task's log when a worker hands it back."""

MOVED_MESSAGE = "The queue moves while the task waits for others; the task goes back to it."
"""Message in a task's log when a worker hands it back because its queue moves to another state backend."""


class SupportsEnd(Protocol):
    """Part of the Writer that running tasks use."""

    def end(self, ending: Ending) -> None:
        """Write the end of a task with the next batch."""
        ...


class RunningTasks:
    """Tasks whose handlers run in this process.

    Threads: the event loop's thread owns the state. `begin` and `abort` may be called from any thread, and hand over
    with `call_soon_threadsafe`; everything else belongs to the event loop, except `count`, a mere reading, and `_begun`,
    to which `begin` adds.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        tasks: LeasedTasks,
        writer: SupportsEnd,
        threads: ThreadPoolExecutor,
        meter: Meter | None = None,
        tracing: Tracing | None = None,
        on_aborted: Callable[[UUID], object] = lambda _: None,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._tasks = tasks
        self._writer = writer
        self._threads = threads
        self._tracing = tracing
        self._on_aborted = on_aborted
        self._measures = None if meter is None else TaskMeasures(meter)
        self._begun: dict[UUID, Lease] = {}
        self._running: dict[UUID, AttemptTask[None]] = {}
        self._aborted: set[UUID] = set()
        self._moving: set[UUID] = set()
        self.started = 0
        """Number of tasks that this process has started; the claiming thread counts them."""
        self.draining = False
        """True once the process drains: a canceled handler is then handed back."""

    def open(self) -> None:
        """Use the running event loop."""
        self._loop = asyncio.get_running_loop()
        guard_threads(self._loop)
        protect_loop(self._loop)

    def begin(self, started: Sequence[Admitted]) -> None:
        """Run the handlers of admitted tasks; from any thread."""
        self.started += len(started)
        for admitted in started:
            self._begun[admitted.lease.agent_id] = admitted.lease
        self._loop.call_soon_threadsafe(self._begin, started)

    def abort(self, agent_id: UUID) -> None:
        """Stop a task that was canceled or claimed by another worker; from any thread."""
        self._loop.call_soon_threadsafe(self._abort, agent_id)

    def cancel_task(self, agent_id: UUID) -> None:
        """Stop a task that was canceled; from any thread."""
        self._loop.call_soon_threadsafe(self._abort, agent_id, True)

    def put_back(self, agent_ids: Collection[UUID]) -> None:
        """Stop tasks that go back to their queue, because it moves; on the event loop."""
        for agent_id in agent_ids:
            if agent_id in self._running and agent_id not in self._aborted:
                self._moving.add(agent_id)
                self._running[agent_id].stop()

    @property
    def count(self) -> int:
        """Number of running tasks."""
        return len(self._running)

    def cancel(self, agent_ids: Collection[UUID] | None = None) -> None:
        """Cancel the handlers of some tasks, or of all; during a drain that hands the tasks back."""
        for agent_id, task in list(self._running.items()):
            if agent_ids is None or agent_id in agent_ids:
                task.stop()

    async def wait(
        self,
        timeout: float | None = None,
        *,
        until: asyncio.Future[Any] | None = None,
        return_when: str = asyncio.FIRST_COMPLETED,
    ) -> None:
        """Wait for running tasks to end, or for `until`, at most `timeout` seconds."""
        waited = [*self._running.values(), *([until] if until is not None else [])]
        if waited:
            await asyncio.wait(waited, timeout=timeout, return_when=return_when)

    def hand_back(self) -> None:
        """Write the endings of tasks that will not end by themselves.

        Plain functions in threads do not stop, and nothing does once the event loop has ended.
        """
        for agent_id, lease in list(self._begun.items()):
            if self._tasks.epoch(agent_id) == lease.epoch and agent_id not in self._aborted:
                self._writer.end(_handed_back(lease))

    def _begin(self, started: Sequence[Admitted]) -> None:
        if self._measures is not None:
            self._measures.note_starts(started)
        now = time.monotonic()
        for admitted in started:
            self._running[admitted.lease.agent_id] = AttemptTask(
                self._execute(admitted),
                lease=admitted.lease,
                loop=self._loop,
                name=f"{TASK_PREFIX}{admitted.task_name}",
                began=now,
                on_unstarted=functools.partial(self._settle_unstarted, admitted),
            )

    async def _execute(self, admitted: Admitted) -> None:
        if self._tracing is None:
            ending = await self._attempt(admitted)
        else:
            ending = await self._traced_attempt(self._tracing, admitted)
        self._settle(admitted, ending)

    async def _traced_attempt(self, tracing: Tracing, admitted: Admitted) -> Ending:
        agent_id = admitted.lease.agent_id
        queue = self._tasks.queue_of(agent_id)
        with tracing.processing(
            admitted.task_name, agent_id, admitted.attempt, queue, admitted.trace_context
        ) as span:
            ending = await self._attempt(admitted)
            outcome = "aborted" if agent_id in self._aborted else ending.status.value
            span.note_outcome(outcome, ending.error)
            return ending

    async def _attempt(self, admitted: Admitted) -> Ending:
        agent_id = admitted.lease.agent_id
        try:
            return await execute_attempt(
                self._registry,
                admitted,
                self._threads,
                is_stopping=lambda: self.draining or agent_id in self._aborted or agent_id in self._moving,
            )
        except asyncio.CancelledError:
            # An aborted task has an ending already, or another worker: this one is not written.
            return _handed_back(
                admitted.lease, MOVED_MESSAGE if agent_id in self._moving else STOPPED_MESSAGE
            )
        except GeneratorExit:
            # The event loop is gone.
            raise
        except BaseException as error:
            # Errors of handlers are endings, so this is ours. Without an ending the task would stay RUNNING forever.
            log.exception("Cannot run task %s.", agent_id)
            return permanent_failure(admitted, f"the task could not be run: {type(error).__name__}")

    def _settle_unstarted(self, admitted: Admitted, task: asyncio.Task[None]) -> None:
        """Settle an attempt that was canceled before its first step, in which case `_execute` never ran."""
        if self._running.get(admitted.lease.agent_id) is task:
            self._settle(admitted, _handed_back(admitted.lease))

    def _settle(self, admitted: Admitted, ending: Ending) -> None:
        agent_id = admitted.lease.agent_id
        task = self._running.pop(agent_id, None)
        if self._measures is not None and task is not None:
            self._measures.note_end(admitted, ending, began=task.began, aborted=agent_id in self._aborted)
        if self._begun.get(agent_id) is admitted.lease:
            del self._begun[agent_id]
        self._moving.discard(agent_id)
        if self._aborted and agent_id in self._aborted:
            # The record has its end, or the epoch of another worker: nothing may be written from here.
            self._aborted.discard(agent_id)
            self._tasks.forget(agent_id)
            self._on_aborted(agent_id)
        else:
            if ending.status is Status.ERROR:
                log_failure(log, admitted.task_name, agent_id, ending.error or ending.message)
            self._writer.end(ending)
            self._tasks.free_slot(agent_id)

    def _abort(self, agent_id: UUID, canceled: bool = False) -> None:
        task = self._running.get(agent_id)
        if task is not None and agent_id not in self._aborted:
            self._aborted.add(agent_id)
            if canceled and self._measures is not None:
                self._measures.note_cancellation(task.get_name().removeprefix(TASK_PREFIX))
            task.stop()


def _handed_back(lease: Lease, message: str = STOPPED_MESSAGE) -> Ending:
    return Ending(lease, Status.QUEUED, message, counts_as_attempt=False)
