"""Follower of live events: one thread and one mailbox for all readers of a process."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from sqlalchemy import Engine, bindparam, func, select

from agentexec.activity.live.encoding import LOG_CHANGED, ReceivedEvent, parse_event
from agentexec.activity.live.log_pages import LogPage, read_log_page
from agentexec.activity.models import ActivityLog
from agentexec.activity.receiver import Receiver, new_address
from agentexec.db.chunks import chunks
from agentexec.db.transactions import reading
from agentexec.runtime import Runtime
from agentexec.state.backend import EVENTS_KEPT, FOLLOW_TTL_SECONDS
from agentexec.state.messages import DONE, EVENTS, parse_messages

log = logging.getLogger("agentexec.follow")

RENEW_SECONDS = FOLLOW_TTL_SECONDS / 3
"""Seconds after which the tasks are followed again, before that lapses in the state backend."""

_LAST_LINES = (
    select(ActivityLog.activity_id, func.max(ActivityLog.id).label("last"))
    .where(ActivityLog.activity_id.in_(bindparam("ids", expanding=True)))
    .group_by(ActivityLog.activity_id)
)


class Subscriber:
    """Events that one reader has not taken yet. Nobody waits for a reader: the oldest events are evicted."""

    def __init__(self, agent_id: UUID, queue: str) -> None:
        self.agent_id = agent_id
        self.queue = queue
        self.wake: Callable[[], object] = lambda: None
        """Called, in the follower's thread, when there is something to drain."""
        self.closed = False
        self.overflowed = False
        """True once an event was evicted."""
        self._events: deque[ReceivedEvent] = deque(maxlen=EVENTS_KEPT)
        self._record_changed = False
        self._woken = False

    def notify(self, events: Sequence[ReceivedEvent], *, record_changed: bool = False) -> None:
        """Add events, note whether the record has something new, and wake the reader."""
        self.overflowed = self.overflowed or len(self._events) + len(events) > EVENTS_KEPT
        self._events.extend(events)
        self._record_changed = self._record_changed or record_changed
        if not self._woken:
            self._woken = True
            self.wake()

    def drain(self) -> tuple[list[ReceivedEvent], bool]:
        """Return the events since the last call, and whether the record has something new. Never waits."""
        self._woken = False
        record_changed, self._record_changed = self._record_changed, False
        events: list[ReceivedEvent] = []
        while self._events:
            events.append(self._events.popleft())
        return events, record_changed or any(event.type == LOG_CHANGED for event in events)


class _FollowedTask:
    """Task that readers of this process follow, and the position up to which its events were read for them."""

    def __init__(self, queue: str, number: int) -> None:
        self.queue = queue
        self.number = number
        self.last_line = 0
        self.subscribers: set[Subscriber] = set()
        self._changes = 0
        self._lock = threading.Lock()
        self._page: tuple[int, int, LogPage] | None = None
        """The last page that was read: after which line, as of which change, and the page."""

    def notify(self, events: Sequence[ReceivedEvent], *, record_changed: bool = False) -> None:
        if record_changed or any(event.type == LOG_CHANGED for event in events):
            self._changes += 1
        for subscriber in list(self.subscribers):
            try:
                subscriber.notify(events, record_changed=record_changed)
            except RuntimeError:
                # Its event loop is closed.
                self.subscribers.discard(subscriber)

    def known_page(self, line: int) -> LogPage | None:
        """Return the page after a line if another reader has read it since the record changed last."""
        page = self._page
        return page[2] if page is not None and page[0] == line and page[1] == self._changes else None

    def read_page(self, engine: Engine, agent_id: UUID, line: int) -> LogPage:
        """Return the page after a line. Blocks; of many readers that want the same page, one reads it."""
        with self._lock:
            known = self.known_page(line)
            if known is not None:
                return known
            changes = self._changes
            page = read_log_page(engine, agent_id, line)
            self._page = (line, changes, page)
            return page


class Follower:
    """Follower of a process: reads each task's events once for all its readers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.mailbox = new_address("-events")
        self._receiver = Receiver(
            runtime,
            self.mailbox,
            name="agentexec-follow",
            log=log,
            consequence="Live events are not received until it is back.",
            recovered="Live events are received again.",
            handle=self._handle,
            check=self._check,
            check_record=self._check_record,
        )
        self._tasks: dict[UUID, _FollowedTask] = {}
        self._lock = threading.Lock()
        self._next_renewal = time.monotonic() + RENEW_SECONDS

    def add(self, subscriber: Subscriber, number: int) -> None:
        """Follow a task from the event after `number`. Blocks for two short calls."""
        agent_id, queue = subscriber.agent_id, subscriber.queue
        with self._lock:
            task = self._tasks.get(agent_id)
            if task is None:
                task = self._tasks[agent_id] = _FollowedTask(queue, number)
            task.subscribers.add(subscriber)
        self._receiver.start()
        with self._runtime.best_effort(
            log, "Until it is back, the log of task %s is read every few seconds.", agent_id
        ):
            self._follow(queue, [agent_id])

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a reader. The state backend keeps the task followed for a minute, in case the reader comes back."""
        with self._lock:
            task = self._tasks.get(subscriber.agent_id)
            if task is not None:
                task.subscribers.discard(subscriber)
                if not task.subscribers:
                    del self._tasks[subscriber.agent_id]

    def known_page(self, agent_id: UUID, line: int) -> LogPage | None:
        """Return the page of a followed task's log after a line, if it need not be read."""
        task = self._tasks.get(agent_id)
        return task.known_page(line) if task is not None else None

    def read_page(self, agent_id: UUID, line: int) -> LogPage:
        """Return the page of a task's log after a line. Blocks.

        Raises UnavailableError.
        """
        task = self._tasks.get(agent_id)
        if task is None:
            return read_log_page(self._runtime.engine, agent_id, line)
        return task.read_page(self._runtime.engine, agent_id, line)

    def close(self) -> None:
        """End the thread after its current turn, and every stream."""
        self._receiver.close()
        with self._lock:
            tasks = list(self._tasks.values())
        for task in tasks:
            for subscriber in task.subscribers:
                subscriber.closed = True
            task.notify((), record_changed=True)

    def _follow(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        self._runtime.backend.follow(queue, agent_ids, self.mailbox)
        self._runtime.backend.watch(queue, agent_ids, self.mailbox)

    def _handle(self, messages: Sequence[str]) -> None:
        for agent_id in parse_messages(messages, DONE):
            task = self._tasks.get(agent_id)
            if task is not None:
                task.notify((), record_changed=True)
        published = set(parse_messages(messages, EVENTS))
        if published:
            self._read(published)

    def _read(self, agent_ids: Iterable[UUID]) -> None:
        with self._lock:
            tasks = {agent_id: self._tasks[agent_id] for agent_id in agent_ids if agent_id in self._tasks}
        queues: dict[str, dict[UUID, int]] = {}
        for agent_id, task in tasks.items():
            queues.setdefault(task.queue, {})[agent_id] = task.number
        for queue, after in queues.items():
            for agent_id, events in self._runtime.backend.read_events(queue, after).items():
                tasks[agent_id].number = events[-1].number
                tasks[agent_id].notify([parse_event(event) for event in events])

    def _check(self) -> None:
        """Read the record and the events again: messages may be lost, and some changes of the record send none."""
        with self._lock:
            agent_ids = list(self._tasks)
        self._check_record()
        self._read(agent_ids)
        now = time.monotonic()
        if now >= self._next_renewal:
            self._next_renewal = now + RENEW_SECONDS
            self._renew()

    def _renew(self) -> None:
        queues: dict[str, list[UUID]] = {}
        with self._lock:
            for agent_id, task in self._tasks.items():
                queues.setdefault(task.queue, []).append(agent_id)
        for queue, agent_ids in queues.items():
            self._follow(queue, agent_ids)

    def _check_record(self) -> None:
        """Wake the readers of tasks that have new log lines."""
        with self._lock:
            tasks = dict(self._tasks)
        with reading(self._runtime.engine) as connection:
            for chunk in chunks(list(tasks)):
                for agent_id, last in connection.execute(_LAST_LINES, {"ids": chunk}):
                    if last > tasks[agent_id].last_line:
                        tasks[agent_id].last_line = last
                        tasks[agent_id].notify((), record_changed=True)
