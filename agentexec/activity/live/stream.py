"""`ax.activity.stream`: what happens to a task, as it happens, from any process.

Two sources make one stream. Log lines come from the record: none is ever missing, whatever crashes. Text deltas, tool
calls and the like come through the state backend, which keeps the last of them for some minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from agentexec.activity.live.follow import Follower, ReceivedEvent, Subscriber, parse_event
from agentexec.activity.models import Activity, ActivityLog, ActivityResult
from agentexec.activity.queries.detail import queue_of
from agentexec.activity.schemas import ActivityEvent, EventType
from agentexec.config import CONF
from agentexec.db.errors import translating_db_errors
from agentexec.db.transactions import reading
from agentexec.errors import UnavailableError, UsageError
from agentexec.runtime import RUNTIME
from agentexec.state.backend import EVENT_TTL_SECONDS
from agentexec.task import Status, parse_agent_id

log = logging.getLogger("agentexec.stream")

PAGE = 500
RETRY_SECONDS = 1.0
"""Seconds between two tries to read a database that is away."""

SILENT_SECONDS = EVENT_TTL_SECONDS / 2
"""After such a silence the state backend may have begun to count anew, with nothing lost."""

ENDS: dict[Status, EventType] = {
    Status.COMPLETE: "result",
    Status.ERROR: "error",
    Status.CANCELED: "canceled",
}
_ID = re.compile(r"(\d{1,18})\.(\d{1,18})")


def stream(
    agent_id: UUID | str,
    *,
    after: str | None = None,
    deltas: bool = True,
    metadata_filter: Mapping[str, Any] | None = None,
) -> ActivityStream:
    """The events of one task, from its first log line (or from behind `after`) to its end.

    Iterate over it with `async for`, or with `for` in code without an event loop. `after`: the `id` of the last
    event that was seen; nothing is repeated, and no log line is missed. `deltas=False` leaves out the text deltas.
    A reader that is slow, or was away for minutes, gets one event `dropped` in place of the short-lived events that
    it missed; nothing ever waits for a reader.

    Raises UsageError for an `after` that is no id of an event; on the first step ActivityNotFoundError, also when
    `metadata_filter` does not match, and UnavailableError. A database that is lost later is waited for.
    """
    return ActivityStream(parse_agent_id(agent_id), _position(after), deltas, metadata_filter)


class Position(NamedTuple):
    """How far a stream was read: the id of a log line, and the number of a short-lived event. 0: none yet."""

    line: int
    number: int


class _Look(NamedTuple):
    """What the record has: lines, the data of the end if there is one, and what was published before it."""

    lines: list[Any]
    previous: Status | None
    over: bool
    ending: dict[str, Any]
    heard: list[ReceivedEvent]


class ActivityStream:
    """See `stream`. One object is one reader: iterate over it once."""

    def __init__(
        self, agent_id: UUID, position: Position, deltas: bool, metadata_filter: Mapping[str, Any] | None
    ) -> None:
        self._agent_id = agent_id
        self._line, self._number = position
        self._deltas = deltas
        self._metadata_filter = metadata_filter
        self._subscriber: Subscriber | None = None
        self._first: list[ActivityEvent] = []
        self._epoch = 0
        self._heard_at: float | None = None
        self.ended = False
        """True once the last event is on its way: there is nothing to wait for."""

    async def open(self) -> Self:
        """Begin now, not with the first step, to hear of errors early. Raises what the first step raises."""
        if self._subscriber is None:
            await RUNTIME.run_in_thread(self._open)
        return self

    @property
    def exhausted(self) -> bool:
        """True if the stream is open and has nothing to give any more: the task has ended, and all was seen."""
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
        """The events in lists, as they come: for those who pass them on. Empty after `idle` seconds of silence."""
        await self.open()
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        subscriber = self._connect(lambda: loop.call_soon_threadsafe(told.set))
        try:
            if self._first:
                yield self._first
            while not self.ended and not subscriber.closed:
                heard, look = subscriber.drain()
                found = None
                if look:
                    try:
                        found = await RUNTIME.run_in_thread(self._look)
                    except UnavailableError as error:
                        log.debug("%s", error)
                        subscriber.notify(heard, record_changed=True)
                        await asyncio.sleep(RETRY_SECONDS)
                        continue
                batch = self._arrange(heard, found)
                if batch:
                    yield batch
                if not heard and not look:
                    try:
                        await asyncio.wait_for(told.wait(), idle)
                    except TimeoutError:
                        yield []
                told.clear()
        finally:
            self.close()

    def __iter__(self) -> Generator[ActivityEvent]:
        if self._subscriber is None:
            self._open()
        told = threading.Event()
        subscriber = self._connect(told.set)
        try:
            yield from self._first
            while not self.ended and not subscriber.closed:
                heard, look = subscriber.drain()
                found = None
                if look:
                    try:
                        found = self._look()
                    except UnavailableError as error:
                        log.debug("%s", error)
                        subscriber.notify(heard, record_changed=True)
                        time.sleep(RETRY_SECONDS)
                        continue
                yield from self._arrange(heard, found)
                if not heard and not look:
                    told.wait()
                told.clear()
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening. Done by itself at the end of an iteration."""
        if self._subscriber is not None:
            _follower().remove(self._subscriber)

    def _connect(self, wake: Callable[[], object]) -> Subscriber:
        subscriber = self._subscriber
        if subscriber is None:
            raise UsageError("The stream is not open.")
        subscriber.wake = wake
        return subscriber

    def _open(self) -> None:
        """Blocking: find the task, follow it, and read what there is already."""
        with translating_db_errors(RUNTIME.engine), Session(RUNTIME.engine) as db:
            queue = queue_of(db, self._agent_id, metadata_filter=self._metadata_filter) or CONF.queue_name
        # First followed, then read: what happens in between is heard of twice rather than not at all.
        self._subscriber = Subscriber(self._agent_id, queue)
        _follower().add(self._subscriber, self._number)
        try:
            found = self._look(first=True)
        except BaseException:
            self.close()
            raise
        self._first = self._arrange([], found)

    def _look(self, *, first: bool = False) -> _Look:
        """Blocking: read the record; at the beginning and at the end, read the state backend too."""
        where = (ActivityLog.activity_id == self._agent_id, ActivityLog.id >= self._line)
        with reading(RUNTIME.engine) as connection:
            # Before the lines: if it is final, they have its line too.
            status = connection.execute(
                select(Activity.status).where(Activity.agent_id == self._agent_id)
            ).scalar()
            columns = (
                ActivityLog.id,
                ActivityLog.created_at,
                ActivityLog.status,
                ActivityLog.message,
                ActivityLog.percentage,
            )
            query = select(*columns).where(*where).order_by(ActivityLog.id).limit(PAGE)
            lines = list(connection.execute(query))
            ending = self._ending(connection) if lines and lines[-1].status.final else {}
        previous: Status | None = None
        full = len(lines) == PAGE
        if lines and lines[0].id == self._line:
            previous = lines.pop(0).status
        over = bool(ending) or status is None or (status.final and not lines)
        if full and not ending and self._subscriber is not None:
            self._subscriber.notify((), record_changed=True)
        heard: list[ReceivedEvent] = []
        if (first or over) and self._subscriber is not None:
            with contextlib.suppress(UnavailableError):
                found = RUNTIME.backend.read_events(self._subscriber.queue, {self._agent_id: self._number})
                heard = [parse_event(event) for event in found.get(self._agent_id, ())]
        return _Look(lines, previous, over, ending, heard)

    def _ending(self, connection: Any) -> dict[str, Any]:
        """What the last event tells beside its line."""
        row = connection.execute(
            select(Activity.status, Activity.error, Activity.finished_at, ActivityResult.value)
            .outerjoin(ActivityResult, ActivityResult.agent_id == Activity.agent_id)
            .where(Activity.agent_id == self._agent_id)
        ).one()
        if row.status is not Status.COMPLETE:
            # Without the traceback: this goes to browsers.
            return {"error": (row.error or "").split("\n", 1)[0] or None}
        if row.value is not None:
            try:
                return {"value": json.loads(row.value), "expired": False}
            except (ValueError, RecursionError):
                log.warning("The result of task %s cannot be read.", self._agent_id)
                return {"value": None, "expired": True}
        age = time.time() - row.finished_at.timestamp() if row.finished_at else 0.0
        return {"value": None, "expired": age > CONF.result_ttl}

    def _arrange(self, heard: Iterable[ReceivedEvent], found: _Look | None) -> list[ActivityEvent]:
        """The next events of the stream, in the order of time, each source in its own order; the end comes last."""
        events: list[ActivityEvent] = []
        lines = found.lines if found is not None else []
        previous = found.previous if found is not None else None
        place = 0
        more = found.heard if found is not None else []
        for one in sorted([*heard, *more], key=lambda one: one.number):
            while place < len(lines) and not lines[place].status.final:
                if one.type is not None and lines[place].created_at.timestamp() > one.at:
                    break
                events.append(self._line_event(lines[place], previous, {}))
                previous = lines[place].status
                place += 1
            events += self._heard_events(one)
        for line in lines[place:]:
            events.append(self._line_event(line, previous, found.ending if found is not None else {}))
            previous = line.status
        if found is not None and found.over:
            self.ended = True
        return events

    def _line_event(self, line: Any, previous: Status | None, ending: dict[str, Any]) -> ActivityEvent:
        self._line = line.id
        data: dict[str, Any] = {
            "message": line.message,
            "status": line.status.value,
            "percentage": line.percentage,
        }
        kind: EventType = "log" if line.status is previous else "status"
        if line.status.final:
            kind, data = ENDS[line.status], {**data, **ending}
        return ActivityEvent(id=self._id(), type=kind, at=line.created_at, data=data)

    def _heard_events(self, one: ReceivedEvent) -> list[ActivityEvent]:
        """Nothing for one that was seen before, or `dropped` before one that does not follow the last one seen."""
        if one.number <= self._number:
            return []
        now = time.monotonic()
        silent = self._heard_at is not None and now - self._heard_at > SILENT_SECONDS
        if self._number:
            missed = one.number > self._number + 1 and not silent
        else:
            missed = self._subscriber is not None and self._subscriber.overflowed
        self._heard_at = now
        events: list[ActivityEvent] = []
        if missed:
            self._number = one.number - 1
            at = datetime.fromtimestamp(one.at, UTC) if one.type is not None else datetime.now(UTC)
            events.append(ActivityEvent(id=self._id(), type="dropped", at=at, data={}))
        self._number = one.number
        outdated = one.epoch is not None and one.epoch < self._epoch
        if one.epoch is not None:
            # A worker that has lost the task may go on for a while: what it publishes is of an older epoch.
            self._epoch = max(self._epoch, one.epoch)
        if one.type in (None, "log") or outdated or (one.type == "text_delta" and not self._deltas):
            return events
        kind: Any = one.type
        at = datetime.fromtimestamp(one.at, UTC)
        return [*events, ActivityEvent(id=self._id(), type=kind, at=at, data=one.data)]

    def _id(self) -> str:
        return f"{self._line}.{self._number}"


def _position(after: str | None) -> Position:
    if after is None or after == "":
        return Position(0, 0)
    match = _ID.fullmatch(after)
    if match is None:
        raise UsageError("after= is not the id of an event; give the id of the last event seen, or nothing.")
    return Position(int(match[1]), int(match[2]))


def _follower() -> Follower:
    return RUNTIME.get_shared(Follower, lambda: Follower(RUNTIME))
