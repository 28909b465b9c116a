"""Short-lived events of running tasks (text deltas, tool calls), on their way to those who follow them.

`publish` costs a lock and an append, whatever the state backend does: one thread of the process sends in batches.
Nothing is sent for a task that nobody follows; its events wait here, bounded, for a follower who may still come.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agentexec.config import CONF
from agentexec.errors import UnavailableError
from agentexec.outage import backoff
from agentexec.runtime import RUNTIME, Runtime
from agentexec.state.backend import EVENTS_KEPT
from agentexec.task import CURRENT_LEASE

log = logging.getLogger("agentexec.live")

GATHER_SECONDS = 0.03
"""How long events of a followed task wait for company."""

CHECK_SECONDS = 0.25
"""Seconds between two questions whether somebody follows a task by now."""

TRUST_SECONDS = 5.0
"""How long such an answer is believed where it was yes."""

FLUSH_SECONDS = 0.5
"""The longest that a task's ending waits for its events: many times what sending takes, also on a busy machine."""

IDLE_SECONDS = 600.0
"""Events that nobody has asked for since then are forgotten."""

JOINED_CHARS = 2_000
"""Text deltas are joined up to this length."""

TASK_CHARS = 262_144
PROCESS_CHARS = 33_554_432
"""Characters that wait for one task, and for all of a process."""

MOST_CHARS = 16_384
MOST_VALUE = 4_000
"""Characters of one event as JSON; above it each value is cut to the second."""

TEXT_DELTA = "text_delta"
DROPPED = "dropped"
NEWS = "log"
"""An event that says only that the record has a new log line."""


def publish(agent_id: UUID, type: str, data: Mapping[str, Any]) -> None:
    """Tell those who follow a task of something that need not last; returns at once, whatever the servers do.

    `type` is one of the short-lived types of `ActivityEvent` (text_delta, tool_called, tool_output, agent, usage).
    `data` is JSON data that is not changed afterwards; what is long in it is cut. Consecutive text deltas whose
    data differs in `text` only are joined.
    """
    event_publisher().publish(agent_id, type, data)


def event_publisher() -> EventPublisher:
    """The one sender of this process."""
    return RUNTIME.get_shared(EventPublisher, lambda: EventPublisher(RUNTIME))


@dataclass(slots=True)
class _Event:
    type: str
    at: float
    epoch: int | None
    data: Mapping[str, Any]
    parts: list[str] = field(default_factory=list)
    chars: int = 0


@dataclass(slots=True)
class _Pending:
    """The events of one task that are not sent yet."""

    events: deque[_Event] = field(default_factory=deque)
    chars: int = 0
    dropped: int = 0
    changed: float = 0.0

    @property
    def matters(self) -> bool:
        """False if the record has it all anyway."""
        return any(event.type != NEWS for event in self.events)


class EventPublisher:
    """Owns the thread that sends, which starts with the first event."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pending: dict[UUID, _Pending] = {}
        self._followed: dict[UUID, float] = {}
        self._ready: set[UUID] = set()
        self._flushing: set[UUID] = set()
        self._sending: set[UUID] = set()
        self._chars = 0
        self._next_check = 0.0
        self._failures = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def publish(self, agent_id: UUID, type: str, data: Mapping[str, Any]) -> None:
        """See the module's function."""
        lease = CURRENT_LEASE.get()
        epoch = lease.epoch if lease is not None and lease.agent_id == agent_id else None
        text = data.get("text") if type == TEXT_DELTA else None
        if text is None:
            data = {name: _head(value) for name, value in data.items()}
            # An estimate: the JSON is made in the thread.
            size = 100 + sum(len(value) for value in data.values() if isinstance(value, str))
            event = _Event(type, time.time(), epoch, data, chars=size)
        else:
            rest = {name: value for name, value in data.items() if name != "text"}
            event = _Event(type, time.time(), epoch, rest, [text], len(text))
        with self._changed:
            self._add(agent_id, event)

    def notify_log_changed(self, agent_ids: Iterable[UUID]) -> None:
        """Tell those who follow these tasks that the record has new log lines; returns at once."""
        now = time.time()
        with self._changed:
            for agent_id in agent_ids:
                pending = self._pending.get(agent_id)
                if pending is None or not pending.events or pending.events[-1].type != NEWS:
                    self._add(agent_id, _Event(NEWS, now, None, {}))

    def flush(self, agent_ids: Iterable[UUID], timeout: float = FLUSH_SECONDS) -> bool:
        """Send what waits for tasks that are about to end, and forget them; at most `timeout` seconds.

        Costs nothing for tasks without events. False if something was not sent.
        """
        ids = list(agent_ids)
        with self._changed:
            waiting = {
                one
                for one in ids
                if one in self._sending or (one in self._pending and self._pending[one].matters)
            }
            sent = not waiting
            if waiting and not self._failures:
                self._flushing |= waiting
                self._changed.notify_all()
                sent = self._changed.wait_for(
                    lambda: not (waiting & self._flushing or waiting & self._sending), timeout
                )
            for agent_id in ids:
                self._forget(agent_id)
                self._followed.pop(agent_id, None)
                self._flushing.discard(agent_id)
            return sent and not self._failures

    def close(self) -> None:
        """Send what waits, for a moment, and end the thread."""
        with self._changed:
            ids = list(self._pending)
        self.flush(ids)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

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
        last = pending.events[-1] if pending.events else None
        if last is not None and _joins(last, event):
            last.parts += event.parts
            last.chars += event.chars
        else:
            pending.events.append(event)
        pending.chars += event.chars
        pending.changed = time.monotonic()
        self._chars += event.chars
        self._bound(pending)
        if agent_id in self._followed:
            if not self._ready:
                self._changed.notify_all()
            self._ready.add(agent_id)

    def _bound(self, pending: _Pending) -> None:
        """Drop the oldest of what is too much."""
        while pending.events and (
            len(pending.events) > EVENTS_KEPT or pending.chars > TASK_CHARS or self._chars > PROCESS_CHARS
        ):
            oldest = pending.events.popleft()
            pending.chars -= oldest.chars
            self._chars -= oldest.chars
            pending.dropped += oldest.type != NEWS

    def _forget(self, agent_id: UUID) -> _Pending | None:
        self._ready.discard(agent_id)
        pending = self._pending.pop(agent_id, None)
        if pending is not None:
            self._chars -= pending.chars
        return pending

    def _nobody(self, agent_id: UUID, *, ends: bool) -> None:
        """Nobody follows a task: what the record has is not news, the rest waits a while, unless the task `ends`."""
        self._followed.pop(agent_id, None)
        self._ready.discard(agent_id)
        pending = self._pending.get(agent_id)
        if pending is None:
            return
        pending.events = deque(event for event in pending.events if event.type != NEWS)
        idle = time.monotonic() - pending.changed > IDLE_SECONDS
        if not pending.events or idle or ends:
            self._forget(agent_id)

    # ---- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._wait():
            try:
                self._turn()
                if self._failures:
                    log.info("Live events are sent again.")
                self._failures = 0
            except UnavailableError as error:
                self._pause(f"{error} Live events are not sent until it is back.")
            except Exception as error:
                # Whatever it is, the thread must live: without it nothing is sent any more.
                self._pause(f"Live events could not be sent: {type(error).__name__}: {error}")

    def _wait(self) -> bool:
        """Wait until there is something to do; False at the end."""
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

    def _turn(self) -> None:
        """Ask who is followed, where that is not known, and send."""
        backend, queue, now = self._runtime.backend, CONF.queue_name, time.monotonic()
        with self._changed:
            flushing = set(self._flushing)
            due = now >= self._next_check
            unsure = [
                one
                for one in self._pending
                if self._followed.get(one, 0.0) < now and (due or one in flushing or one in self._ready)
            ]
        followed = backend.followed_tasks(queue, unsure) if unsure else set()
        with self._changed:
            if due:
                self._next_check = now + CHECK_SECONDS
            for agent_id in unsure:
                if agent_id in followed:
                    self._followed[agent_id] = now + TRUST_SECONDS
                else:
                    # Who began to end after the question was put has it put again.
                    self._nobody(agent_id, ends=agent_id in flushing)
            batch = {one: self._forget(one) for one in [*self._pending] if one in self._followed}
            self._sending = set(batch)
        try:
            if batch:
                backend.publish(queue, {one: _texts(pending) for one, pending in batch.items() if pending})
        except Exception:
            with self._changed:
                self._note_lost(batch)
            raise
        finally:
            with self._changed:
                self._sending = set()
                self._flushing -= flushing
                self._changed.notify_all()

    def _note_lost(self, batch: Mapping[UUID, _Pending | None]) -> None:
        """Perhaps they were sent and the answer was lost: sent again they would stand there twice."""
        for agent_id, lost in batch.items():
            if lost is not None and agent_id not in self._flushing:
                pending = self._pending.setdefault(agent_id, _Pending(changed=time.monotonic()))
                pending.dropped += lost.dropped + sum(event.type != NEWS for event in lost.events)

    def _pause(self, message: str) -> None:
        with self._changed:
            self._failures += 1
            if self._failures == 1:
                log.warning("%s", message)
            # Nobody's end waits for a backend that is away.
            self._flushing.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed, backoff(self._failures))


def _head(value: Any) -> Any:
    """A long string is cut at once, not to be kept until it is sent; `_text` sees that it was too long."""
    return value[:MOST_CHARS] if isinstance(value, str) else value


def _joins(last: _Event, event: _Event) -> bool:
    """True if a text delta can become part of the one before it."""
    return bool(
        event.parts
        and last.parts
        and last.epoch == event.epoch
        and last.chars < JOINED_CHARS
        and last.data == event.data
    )


def _texts(pending: _Pending) -> list[str]:
    """Events as they go to the state backend."""
    events = list(pending.events)
    if pending.dropped:
        events.insert(0, _Event(DROPPED, time.time(), None, {"events": pending.dropped}))
    return [_text(event) for event in events]


def _text(event: _Event) -> str:
    data = {**event.data, "text": "".join(event.parts)} if event.parts else dict(event.data)
    whole = {"type": event.type, "at": event.at, "epoch": event.epoch, "data": data}
    text = _dump(whole)
    if len(text) > MOST_CHARS:
        whole["data"] = {**dict([_cut(*item) for item in data.items()][:20]), "truncated": True}
        text = _dump(whole)
    return text


def _cut(name: str, value: Any) -> tuple[str, Any]:
    """A value that fits: a string is cut, what is longer and no string becomes a cut string."""
    text = value if isinstance(value, str) else _dump(value)
    return str(name)[:100], (f"{text[:MOST_VALUE]}…" if len(text) > MOST_VALUE else value)


def _dump(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):
        # A browser could not read NaN, and a circle has no end.
        text = json.dumps(_plain(value, 6), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any, depth: int) -> Any:
    """What can be written as JSON: strings instead of the rest, and of what lies too deep."""
    if isinstance(value, str | bool | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if depth > 0 and isinstance(value, dict):
        return {str(name): _plain(one, depth - 1) for name, one in value.items()}
    if depth > 0 and isinstance(value, list | tuple):
        return [_plain(one, depth - 1) for one in value]
    return str(value)[:MOST_VALUE]
