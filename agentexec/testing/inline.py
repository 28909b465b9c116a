"""A worker without processes: it claims the tasks that a test chooses, and runs them on the test's event loop.

Only the choice is its own. Admission, handler, writer, settlement and cancellation are the parts of a worker process.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any
from uuid import UUID

from agentexec.activity.changes.endings import Ending
from agentexec.activity.mailbox import Mailbox
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import UsageError
from agentexec.journal.wake_ups import ready_tasks
from agentexec.registry import Registry
from agentexec.runtime import RUNTIME
from agentexec.state.backend import ClaimResult
from agentexec.task import Lease
from agentexec.worker.approval_notices import ApprovalNotices
from agentexec.worker.execution import Execution
from agentexec.worker.follow_ups import FollowUps
from agentexec.worker.sandbox_sweep import SandboxSweep

WORKER = "harness"
"""Id of the worker in the state backend, and address of its mailbox."""

LEASE_SECONDS = 86_400.0
WRITE_SECONDS = 30.0
"""Seconds that the writer gets to write what was reported."""

MAX_STARTS = 100
"""Starts of one task in one call. A task that always gives itself back would block the test forever."""

RETRY_INTERVAL = 0.01
"""Seconds between two looks for a requested task that failed and is to be tried again."""


class SkippingClock:
    """Clock of a memory backend that can be set ahead, so that no test sleeps for a delayed task."""

    def __init__(self) -> None:
        self.ahead = 0.0
        """Seconds by which the clock is ahead of the record's."""

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return utc_now().timestamp() + self.ahead


class InlineWorker:
    """Runs tasks one after another, and beside a task those that it waits for. Needs a runtime that is `replaced`.

    Threads: the event loop's thread calls the public methods, and `request` may be called from any thread. Choosing and
    starting a task run in another thread, one call after another. A lock guards `_waiting`, to which the writer's thread
    adds.
    """

    def __init__(self, registry: Registry, clock: SkippingClock) -> None:
        self._clock = clock
        self.queue = CONF.queue_name
        """The queue: every name means it."""
        self._backend: Any = RUNTIME.backend
        self._registry = registry
        self._execution = Execution(
            registry,
            RUNTIME,
            CONF,
            stopping=lambda: False,
            on_written=self._note_waiting,
            max_inline_sleep=0.0,
            skips_sleep=True,
        )
        self._follow_ups = FollowUps(RUNTIME.engine, registry)
        self._notices = ApprovalNotices(RUNTIME.engine, registry)
        self._requested: set[UUID] = set()
        self._starts: Counter[UUID] = Counter()
        self._waiting: dict[UUID, frozenset[str]] = {}
        self._waiting_lock = threading.Lock()

    async def open(self) -> None:
        """Prepare to run tasks on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._has_requests = asyncio.Event()
        self._execution.open()
        self._mailbox = RUNTIME.get_shared(Mailbox, lambda: Mailbox(RUNTIME, WORKER))
        self._mailbox.on_cancel(self._execution.running.abort)
        self._mailbox.on_watch(self.request)

    def close(self) -> None:
        """Write what is left, and end the threads."""
        self._execution.writer.close(WRITE_SECONDS)
        self._execution.threads.shutdown(wait=False)
        # Joined here: the mailbox's thread must not reach the database of the next test.
        self._mailbox.close()
        self._mailbox.join(WRITE_SECONDS)
        SandboxSweep(RUNTIME.engine).run()

    async def work(self, wanted: Collection[UUID] | None) -> list[UUID]:
        """Run tasks until none is left: those of `wanted`, or all and those that failures enqueue (None). Returns their ids in the order of their starts.

        Nobody sleeps for a delayed task: the clock jumps to its moment. Raises UsageError for a task that gives itself
        back again and again.
        """
        return await self._work(lambda: self._choose(wanted), follows=wanted is None)

    async def work_until_now(self) -> list[UUID]:
        """Run all tasks that are due now, and those that they enqueue; see `work`. The clock does not jump."""
        return await self._work(self._choose_due, follows=True)

    def next_due(self) -> float | None:
        """Return the seconds until a delayed task is due; None if none is delayed."""
        return self._claim_up_to(0).next_due

    async def _work(self, choose: Callable[[], Lease | None], *, follows: bool) -> list[UUID]:
        self._starts.clear()
        while True:
            lease = await RUNTIME.run_in_thread(choose)
            if lease is not None:
                await RUNTIME.run_in_thread(self._start, lease)
                await self._finish_running()
            elif not follows or not await RUNTIME.run_in_thread(self._follow):
                return list(self._starts)

    def _follow(self) -> int:
        """Do what is due after the ends of tasks, and tell of questions; return the number of tasks enqueued."""
        return self._follow_ups.run_once() + self._notices.run_once()

    def request(self, agent_ids: Sequence[UUID]) -> None:
        """Run tasks beside those that run now, because one of these waits for them; from any thread."""

        def add() -> None:
            self._requested.update(agent_ids)
            self._has_requests.set()

        self._loop.call_soon_threadsafe(add)

    async def _finish_running(self) -> None:
        """Wait until every started task has ended and is recorded."""
        running = self._execution.running
        while running.count:
            request = asyncio.ensure_future(self._has_requests.wait())
            try:
                await running.wait(until=request)
            finally:
                request.cancel()
            if self._has_requests.is_set():
                self._has_requests.clear()
                await self._start_requested()
            await self._flush()
        await self._flush()

    async def _start_requested(self) -> None:
        while (lease := await RUNTIME.run_in_thread(self._choose, self._requested)) is not None:
            await RUNTIME.run_in_thread(self._start, lease)
        # A task that failed and is to be tried again stays requested until it has ended.
        ended = set(self._backend.unknown_tasks(self.queue, list(self._requested)))
        self._requested -= ended
        if self._requested:
            self._loop.call_later(RETRY_INTERVAL, self._has_requests.set)

    async def _flush(self) -> None:
        await RUNTIME.run_in_thread(self._execution.writer.flush, WRITE_SECONDS)

    def _choose(self, wanted: Collection[UUID] | None) -> Lease | None:
        """Claim the next task; if all are delayed, the one that is due first."""
        if wanted is not None and not wanted:
            return None
        self._forget_answered()
        try:
            while True:
                lease, next_due = self._claim(wanted)
                if lease is not None or next_due is None:
                    return lease
                self._clock.ahead += next_due + 0.001
        finally:
            self._clock.ahead = 0.0

    def _choose_due(self) -> Lease | None:
        """Claim the next task that is due, even one that still waits for an answer: its wait is over."""
        self._forget_answered()
        found, _ = self._claim_up_to(1)
        for lease in found:
            with self._waiting_lock:
                self._waiting.pop(lease.agent_id, None)
        return found[0] if found else None

    def _claim_up_to(self, limit: int) -> ClaimResult:
        return self._backend.claim(
            self.queue,
            WORKER,
            limit=limit,
            low_quota=0,
            lease_seconds=LEASE_SECONDS,
            limits=self._registry.limits,
        )

    def _claim(self, wanted: Collection[UUID] | None) -> tuple[Lease | None, float | None]:
        """Claim one task that may start, and return it with the seconds until the next delayed task is due."""
        leases: list[Lease] = []
        chosen: Lease | None = None
        while chosen is None:
            # One by one, as turns of fairness keys go from claim to claim.
            found, next_due = self._claim_up_to(1)
            if not found:
                break
            leases += found
            chosen = next((lease for lease in found if self._may_start(lease.agent_id, wanted)), None)
        if chosen is None and wanted:
            chosen = self._find_holder(leases, wanted)
        for lease in reversed(leases):
            if lease is not chosen:
                self._backend.release(self.queue, lease)
        return chosen, next_due

    def _find_holder(self, leases: Sequence[Lease], wanted: Collection[UUID]) -> Lease | None:
        """Return a claimed task that has the lock or the place for which a wanted task waits: it must run first."""
        claimed = {lease.agent_id: lease for lease in leases if self._may_start(lease.agent_id, wanted=None)}
        for agent_id in wanted:
            waiting = self._backend.waiting_for(self.queue, agent_id)
            for holder in [] if waiting is None else waiting.holders:
                if holder in claimed:
                    return claimed[holder]
        return None

    def _may_start(self, agent_id: UUID, wanted: Collection[UUID] | None) -> bool:
        return agent_id not in self._waiting and (wanted is None or agent_id in wanted)

    def _forget_answered(self) -> None:
        # A task that waits for an answer never starts just because the clock jumps to the end of its wait.
        with self._waiting_lock:
            waiting = dict(self._waiting)
        answered = ready_tasks(RUNTIME.engine, waiting) if waiting else []
        with self._waiting_lock:
            for agent_id in answered:
                self._waiting.pop(agent_id, None)

    def _note_waiting(self, written: Sequence[Ending]) -> None:
        waiting = {ending.lease.agent_id: ending.awaited_kinds for ending in written if ending.awaited_kinds}
        with self._waiting_lock:
            self._waiting.update(waiting)

    def _start(self, lease: Lease) -> None:
        self._starts[lease.agent_id] += 1
        if self._starts[lease.agent_id] > MAX_STARTS:
            self._backend.release(self.queue, lease)
            raise UsageError(
                f"Task {lease.agent_id} was started {MAX_STARTS} times and has not ended. Does it always postpone itself?"
            )
        self._execution.tasks.add([lease])
        self._execution.slots.acquire_unconditionally()
        self._execution.admitter.admit([lease])
