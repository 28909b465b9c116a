"""A worker without processes of its own: it claims what a test chooses, and runs it on the test's event loop.

Everything behind the choice is the worker's own code: admission, attempt, writer, acknowledgement, cancel.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from uuid import UUID

from agentexec.activity.changes.endings import Ending
from agentexec.activity.mailbox import Mailbox
from agentexec.config import CONF
from agentexec.errors import UsageError
from agentexec.journal.wake_ups import ready_tasks
from agentexec.registry import Registry
from agentexec.runtime import RUNTIME
from agentexec.task import Lease
from agentexec.worker.child import Worker
from agentexec.worker.slots import Slots

WORKER = "harness"
ALL = 1_000_000
"""Tasks in one claim: all there are."""

LEASE_SECONDS = 86_400.0
WRITE_SECONDS = 30.0
MOST_STARTS = 100
"""Starts of one task in one call: a task that gives itself back for ever would keep the test for ever."""


class SkippingClock:
    """Clock of a memory backend that can be set ahead, so that no test sleeps for a delayed task."""

    def __init__(self) -> None:
        self.ahead = 0.0
        """Seconds by which the clock is ahead of the system's."""

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return time.time() + self.ahead


class InlineWorker(Worker):
    """Runs tasks one after another, and beside them those they wait for. Needs a runtime that is `replaced`."""

    def __init__(self, registry: Registry, clock: SkippingClock) -> None:
        super().__init__(registry, RUNTIME, CONF, WORKER)
        self._memory = self._backend
        self._clock = clock
        self._called: set[UUID] = set()
        self._starts: Counter[UUID] = Counter()
        self._waiting: dict[UUID, frozenset[str]] = {}

    def _make_slots(self) -> Slots:
        return Slots(
            CONF.worker_concurrency, max_inline_sleep=0.0, skips_sleep=True, on_release=self._on_slot_released
        )

    async def open(self) -> None:
        """Be ready to run tasks on the present event loop."""
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        RUNTIME.progress_writer, RUNTIME.slots = self._writer, self._slots
        self._writer.start()
        self._mailbox = RUNTIME.get_shared(Mailbox, lambda: Mailbox(RUNTIME, WORKER))
        self._mailbox.on_cancel(lambda agent_id: self._loop.call_soon_threadsafe(self._abort, agent_id))
        # A task that another one waits for runs beside it.
        self._mailbox.on_watch(self.call_for)

    def close(self) -> None:
        """Write what is left, and end the threads."""
        self._writer.close(WRITE_SECONDS)
        self._handler_threads.shutdown(wait=False)
        # Now, not at its next turn: the mailbox's thread must not meet the database of the next test.
        self._mailbox.close()
        self._mailbox.join(WRITE_SECONDS)

    async def work(self, wanted: Collection[UUID] | None) -> list[UUID]:
        """Run tasks until none is left: those of `wanted` only, or all (None). Returns their ids as they started.

        Nobody sleeps for a delayed task: the clock jumps to its moment. Raises UsageError for a task that gives
        itself back again and again.
        """
        self._starts.clear()
        while (lease := await RUNTIME.run_in_thread(self._choose, wanted)) is not None:
            await RUNTIME.run_in_thread(self._run_chosen, lease)
            await self._finish_begun()
        return list(self._starts)

    def call_for(self, agent_ids: Sequence[UUID]) -> None:
        """Have tasks run beside those that run now; from any thread."""

        def note() -> None:
            self._called.update(agent_ids)
            self._news.set()

        self._loop.call_soon_threadsafe(note)

    async def _finish_begun(self) -> None:
        """Until every task that has begun has ended, and is recorded."""
        while self._running:
            news = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait([*self._running.values(), news], return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            if self._news.is_set():
                self._news.clear()
                await self._begin_called()
            await RUNTIME.run_in_thread(self._writer.flush, WRITE_SECONDS)
        await RUNTIME.run_in_thread(self._writer.flush, WRITE_SECONDS)

    async def _begin_called(self) -> None:
        while (lease := await RUNTIME.run_in_thread(self._choose, self._called)) is not None:
            await RUNTIME.run_in_thread(self._run_chosen, lease)
        # One that failed and is to be tried again is called for until it has ended.
        self._called = {one for one in self._called if self._memory.unknown_tasks(self._queue, [one]) == []}
        if self._called:
            self._loop.call_later(0.01, self._news.set)

    def _choose(self, wanted: Collection[UUID] | None) -> Lease | None:
        """Claim the next task; if all are delayed, the one that is due first."""
        if wanted is not None and not wanted:
            return None
        # The clock jumps to no moment at which nobody would have answered.
        for agent_id in ready_tasks(RUNTIME.engine, self._waiting) if self._waiting else ():
            del self._waiting[agent_id]
        try:
            while True:
                leases, next_due = self._memory.claim(
                    self._queue, WORKER, limit=ALL, low_quota=0, lease_seconds=LEASE_SECONDS
                )
                able = (one for one in leases if one.agent_id not in self._waiting)
                chosen = next((one for one in able if wanted is None or one.agent_id in wanted), None)
                for lease in reversed(leases):
                    if lease is not chosen:
                        self._memory.release(self._queue, lease)
                if chosen is not None or next_due is None:
                    return chosen
                self._clock.ahead += next_due + 0.001
        finally:
            self._clock.ahead = 0.0

    def _settle(self, written: Sequence[Ending], refused: Sequence[Ending]) -> None:
        self._waiting.update({one.lease.agent_id: one.awaited_kinds for one in written if one.awaited_kinds})
        super()._settle(written, refused)

    def _run_chosen(self, lease: Lease) -> None:
        self._starts[lease.agent_id] += 1
        if self._starts[lease.agent_id] > MOST_STARTS:
            self._memory.release(self._queue, lease)
            raise UsageError(
                f"Task {lease.agent_id} was started {MOST_STARTS} times and has not ended; does it postpone itself for ever?"
            )
        self._leases[lease.agent_id] = lease.epoch
        self._slots.acquire_unconditionally()
        self._start([lease])
