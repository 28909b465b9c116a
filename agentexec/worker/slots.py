"""Slots: how many tasks of a worker process run at once. A task that waits for others has none meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

MAX_INLINE_SLEEP = 5.0
"""A sleep that is not longer is slept in the process: leaving and coming back costs a replay."""


class Slots:
    """Counts slots for claims, and for tasks that come back from a wait, which go first.

    `max_inline_sleep`: see MAX_INLINE_SLEEP. `skips_sleep`: who wakes up has slept, whatever the clock says (in unit tests).
    `on_release`: called when a task begins to wait.
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
        self._free = number
        self._on_release = on_release
        self._changed = threading.Condition()
        self._returning: deque[Future[None]] = deque()
        self._rests: Counter[UUID] = Counter()
        self._leaving: set[UUID] = set()

    def wait(self, otherwise: Callable[[], bool], timeout: float) -> None:
        """Until a slot is free or `otherwise()` is true, at most `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0 or otherwise(), timeout)

    def notify(self) -> None:
        """Have those that wait look whether their `otherwise` is true by now."""
        with self._changed:
            self._changed.notify_all()

    def acquire(self, most: int) -> int:
        """Take up to `most` slots and return their number."""
        with self._changed:
            number = max(0, min(most, self._free))
            self._free -= number
            return number

    def acquire_unconditionally(self) -> None:
        """Take a slot also where none is free."""
        with self._changed:
            self._free -= 1

    def release(self, number: int) -> None:
        """Give slots back: to tasks that come back from a wait, then to claims."""
        with self._changed:
            self._free += number
            while self._free > 0 and self._returning:
                future = self._returning.popleft()
                if future.set_running_or_notify_cancel():
                    self._free -= 1
                    future.set_result(None)
            self._changed.notify_all()

    def end_task(self, agent_id: UUID) -> None:
        """A task has ended: its slot is free, if it had one."""
        with self._changed:
            self._leaving.discard(agent_id)
            if not self._rests.pop(agent_id, 0):
                self.release(1)

    @property
    def requeueable_tasks(self) -> set[UUID]:
        """Tasks that wait, and may as well do so outside a worker that stops."""
        with self._changed:
            return set(self._leaving)

    @asynccontextmanager
    async def released(self, agent_id: UUID, *, requeue_on_stop: bool) -> AsyncGenerator[None]:
        """The task has no slot within the block; afterwards it waits for one.

        Several branches of a task may wait at once: it has a slot again when the last of them is through.
        `requeue_on_stop`: it may be handed back when the worker stops.
        """
        self._rest(agent_id, requeue_on_stop)
        try:
            yield
        except asyncio.CancelledError:
            self._come_back_at_once(self._come_back(agent_id))
            raise
        except BaseException:
            await self._returned(agent_id)
            raise
        await self._returned(agent_id)

    @contextmanager
    def released_in_thread(self, agent_id: UUID, *, requeue_on_stop: bool) -> Generator[None]:
        """`released` for a handler in a thread."""
        self._rest(agent_id, requeue_on_stop)
        try:
            yield
        finally:
            back = self._come_back(agent_id)
            if back is not None:
                back.result()

    async def _returned(self, agent_id: UUID) -> None:
        back = self._come_back(agent_id)
        if back is None or back.done():
            return
        try:
            await asyncio.wrap_future(back)
        except asyncio.CancelledError:
            self._come_back_at_once(back)
            raise

    def _come_back_at_once(self, back: Future[None] | None) -> None:
        # A task that is stopped must not wait to be stopped.
        with self._changed:
            if back is not None and (back.cancelled() or back.cancel()):
                self._free -= 1

    def _rest(self, agent_id: UUID, requeue_on_stop: bool) -> None:
        with self._changed:
            self._rests[agent_id] += 1
            first = self._rests[agent_id] == 1
            if requeue_on_stop:
                self._leaving.add(agent_id)
            if first:
                self.release(1)
        if first:
            self._on_release(agent_id)

    def _come_back(self, agent_id: UUID) -> Future[None] | None:
        """What is done when the task has a slot again; None while others of its branches wait."""
        with self._changed:
            if agent_id not in self._rests:
                return None
            self._rests[agent_id] -= 1
            if self._rests[agent_id]:
                return None
            del self._rests[agent_id]
            self._leaving.discard(agent_id)
            back: Future[None] = Future()
            if self._free > 0:
                self._free -= 1
                back.set_result(None)
            else:
                self._returning.append(back)
            return back
