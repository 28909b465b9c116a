"""Hearing of events on behalf of every reader of a process, with one thread and one mailbox."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, get_args
from uuid import UUID

from sqlalchemy import bindparam, func, select

from agentexec.activity.models import ActivityLog
from agentexec.activity.schemas import EventType
from agentexec.db.transactions import reading
from agentexec.errors import UnavailableError
from agentexec.outage import backoff
from agentexec.runtime import Runtime
from agentexec.state.backend import EVENTS_KEPT, FOLLOW_TTL_SECONDS, Event
from agentexec.state.messages import DONE, EVENTS, parse_messages

log = logging.getLogger("agentexec.follow")

CHECK_SECONDS = 5.0
"""Seconds between two looks at the record for log lines that nobody told of."""

DURABLE = frozenset({"status", "result", "error", "canceled"})
LIVE_TYPES = frozenset(get_args(EventType)) - DURABLE
"""What a state backend may hold: the short-lived types, and `log`, which says that the record has a new line."""

_LAST_LINES = (
    select(ActivityLog.activity_id, func.max(ActivityLog.id).label("last"))
    .where(ActivityLog.activity_id.in_(bindparam("ids", expanding=True)))
    .group_by(ActivityLog.activity_id)
)


class ReceivedEvent(NamedTuple):
    """A short-lived event as the state backend gave it; `type` is None for one that cannot be read."""

    number: int
    type: str | None
    at: float
    epoch: int | None
    data: dict[str, Any]


def parse_event(event: Event) -> ReceivedEvent:
    """Read an event of the state backend, which anybody with access to it may have written."""
    try:
        whole = json.loads(event.text)
        kind, at, epoch, data = str(whole["type"]), float(whole["at"]), whole.get("epoch"), whole["data"]
        if kind in LIVE_TYPES and isinstance(data, dict) and isinstance(epoch, int | None) and 0 < at < 1e11:
            return ReceivedEvent(event.number, kind, at, epoch, data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        log.debug("An event could not be read.")
    return ReceivedEvent(event.number, None, 0.0, None, {})


class Subscriber:
    """What one reader has not taken yet. It is never waited for: what is too much pushes the oldest out."""

    def __init__(self, agent_id: UUID, queue: str) -> None:
        self.agent_id = agent_id
        self.queue = queue
        self.wake: Callable[[], object] = lambda: None
        self.closed = False
        self.overflowed = False
        """True once something was pushed out."""
        self._events: deque[ReceivedEvent] = deque(maxlen=EVENTS_KEPT)
        self._look = False
        self._told = False

    def notify(self, events: Sequence[ReceivedEvent], *, record_changed: bool = False) -> None:
        """Called by the follower. `record_changed`: the record has something new."""
        self.overflowed = self.overflowed or len(self._events) + len(events) > EVENTS_KEPT
        self._events.extend(events)
        self._look = self._look or record_changed
        if not self._told:
            self._told = True
            self.wake()

    def drain(self) -> tuple[list[ReceivedEvent], bool]:
        """The events since the last call, and whether to look at the record. Never waits."""
        self._told = False
        look, self._look = self._look, False
        events: list[ReceivedEvent] = []
        while self._events:
            events.append(self._events.popleft())
        return events, look or any(event.type == "log" for event in events)


class _Followed:
    """A task that readers of this process follow."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.number = 0
        self.last_line = 0
        self.subscribers: set[Subscriber] = set()

    def notify(self, events: Sequence[ReceivedEvent], *, record_changed: bool = False) -> None:
        for subscriber in list(self.subscribers):
            try:
                subscriber.notify(events, record_changed=record_changed)
            except RuntimeError:
                # Its event loop is closed.
                self.subscribers.discard(subscriber)


class Follower:
    """Follows tasks for any number of readers; each task's events are read once for all of them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.mailbox = f"{os.getpid()}-{secrets.token_hex(6)}-events"
        self._tasks: dict[UUID, _Followed] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._next_check = 0.0
        self._next_follow = 0.0
        self._closed = False

    def add(self, subscriber: Subscriber, number: int) -> None:
        """Follow a task from the event after `number`. Blocks for two short calls."""
        agent_id, queue = subscriber.agent_id, subscriber.queue
        with self._lock:
            followed = self._tasks.get(agent_id)
            if followed is None:
                followed = self._tasks[agent_id] = _Followed(queue)
                followed.number = number
            followed.subscribers.add(subscriber)
            if self._thread is None:
                self._next_follow = time.monotonic() + FOLLOW_TTL_SECONDS / 3
                self._thread = threading.Thread(target=self._run, name="agentexec-follow", daemon=True)
                self._thread.start()
        try:
            self._follow(queue, [agent_id])
        except UnavailableError as error:
            log.warning("%s Until it is back the log of task %s is looked up now and then.", error, agent_id)

    def remove(self, subscriber: Subscriber) -> None:
        """A reader has left. The task stays followed for a minute, for one who comes back."""
        with self._lock:
            followed = self._tasks.get(subscriber.agent_id)
            if followed is not None:
                followed.subscribers.discard(subscriber)
                if not followed.subscribers:
                    del self._tasks[subscriber.agent_id]

    def close(self) -> None:
        """End the thread at its next turn, and every stream."""
        self._closed = True
        with self._lock:
            tasks = list(self._tasks.values())
        for followed in tasks:
            for subscriber in followed.subscribers:
                subscriber.closed = True
            followed.notify((), record_changed=True)

    def _follow(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        self._runtime.backend.follow(queue, agent_ids, self.mailbox)
        self._runtime.backend.watch(queue, agent_ids, self.mailbox)

    def _run(self) -> None:
        failures = 0
        while not self._closed:
            try:
                pause = min(CHECK_SECONDS, max(0.0, self._next_check - time.monotonic()))
                self._act_on(self._runtime.backend.receive(self.mailbox, pause))
                self._check()
                if failures:
                    log.info("Live events are heard again.")
                failures = 0
            except UnavailableError as error:
                failures += 1
                if failures == 1:
                    log.warning("%s Live events are not heard until it is back.", error)
                time.sleep(backoff(failures))
                self._look_quietly()
            except Exception:
                log.exception("Events could not be read; trying again.")
                time.sleep(1.0)

    def _act_on(self, messages: Iterable[str]) -> None:
        messages = list(messages)
        for agent_id in parse_messages(messages, DONE):
            followed = self._tasks.get(agent_id)
            if followed is not None:
                followed.notify((), record_changed=True)
        if published := set(parse_messages(messages, EVENTS)):
            self._read(published)

    def _read(self, agent_ids: Iterable[UUID]) -> None:
        with self._lock:
            tasks = {one: self._tasks[one] for one in agent_ids if one in self._tasks}
        queues: dict[str, dict[UUID, int]] = {}
        for agent_id, followed in tasks.items():
            queues.setdefault(followed.queue, {})[agent_id] = followed.number
        for queue, after in queues.items():
            for agent_id, events in self._runtime.backend.read_events(queue, after).items():
                tasks[agent_id].number = events[-1].number
                tasks[agent_id].notify([parse_event(event) for event in events])

    def _check(self) -> None:
        """Now and then: messages may be lost with the state backend, and some changes are told to nobody."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + CHECK_SECONDS
        with self._lock:
            ids = list(self._tasks)
        self._look_at_record()
        self._read(ids)
        if now >= self._next_follow:
            self._next_follow = now + FOLLOW_TTL_SECONDS / 3
            queues: dict[str, list[UUID]] = {}
            with self._lock:
                for agent_id, followed in self._tasks.items():
                    queues.setdefault(followed.queue, []).append(agent_id)
            for queue, agent_ids in queues.items():
                self._follow(queue, agent_ids)

    def _look_quietly(self) -> None:
        try:
            self._look_at_record()
        except UnavailableError:
            log.debug("The record cannot be read either.")

    def _look_at_record(self) -> None:
        """Tell the readers of tasks that have new log lines."""
        with self._lock:
            tasks = dict(self._tasks)
        ids = list(tasks)
        with reading(self._runtime.engine) as connection:
            for start in range(0, len(ids), 500):
                for agent_id, last in connection.execute(_LAST_LINES, {"ids": ids[start : start + 500]}):
                    if last > tasks[agent_id].last_line:
                        tasks[agent_id].last_line = last
                        tasks[agent_id].notify((), record_changed=True)
