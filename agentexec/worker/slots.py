"""Slots: the number of tasks that a worker process runs at once. A task that waits for others occupies none."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

MAX_INLINE_SLEEP = 5.0
"""Longest sleep in seconds that is slept within the process: leaving and coming back costs a replay."""


class Slots:
    """Counter of free slots, for claims and for tasks that come back from a wait, which take precedence.

    Threads: any thread may call any method; a condition guards the state.

    Args:
        number: Slots of the process.
        max_inline_sleep: Longest sleep of a handler, in seconds, that does not leave the process.
        skips_sleep: Count a sleep as slept when the task comes back, whatever the clock says (in unit tests).
        on_release: Called when a task begins to wait.
    """

    def __init__(
        self,
        number: int,
        *,
        max_inline_sleep: float = MAX_INLINE_SLEEP,
        skips_sleep: bool = False,
        on_release: Callable[[UUID], object] = lambda _agent_id: None,
    ) -> None:
        self.max_inline_sleep = max_inline_sleep
        self.skips_sleep = skips_sleep
        self._number = self._free = number
        self._on_release = on_release
        # Held as the lock, not as the condition, where every task comes by: entering a condition is Python code.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting = False
        """True while a thread is in `wait`."""
        self._returning: deque[Future[None]] = deque()
        self._waits: Counter[UUID] = Counter()
        self._requeueable: set[UUID] = set()
        self._waits_for_tasks: dict[UUID, float] = {}
        """Monotonic moment since which a task waits for results of others."""

    @property
    def free(self) -> int:
        """Number of slots that are free."""
        return self._free

    @property
    def used(self) -> int:
        """Number of slots that are not free."""
        return self._number - self._free

    def wait(self, otherwise: Callable[[], bool], timeout: float) -> bool:
        """Return when a slot is free or `otherwise()` is true, or after `timeout` seconds; True if it has waited.

        One thread waits at a time.
        """
        with self._changed:
            if self._free > 0 or otherwise():
                return False
            self._waiting = True
            try:
                self._changed.wait_for(lambda: self._free > 0 or otherwise(), timeout)
            finally:
                self._waiting = False
            return True

    def notify(self) -> None:
        """Make `wait` check its `otherwise` again."""
        with self._changed:
            self._changed.notify_all()

    def acquire(self, limit: int) -> int:
        """Take up to `limit` slots and return their number."""
        with self._changed:
            number = max(0, min(limit, self._free))
            self._free -= number
            return number

    def acquire_unconditionally(self) -> None:
        """Take a slot even if none is free."""
        with self._changed:
            self._free -= 1

    def release(self, number: int) -> None:
        """Give slots back: first to tasks that come back from a wait, then to claims."""
        with self._lock:
            self._free += number
            while self._free > 0 and self._returning:
                future = self._returning.popleft()
                if future.set_running_or_notify_cancel():
                    self._free -= 1
                    future.set_result(None)
            if self._waiting:
                self._changed.notify_all()

    def end_task(self, agent_id: UUID) -> None:
        """Free the slot of a task that has ended, if it had one."""
        with self._lock:
            if self._requeueable:
                self._requeueable.discard(agent_id)
            if self._waits_for_tasks:
                self._waits_for_tasks.pop(agent_id, None)
            if not self._waits or not self._waits.pop(agent_id, 0):
                self.release(1)

    @property
    def requeueable_tasks(self) -> set[UUID]:
        """Tasks that wait, and can also wait outside this process when it stops."""
        with self._changed:
            return set(self._requeueable)

    def waiting_for_tasks(self, seconds: float) -> set[UUID]:
        """Return the tasks that have waited for results of others for some seconds."""
        latest = time.monotonic() - seconds
        with self._changed:
            return {agent_id for agent_id, since in self._waits_for_tasks.items() if since <= latest}

    @asynccontextmanager
    async def released(
        self, agent_id: UUID, *, requeue_on_stop: bool, for_tasks: bool = False
    ) -> AsyncGenerator[None]:
        """Release the task's slot within the block, and wait for one afterwards.

        Several branches of a task may wait at once: it gets a slot when the last of them comes back.
        With `requeue_on_stop` the task is handed back if the worker stops while it waits. `for_tasks`: it waits for results of
        other tasks.
        """
        self._begin_wait(agent_id, requeue_on_stop, for_tasks)
        try:
            yield
        except asyncio.CancelledError:
            self._skip_line(self._end_wait(agent_id))
            raise
        except BaseException:
            await self._wait_for_slot(agent_id)
            raise
        await self._wait_for_slot(agent_id)

    @contextmanager
    def released_in_thread(
        self, agent_id: UUID, *, requeue_on_stop: bool, for_tasks: bool = False
    ) -> Generator[None]:
        """Do what `released` does, for a handler in a thread."""
        self._begin_wait(agent_id, requeue_on_stop, for_tasks)
        try:
            yield
        finally:
            slot = self._end_wait(agent_id)
            if slot is not None:
                slot.result()

    async def _wait_for_slot(self, agent_id: UUID) -> None:
        slot = self._end_wait(agent_id)
        if slot is None or slot.done():
            return
        try:
            await asyncio.wrap_future(slot)
        except asyncio.CancelledError:
            self._skip_line(slot)
            raise

    def _skip_line(self, slot: Future[None] | None) -> None:
        # A task that is being stopped must not wait for a slot first.
        with self._changed:
            if slot is not None and (slot.cancelled() or slot.cancel()):
                self._free -= 1

    def _begin_wait(self, agent_id: UUID, requeue_on_stop: bool, for_tasks: bool) -> None:
        with self._changed:
            self._waits[agent_id] += 1
            first = self._waits[agent_id] == 1
            if requeue_on_stop:
                self._requeueable.add(agent_id)
            if for_tasks:
                self._waits_for_tasks.setdefault(agent_id, time.monotonic())
            if first:
                self.release(1)
        if first:
            self._on_release(agent_id)

    def _end_wait(self, agent_id: UUID) -> Future[None] | None:
        """Return a future that is done when the task has a slot again, None while other branches of it wait."""
        with self._changed:
            if agent_id not in self._waits:
                return None
            self._waits[agent_id] -= 1
            if self._waits[agent_id]:
                return None
            del self._waits[agent_id]
            self._requeueable.discard(agent_id)
            self._waits_for_tasks.pop(agent_id, None)
            slot: Future[None] = Future()
            if self._free > 0:
                self._free -= 1
                slot.set_result(None)
            else:
                self._returning.append(slot)
            return slot
