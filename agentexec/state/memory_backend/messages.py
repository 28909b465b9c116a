"""Mailboxes and live events in memory."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from agentexec.llm.rate_limits import MICROS_PER_SECOND
from agentexec.state.backend import (
    EVENT_TTL_SECONDS,
    FOLLOW_TTL_SECONDS,
    MAIL_TTL_SECONDS,
    WATCH_TTL_SECONDS,
    Event,
)
from agentexec.state.memory_backend.queue import Channel, Queue
from agentexec.state.messages import DONE, EVENTS, format_message


@dataclass(slots=True)
class Mailbox:
    """Messages of one process."""

    messages: list[str] = field(default_factory=list)
    since: float = 0.0
    """Time of the first message."""


class MemoryMessages:
    """Part of the memory backend that carries messages and events."""

    def __init__(self, clock: Callable[[], float], *, single_queue: bool) -> None:
        self._clock = clock
        self._single_queue = single_queue
        self._lock = threading.RLock()
        self._mail_arrived = threading.Condition(self._lock)
        self._queues: dict[str, Queue] = {}
        self._mailboxes: defaultdict[str, Mailbox] = defaultdict(Mailbox)

    def watch(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Tell `mailbox` when these tasks are done. A watch expires after an hour unless repeated."""
        with self._lock:
            watches, expires_at = self._queue(queue).watches, self._clock() + WATCH_TTL_SECONDS
            for agent_id in agent_ids:
                watches[agent_id][mailbox] = expires_at

    def notify_done(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Send `done <agent_id>` to every mailbox that watches one of these tasks, and end the watches."""
        with self._lock:
            watches, now = self._queue(queue).watches, self._clock()
            for agent_id in agent_ids:
                for mailbox, expires_at in watches.pop(agent_id, {}).items():
                    if expires_at > now:
                        self.send(mailbox, [format_message(DONE, agent_id)])

    def send(self, mailbox: str, messages: Sequence[str]) -> None:
        """Put messages into a mailbox. A mailbox that nobody reads is removed after a minute."""
        with self._lock:
            now = self._clock()
            for name in [name for name, box in self._mailboxes.items() if box.since + MAIL_TTL_SECONDS < now]:
                del self._mailboxes[name]
            if messages:
                box = self._mailboxes[mailbox]
                box.since = box.since or now
                box.messages.extend(messages)
                self._mail_arrived.notify_all()

    def receive(self, mailbox: str, timeout: float) -> list[str]:
        """Wait up to `timeout` seconds for messages, and take all of them, oldest first."""
        with self._lock:
            self._mail_arrived.wait_for(lambda: mailbox in self._mailboxes, max(0.0, timeout))
            return self._mailboxes.pop(mailbox, Mailbox()).messages

    def publish(self, queue: str, events: Mapping[UUID, Sequence[str]]) -> None:
        """Append live events to those of each task, and notify its followers."""
        with self._lock:
            state, now = self._queue(queue), self._clock()
            expired = [
                agent_id
                for agent_id, channel in state.channels.items()
                if channel.last_at + EVENT_TTL_SECONDS < now
            ]
            for agent_id in expired:
                del state.channels[agent_id]
            for agent_id, texts in events.items():
                channel = state.channels.setdefault(agent_id, Channel())
                # The first number comes from the clock, so a new channel continues above the numbers of an expired one.
                last = channel.events[-1].number if channel.events else int(now * MICROS_PER_SECOND)
                channel.events.extend(Event(last + place, text) for place, text in enumerate(texts, 1))
                channel.last_at = now
                for mailbox, expires_at in state.follows.get(agent_id, {}).items():
                    if expires_at > now:
                        self.send(mailbox, [format_message(EVENTS, agent_id)])

    def read_events(self, queue: str, after: Mapping[UUID, int]) -> dict[UUID, list[Event]]:
        """Return, for each task, the kept events whose number is above the given one, oldest first."""
        with self._lock:
            channels, now = self._queue(queue).channels, self._clock()
            found: dict[UUID, list[Event]] = {}
            for agent_id, number in after.items():
                channel = channels.get(agent_id)
                if channel is not None and channel.last_at + EVENT_TTL_SECONDS >= now:
                    newer = [event for event in channel.events if event.number > number]
                    if newer:
                        found[agent_id] = newer
            return found

    def follow(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Tell `mailbox` about events of these tasks for FOLLOW_TTL_SECONDS."""
        with self._lock:
            follows, now = self._queue(queue).follows, self._clock()
            expired = [agent_id for agent_id, followers in follows.items() if max(followers.values()) <= now]
            for agent_id in expired:
                del follows[agent_id]
            for agent_id in agent_ids:
                follows[agent_id][mailbox] = now + FOLLOW_TTL_SECONDS

    def followed_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> set[UUID]:
        """Return those of `agent_ids` that some mailbox follows."""
        with self._lock:
            follows, now = self._queue(queue).follows, self._clock()
            return {
                agent_id
                for agent_id in agent_ids
                if agent_id in follows and max(follows[agent_id].values()) > now
            }

    def _queue(self, name: str) -> Queue:
        if self._single_queue:
            name = ""
        state = self._queues.get(name)
        if state is None:
            state = self._queues[name] = Queue(self._lock)
        return state
