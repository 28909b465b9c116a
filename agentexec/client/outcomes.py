"""Outcomes of several tasks, in the order in which the tasks end: for async code, and for code without a loop."""

from __future__ import annotations

import asyncio
import functools
import queue
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

from agentexec.activity.mailbox import TaskOutcome
from agentexec.arguments.checks import check_timeout
from agentexec.client.results import Expected, expect, late_error, running_task
from agentexec.journal.slot_release import slot_released, slot_released_sync
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Task

PlacedOutcome = tuple[int, TaskOutcome]
"""The outcome of a task, with the place of the task among those that are expected."""


class Expectations:
    """Tasks whose outcomes are expected, each at its place, until a deadline.

    The mailbox's thread calls `deliver` with each outcome; everything else is called by the waiting code.
    """

    def __init__(self, timeout: float | None, deliver: Callable[[PlacedOutcome], object]) -> None:
        timeout = check_timeout("timeout=", timeout)
        self._waiter = running_task()
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._deliver = deliver
        self._open: dict[int, Expected] = {}
        self._count = 0

    @property
    def pending(self) -> int:
        """Number of tasks whose outcome has not been taken."""
        return len(self._open)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, 0 after it; None without a deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def add(
        self, tasks: Sequence[Task | UUID | str], metadata_filter: Mapping[str, Any] | None = None
    ) -> list[Task]:
        """Expect more tasks, at the places after the present ones, and return their handles. Blocks."""
        added = expect(tasks, metadata_filter, self._waiter)
        for place, expected in enumerate(added, self._count):
            self._open[place] = expected
        for place, expected in enumerate(added, self._count):
            expected.future.add_done_callback(functools.partial(self._note, place))
        self._count += len(added)
        return [expected.task for expected in added]

    def _note(self, place: int, future: Future[TaskOutcome]) -> None:
        if not future.cancelled():
            self._deliver((place, future.result()))

    def take(self, placed: PlacedOutcome) -> PlacedOutcome:
        """Note that an outcome was taken, and return it."""
        del self._open[placed[0]]
        return placed

    def late_error(self) -> TimeoutError:
        """Return the error of a wait that has passed the deadline."""
        first = next(iter(self._open.values()))
        return late_error(first.task, self._timeout, len(self._open))

    def forget(self) -> None:
        """Stop waiting for all tasks."""
        for expected in self._open.values():
            expected.forget()


class OutcomeStream:
    """Outcomes as they come, for async code. Use it through `outcome_stream`."""

    def __init__(self, timeout: float | None) -> None:
        loop, self._outcomes = asyncio.get_running_loop(), asyncio.Queue[PlacedOutcome]()
        self.expectations = Expectations(
            timeout, lambda placed: loop.call_soon_threadsafe(self._outcomes.put_nowait, placed)
        )

    async def add(
        self, tasks: Sequence[Task | UUID | str], metadata_filter: Mapping[str, Any] | None = None
    ) -> list[Task]:
        """Expect more tasks, and return their handles."""
        expectations = self.expectations
        return await RUNTIME.run_patiently(
            expectations.add, tasks, metadata_filter, limit=expectations.seconds_left
        )

    def __aiter__(self) -> OutcomeStream:
        return self

    async def __anext__(self) -> PlacedOutcome:
        if not self.expectations.pending:
            raise StopAsyncIteration
        if self._outcomes.empty():
            # Outcomes that were known when the task was added arrive at the next turn of the loop.
            await asyncio.sleep(0)
        if self._outcomes.empty():
            async with slot_released():
                return self.expectations.take(await self._wait())
        return self.expectations.take(self._outcomes.get_nowait())

    async def _wait(self) -> PlacedOutcome:
        try:
            async with asyncio.timeout(self.expectations.seconds_left):
                return await self._outcomes.get()
        except TimeoutError:
            raise self.expectations.late_error() from None


class BlockingOutcomeStream:
    """Outcomes as they come, for code without an event loop. Use it through `blocking_outcome_stream`."""

    def __init__(self, timeout: float | None) -> None:
        self._outcomes = queue.SimpleQueue[PlacedOutcome]()
        self.expectations = Expectations(timeout, self._outcomes.put)

    def add(
        self, tasks: Sequence[Task | UUID | str], metadata_filter: Mapping[str, Any] | None = None
    ) -> list[Task]:
        """Expect more tasks, and return their handles."""
        expectations = self.expectations
        return wait_out(expectations.add, tasks, metadata_filter, limit=expectations.seconds_left)

    def __iter__(self) -> BlockingOutcomeStream:
        return self

    def __next__(self) -> PlacedOutcome:
        if not self.expectations.pending:
            raise StopIteration
        try:
            return self.expectations.take(self._outcomes.get_nowait())
        except queue.Empty:
            with slot_released_sync():
                return self.expectations.take(self._wait())

    def _wait(self) -> PlacedOutcome:
        try:
            return self._outcomes.get(timeout=self.expectations.seconds_left)
        except queue.Empty:
            raise self.expectations.late_error() from None


@asynccontextmanager
async def outcome_stream(timeout: float | None) -> AsyncGenerator[OutcomeStream]:
    """Wait for several tasks within the block. `timeout`: seconds for the whole block, None for no limit."""
    stream = OutcomeStream(timeout)
    try:
        yield stream
    finally:
        stream.expectations.forget()


@contextmanager
def blocking_outcome_stream(timeout: float | None) -> Generator[BlockingOutcomeStream]:
    """Wait for several tasks within the block, without an event loop. `timeout`: as for `outcome_stream`."""
    stream = BlockingOutcomeStream(timeout)
    try:
        yield stream
    finally:
        stream.expectations.forget()
