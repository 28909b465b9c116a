"""Publisher of live events: text deltas, tool calls and the like, for the followers of a running task.

`publish` costs a lock and an append, whatever the state backend does: one thread of the process sends in batches.
Nothing is sent for a task that nobody follows; its events wait here, bounded, in case a follower comes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agentexec.activity.live.encoding import DROPPED, LOG_CHANGED, MAX_EVENT_CHARS, TEXT_DELTA, encode
from agentexec.config import CONF
from agentexec.errors import UnavailableError
from agentexec.outage import Outage
from agentexec.runtime import RUNTIME, Runtime
from agentexec.state.backend import EVENTS_KEPT
from agentexec.task import CURRENT_LEASE

log = logging.getLogger("agentexec.live")

GATHER_SECONDS = 0.03
"""Seconds that an event of a followed task waits, so that others go in the same batch."""

CHECK_SECONDS = 0.25
"""Seconds between two questions to the state backend: which tasks are followed?"""

TRUST_SECONDS = 5.0
"""Seconds for which the answer that a task is followed is trusted."""

FLUSH_SECONDS = 2.0
"""Longest wait of a task's ending for its events, in seconds: many times what sending takes. A busy machine takes up to
one, and no ending waits for a state backend that is known to be away."""

IDLE_SECONDS = 600.0
"""Seconds after which the events of a task that nobody follows are dropped."""

JOINED_CHARS = 2_000
"""Characters of a text delta beyond which the next one is not joined to it."""

TASK_CHARS, PROCESS_CHARS = 262_144, 33_554_432
"""Characters that may wait for one task, and for all tasks of a process."""


def publish(agent_id: UUID, type: str, data: Mapping[str, Any]) -> None:
    """Publish a live event to the followers of a task.

    Returns at once, whatever the servers do. Consecutive text deltas are joined if their data differs in `text` only.

    Args:
        agent_id: Id of the task.
        type: `text_delta`, `tool_called`, `tool_output`, `agent` or `usage`; see `ActivityEvent`.
        data: JSON data, not to be changed afterwards. Of an event longer than 16,384 characters, each value is cut
            to 4,000 characters.
    """
    event_publisher().publish(agent_id, type, data)


def event_publisher() -> EventPublisher:
    """Return the publisher of this process."""
    return RUNTIME.get_shared(EventPublisher, lambda: EventPublisher(RUNTIME))


@dataclass(slots=True)
class _Event:
    """Event that has not been sent yet.

    `parts` are the texts of joined text deltas; `chars` is about the size of the event.
    """

    type: str
    at: float
    epoch: int | None
    data: Mapping[str, Any]
    parts: list[str] = field(default_factory=list)
    chars: int = 0

    @property
    def only_in_backend(self) -> bool:
        """True if the record does not hold what this event says."""
        return self.type != LOG_CHANGED

    def join(self, later: _Event) -> bool:
        """Append the text of a later text delta to this one; False if the two cannot be joined."""
        if not (
            later.parts
            and self.parts
            and self.epoch == later.epoch
            and self.chars < JOINED_CHARS
            and self.data == later.data
        ):
            return False
        self.parts += later.parts
        self.chars += later.chars
        return True

    def encode(self) -> str:
        data = {**self.data, "text": "".join(self.parts)} if self.parts else self.data
        return encode(self.type, self.at, self.epoch, data)


def _new_event(type: str, epoch: int | None, data: Mapping[str, Any]) -> _Event:
    """Return an event that happens now. Runs in the code of the task, so it leaves the encoding for later."""
    text = data.get("text") if type == TEXT_DELTA else None
    if text is None:
        # Long strings are cut now, not kept until they are sent; `encode` notices that they were too long.
        data = {
            name: value[:MAX_EVENT_CHARS] if isinstance(value, str) else value for name, value in data.items()
        }
        # An estimate: the JSON is made when the event is sent.
        size = 100 + sum(len(value) for value in data.values() if isinstance(value, str))
        return _Event(type, time.time(), epoch, data, chars=size)
    others = {name: value for name, value in data.items() if name != "text"}
    return _Event(type, time.time(), epoch, others, [text], len(text))


@dataclass(slots=True)
class _Pending:
    """Events of one task that have not been sent yet."""

    events: deque[_Event] = field(default_factory=deque)
    chars: int = 0
    dropped: int = 0
    changed: float = 0.0
    only_in_backend: bool = False
    """True if the record does not hold all that these events say."""
    recorded: int = 0
    """Number of events that the record holds anyway."""

    def append(self, event: _Event) -> None:
        if not (self.events and self.events[-1].join(event)):
            self.events.append(event)
        self.chars += event.chars
        self.changed = time.monotonic()
        if event.only_in_backend:
            self.only_in_backend = True
        else:
            self.recorded += 1

    def evict_oldest(self) -> int:
        """Drop the oldest event, and return its size."""
        oldest = self.events.popleft()
        self.chars -= oldest.chars
        if oldest.only_in_backend:
            self.dropped += 1
        else:
            self.recorded -= 1
        return oldest.chars

    def keep_only_in_backend(self) -> None:
        """Drop the events that the record holds anyway."""
        # Each task is asked about several times a second: its events are only gone through if there is one to drop.
        if self.recorded:
            self.events = deque(event for event in self.events if event.only_in_backend)
            self.recorded = 0

    def texts(self) -> list[str]:
        """Return the events as the state backend takes them."""
        events = list(self.events)
        if self.dropped:
            events.insert(0, _Event(DROPPED, time.time(), None, {"events": self.dropped}))
        return [event.encode() for event in events]


class EventPublisher:
    """Publisher of a process; owns the thread that sends, which starts with the first event.

    All collections are guarded by the lock of `_changed`.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.queue_of: Callable[[UUID], str] = lambda _: CONF.queue_name
        """Returns the queue of a task of this process."""
        self._pending: dict[UUID, _Pending] = {}
        self._followed: dict[UUID, float] = {}
        """Until when a task is taken to be followed."""
        self._ready: set[UUID] = set()
        """Followed tasks with events to send."""
        self._flushing: set[UUID] = set()
        """Tasks whose ending waits for their events."""
        self._sending: set[UUID] = set()
        self._chars = 0
        self._next_check = 0.0
        self._outage = Outage(log, recovered="Live events are sent again.")
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def publish(self, agent_id: UUID, type: str, data: Mapping[str, Any]) -> None:
        """Publish an event; see the function `publish`."""
        lease = CURRENT_LEASE.get()
        epoch = lease.epoch if lease is not None and lease.agent_id == agent_id else None
        event = _new_event(type, epoch, data)
        with self._changed:
            self._add(agent_id, event)

    def notify_log_changed(self, agent_ids: Iterable[UUID]) -> None:
        """Tell the followers of these tasks that the record has new log lines. Returns at once."""
        event = _Event(LOG_CHANGED, time.time(), None, {})
        with self._changed:
            for agent_id in agent_ids:
                pending = self._pending.get(agent_id)
                if pending is None or not pending.events or pending.events[-1].only_in_backend:
                    self._add(agent_id, event)

    def flush(self, agent_ids: Iterable[UUID], timeout: float = FLUSH_SECONDS) -> bool:
        """Send the pending events of tasks that are about to end, and forget these tasks.

        Waits at most `timeout` seconds, and not at all for tasks without events; with 0 it does nothing if there are any.
        Returns False if events were not sent.
        """
        ids = list(agent_ids)
        with self._changed:
            if (waiting := self._unsent(ids)) and not timeout:
                return False
            sent = not waiting
            if waiting and not self._outage.failures:
                self._flushing |= waiting
                self._changed.notify_all()
                sent = self._changed.wait_for(
                    lambda: not (waiting & self._flushing or waiting & self._sending), timeout
                )
            for agent_id in ids:
                self._forget(agent_id)
            if self._followed:
                for agent_id in ids:
                    self._followed.pop(agent_id, None)
            self._flushing.difference_update(waiting)
            return sent and not self._outage.failures

    def close(self) -> None:
        """Send the pending events, within FLUSH_SECONDS, and end the thread, within as long."""
        self.flush(list(self._pending))
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:  # or it would open again what the caller closes next
            self._thread.join(FLUSH_SECONDS)

    # ---- under the lock ----------------------------------------------------------------------------------

    def _add(self, agent_id: UUID, event: _Event) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="agentexec-live", daemon=True)
            self._thread.start()
        pending = self._pending.get(agent_id)
        if pending is None:
            pending = self._pending[agent_id] = _Pending()
            if len(self._pending) == 1:
                self._changed.notify_all()
        pending.append(event)
        self._chars += event.chars
        if len(pending.events) > 1 or pending.chars > TASK_CHARS or self._chars > PROCESS_CHARS:
            self._evict(pending)
        if self._followed and agent_id in self._followed:
            if not self._ready:
                self._changed.notify_all()
            self._ready.add(agent_id)

    def _unsent(self, agent_ids: Sequence[UUID]) -> set[UUID]:
        """Return those of these tasks with events that the record does not hold."""
        unsent = {it for it in agent_ids if (pending := self._pending.get(it)) and pending.only_in_backend}
        return unsent | self._sending.intersection(agent_ids) if self._sending else unsent

    def _not_followed(self, agent_ids: Iterable[UUID], now: float) -> list[UUID]:
        """Return those of these tasks that are not known to be followed."""
        return [agent_id for agent_id in agent_ids if self._followed.get(agent_id, 0.0) < now]

    def _evict(self, pending: _Pending) -> None:
        """Evict the oldest events beyond the limits."""
        while pending.events and (
            len(pending.events) > EVENTS_KEPT or pending.chars > TASK_CHARS or self._chars > PROCESS_CHARS
        ):
            self._chars -= pending.evict_oldest()

    def _forget(self, agent_id: UUID) -> _Pending | None:
        if self._ready:
            self._ready.discard(agent_id)
        pending = self._pending.pop(agent_id, None)
        if pending is not None:
            self._chars -= pending.chars
        return pending

    def _note_unfollowed(self, agent_id: UUID, *, ends: bool) -> None:
        """Drop the events that the record holds anyway, and all of them if the task `ends` or was idle for long."""
        if self._followed:
            self._followed.pop(agent_id, None)
        if self._ready:
            self._ready.discard(agent_id)
        pending = self._pending.get(agent_id)
        if pending is None:
            return
        pending.keep_only_in_backend()
        idle = time.monotonic() - pending.changed > IDLE_SECONDS
        if not pending.events or idle or ends:
            self._forget(agent_id)

    def _note_answers(
        self, asked: Iterable[UUID], followed: set[UUID], flushing: set[UUID], now: float
    ) -> None:
        """Note which of the tasks asked about are followed."""
        for agent_id in asked:
            if agent_id in followed:
                self._followed[agent_id] = now + TRUST_SECONDS
            else:
                # `flushing` is from before the question: a task that began to end after it is asked about again.
                self._note_unfollowed(agent_id, ends=agent_id in flushing)

    def _note_lost(self, batch: Mapping[UUID, _Pending | None]) -> None:
        """Count events as dropped instead of sending them again: they may have arrived although the call failed."""
        for agent_id, lost in batch.items():
            if lost is not None and agent_id not in self._flushing:
                pending = self._pending.setdefault(agent_id, _Pending(changed=time.monotonic()))
                pending.dropped += lost.dropped + sum(event.only_in_backend for event in lost.events)

    # ---- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._wait():
            try:
                self._send()
                self._outage.recovered()
            except UnavailableError as error:
                self._pause(f"{error} Live events are not sent until it is back.")
            except Exception as error:
                # Whatever it is, the thread must survive: without it nothing is sent any more.
                self._pause(f"Live events could not be sent: {type(error).__name__}: {error}")

    def _wait(self) -> bool:
        """Wait until there is something to do; return False once the publisher is closed."""
        with self._changed:
            while not self._closed:
                if self._flushing:
                    return True
                if self._ready:
                    self._changed.wait_for(lambda: self._flushing or self._closed, GATHER_SECONDS)
                    return True
                left = self._next_check - time.monotonic() if self._pending else None
                if left is not None and left <= 0:
                    return True
                self._changed.wait(left)
        return False

    def _send(self) -> None:
        """Find out which tasks are followed, where that is not known, and send their events."""
        backend, now = self._runtime.backend, time.monotonic()
        with self._changed:
            flushing = set(self._flushing)
            due = now >= self._next_check
            candidates = self._pending if due else (flushing | self._ready) & self._pending.keys()
            unknown = self._not_followed(candidates, now)
        followed = self._ask(unknown)
        with self._changed:
            if due:
                self._next_check = now + CHECK_SECONDS
            self._note_answers(unknown, followed, flushing, now)
            ready = self._pending.keys() & self._followed.keys() if self._followed else set[UUID]()
            batch = {agent_id: self._forget(agent_id) for agent_id in ready}
            self._sending = set(batch)
        try:
            texts = {agent_id: events.texts() for agent_id, events in batch.items() if events}
            for queue, agent_ids in self._by_queue(texts).items():
                backend.publish(queue, {agent_id: texts[agent_id] for agent_id in agent_ids})
        except Exception:
            with self._changed:
                self._note_lost(batch)
            raise
        finally:
            with self._changed:
                self._sending = set()
                self._flushing -= flushing
                self._changed.notify_all()

    def _ask(self, agent_ids: Sequence[UUID]) -> set[UUID]:
        """Return those of these tasks that are followed."""
        backend, followed = self._runtime.backend, set[UUID]()
        for queue, group in self._by_queue(agent_ids).items():
            followed |= backend.followed_tasks(queue, group)
        return followed

    def _by_queue(self, agent_ids: Iterable[UUID]) -> dict[str, list[UUID]]:
        queues: dict[str, list[UUID]] = {}
        for agent_id in agent_ids:
            queues.setdefault(self.queue_of(agent_id), []).append(agent_id)
        return queues

    def _pause(self, message: str) -> None:
        """Wait before the next try; no ending of a task waits for a state backend that is away."""
        with self._changed:
            seconds = self._outage.failed("%s", message)
            self._flushing.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed, seconds)
