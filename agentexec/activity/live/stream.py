"""`ax.activity.stream`: events of a task as they happen, from any process.

A stream joins two sources. Log lines come from the record: none is ever missing, whatever crashes. Text deltas, tool
calls and the like come through the state backend, which keeps the latest of them for some minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from typing import Any, Self
from uuid import UUID

from agentexec.activity.live.encoding import ReceivedEvent, parse_event
from agentexec.activity.live.follow import Follower, Subscriber
from agentexec.activity.live.log_pages import LogPage, read_log_page
from agentexec.activity.live.merge import EventMerger, Position
from agentexec.activity.queries.handle import find_task
from agentexec.activity.schemas import ActivityEvent
from agentexec.errors import UnavailableError, UsageError
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import parse_agent_id

log = logging.getLogger("agentexec.stream")

RETRY_SECONDS = 1.0
"""Seconds between two tries to read a database that cannot be reached."""

_ID = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")


def stream(
    agent_id: UUID | str,
    *,
    after: str | None = None,
    deltas: bool = True,
    metadata_filter: Mapping[str, Any] | None = None,
) -> ActivityStream:
    """Stream the events of one task, up to its end.

    Iterate over the stream with `async for`, or with `for` in code without an event loop. Errors about the task are
    raised on the first step. Later, the stream waits out a database that cannot be reached.

    A reader that is slow, or was away for minutes, gets one `dropped` event in place of the live events that it
    missed. No task ever waits for a reader.

    Args:
        agent_id: Id of the task.
        after: `id` of the last event seen, to resume there: nothing is repeated, and no log line is missed. None
            starts with the first log line.
        deltas: False leaves out the `text_delta` events.
        metadata_filter: Values that the task's metadata must have; otherwise the task counts as unknown.

    Returns:
        A stream for one reader, to be iterated over once.

    Raises:
        UsageError: `after` is not the id of an event.
        ActivityNotFoundError: There is no such task, or `metadata_filter` does not match it (on the first step).
        UnavailableError: The database cannot be reached (on the first step).
    """
    return ActivityStream(parse_agent_id(agent_id), _position(after), deltas, metadata_filter)


class ActivityStream:
    """Events of one task for one reader, from `ax.activity.stream`. Iterate over it once."""

    def __init__(
        self, agent_id: UUID, position: Position, deltas: bool, metadata_filter: Mapping[str, Any] | None
    ) -> None:
        self._agent_id = agent_id
        self._merger = EventMerger(position, deltas=deltas)
        self._metadata_filter = metadata_filter
        self._subscriber: Subscriber | None = None
        self._first: list[ActivityEvent] = []
        self.ended = False
        """True once the last event is on its way."""

    async def open(self) -> Self:
        """Start now rather than on the first step, to get errors early.

        Returns:
            The stream itself.

        Raises:
            ActivityNotFoundError: There is no such task, or the metadata filter does not match it.
            UnavailableError: The database cannot be reached.
        """
        if self._subscriber is None:
            await RUNTIME.run_patiently(self._open)
        return self

    @property
    def exhausted(self) -> bool:
        """True if the stream is open and has no more events: the task has ended, and every event was seen."""
        return self.ended and not self._first

    async def __aiter__(self) -> AsyncGenerator[ActivityEvent]:
        batches = self.batches()
        try:
            async for batch in batches:
                for event in batch:
                    yield event
        finally:
            await batches.aclose()

    async def batches(self, idle: float | None = None) -> AsyncGenerator[list[ActivityEvent]]:
        """Iterate over the events in lists, as they come, for code that passes them on together.

        Args:
            idle: Seconds of silence after which an empty list comes; None waits without limit.
        """
        await self.open()
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        subscriber = self._connect(lambda: loop.call_soon_threadsafe(changed.set))
        try:
            if self._first:
                yield self._first
            while not self.ended and not subscriber.closed:
                received, record_changed = subscriber.drain()
                try:
                    page = await self._next_page(subscriber) if record_changed else None
                except UnavailableError as error:
                    _postpone(subscriber, received, error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                batch = self._merge(subscriber, received, page)
                if batch:
                    yield batch
                if not received and not record_changed:
                    try:
                        await asyncio.wait_for(changed.wait(), idle)
                    except TimeoutError:
                        yield []
                changed.clear()
        finally:
            self.close()

    def __iter__(self) -> Generator[ActivityEvent]:
        if self._subscriber is None:
            wait_out(self._open)
        changed = threading.Event()
        subscriber = self._connect(changed.set)
        try:
            yield from self._first
            while not self.ended and not subscriber.closed:
                received, record_changed = subscriber.drain()
                try:
                    page = self._read(subscriber) if record_changed else None
                except UnavailableError as error:
                    _postpone(subscriber, received, error)
                    time.sleep(RETRY_SECONDS)
                    continue
                yield from self._merge(subscriber, received, page)
                if not received and not record_changed:
                    changed.wait()
                changed.clear()
        finally:
            self.close()

    def close(self) -> None:
        """Stop following the task. The end of an iteration does it too."""
        if self._subscriber is not None:
            _follower().remove(self._subscriber)

    def _connect(self, wake: Callable[[], object]) -> Subscriber:
        subscriber = self._subscriber
        if subscriber is None:
            raise UsageError("The stream is not open; iterate over it, or call open() first.")
        subscriber.wake = wake
        return subscriber

    def _open(self) -> None:
        """Find the task, follow it, and read what is there already. Blocks."""
        queue = find_task(RUNTIME.engine, self._agent_id, self._metadata_filter).queue_name
        # First follow, then read: an event in between is received twice rather than not at all.
        self._subscriber = subscriber = Subscriber(self._agent_id, queue)
        _follower().add(subscriber, self._merger.number)
        try:
            page = self._read(subscriber, first=True)
        except BaseException:
            self.close()
            raise
        self._first = self._merge(subscriber, [], page)

    async def _next_page(self, subscriber: Subscriber) -> LogPage:
        known = _follower().known_page(self._agent_id, self._merger.line)
        if known is not None and not known.over and not known.more:
            return known
        return await RUNTIME.run_in_thread(self._read, subscriber)

    def _read(self, subscriber: Subscriber, *, first: bool = False) -> LogPage:
        """Read the next page of the log and, at the beginning and at the end, the live events too. Blocks."""
        if first:
            # What was read for others may be older than this stream.
            page = read_log_page(RUNTIME.engine, self._agent_id, self._merger.line)
        else:
            page = _follower().read_page(self._agent_id, self._merger.line)
        if page.more:
            subscriber.notify((), record_changed=True)
        if first or page.over:
            page = page._replace(live_events=self._read_live_events(subscriber.queue))
        return page

    def _read_live_events(self, queue: str) -> list[ReceivedEvent]:
        with contextlib.suppress(UnavailableError):
            events = RUNTIME.backend.read_events(queue, {self._agent_id: self._merger.number})
            return [parse_event(event) for event in events.get(self._agent_id, ())]
        return []

    def _merge(
        self, subscriber: Subscriber, received: Sequence[ReceivedEvent], page: LogPage | None
    ) -> list[ActivityEvent]:
        events = self._merger.merge(received, page, overflowed=subscriber.overflowed, now=time.monotonic())
        if page is not None and page.over:
            self.ended = True
        return events


def _postpone(subscriber: Subscriber, received: Sequence[ReceivedEvent], error: UnavailableError) -> None:
    """Give drained events back to the subscriber, and have the record read again."""
    log.debug("%s", error)
    subscriber.notify(received, record_changed=True)


def _position(after: str | None) -> Position:
    if after is None or after == "":
        return Position(0, 0)
    match = _ID.fullmatch(after) if isinstance(after, str) else None
    if match is None:
        raise UsageError("after= is not the id of an event; give the id of the last event seen, or nothing.")
    return Position(int(match[1]), int(match[2]))


def _follower() -> Follower:
    return RUNTIME.get_shared(Follower, lambda: Follower(RUNTIME))
