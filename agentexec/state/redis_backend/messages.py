"""Mailboxes and live events in Redis."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from uuid import UUID

import redis

from agentexec.db.chunks import chunks
from agentexec.state.backend import EVENTS_KEPT, MAIL_TTL_SECONDS, WATCH_TTL_SECONDS, Event
from agentexec.state.messages import DONE, EVENTS, format_message
from agentexec.state.redis_backend import scripts
from agentexec.state.redis_backend.connection import Connections, clamp_block_timeout
from agentexec.state.redis_backend.script import MAX_TASKS_PER_SCRIPT
from agentexec.state.redis_backend.signing import Signer

log = logging.getLogger("agentexec.redis")

MAX_MESSAGES = 100_000
"""Messages that one call of `receive` takes; the next call takes further ones."""

MAIL = "mail"
EVENT = "event"


class RedisMessages:
    """Part of the Redis backend that carries messages and events."""

    def __init__(self, connections: Connections, prefix: str, signer: Signer) -> None:
        self._connections = connections
        self._prefix = prefix
        self._signer = signer

    @property
    def _retrying_client(self) -> redis.Redis:
        return self._connections.retrying_client

    @property
    def _single_try_client(self) -> redis.Redis:
        return self._connections.single_try_client

    def watch(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Tell `mailbox` when these tasks are done. A watch expires after an hour unless repeated."""
        with self._translating_errors():
            for chunk in chunks(agent_ids, MAX_TASKS_PER_SCRIPT):
                keys = [self._watch_key(queue, agent_id) for agent_id in chunk]
                scripts.watch(self._retrying_client, keys, mailbox, ttl=WATCH_TTL_SECONDS)

    def notify_done(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Send `done <agent_id>` to every mailbox that watches one of these tasks, and end the watches."""
        with self._translating_errors():
            for chunk in chunks(agent_ids, MAX_TASKS_PER_SCRIPT):
                watchers = scripts.take_watchers(
                    self._single_try_client, [self._watch_key(queue, agent_id) for agent_id in chunk]
                )
                self._tell(chunk, watchers)

    def _tell(self, agent_ids: Sequence[UUID], watchers: Sequence[Iterable[str]]) -> None:
        """Send `done` for each task to the mailboxes that watched it."""
        messages: defaultdict[str, list[str]] = defaultdict(list)
        for agent_id, mailboxes in zip(agent_ids, watchers, strict=True):
            for mailbox in mailboxes:
                messages[mailbox].append(format_message(DONE, agent_id))
        self._send_all(messages)

    def send(self, mailbox: str, messages: Sequence[str]) -> None:
        """Put messages into the mailbox of a process. A mailbox that nobody reads is removed after a minute."""
        with self._translating_errors():
            self._send_all({mailbox: messages})

    def _send_all(self, messages: Mapping[str, Sequence[str]]) -> None:
        signed = {
            self._mail_key(mailbox): [self._signer.wrap(MAIL, mailbox, text) for text in texts]
            for mailbox, texts in messages.items()
            if texts
        }
        if signed:
            scripts.send_all(self._retrying_client, signed, ttl=MAIL_TTL_SECONDS)

    def receive(self, mailbox: str, timeout: float) -> list[str]:
        """Wait up to `timeout` seconds for messages, and take all of them, oldest first.

        A message is lost if the connection breaks while the server sends it.
        """
        key = self._mail_key(mailbox)
        deadline = time.monotonic() + timeout
        with self._translating_errors():
            while True:
                remaining = deadline - time.monotonic()
                block = clamp_block_timeout(remaining) if remaining > 0 else None
                texts = scripts.receive(self._single_try_client, key, block=block, most=MAX_MESSAGES)
                if texts or remaining <= 0:
                    return self._verified(mailbox, texts)

    def _verified(self, mailbox: str, texts: Sequence[bytes]) -> list[str]:
        """Return the messages that have a valid signature, without it."""
        opened = [self._signer.unwrap(MAIL, mailbox, text.decode("utf-8", "replace")) for text in texts]
        messages = [text for text in opened if text is not None]
        if len(messages) < len(texts):
            self._signer.note_dropped(len(texts) - len(messages), "messages to processes")
        return messages

    def publish(self, queue: str, events: Mapping[UUID, Sequence[str]]) -> None:
        """Append live events to the streams of tasks, and notify their followers."""
        messages: defaultdict[str, list[str]] = defaultdict(list)
        with self._translating_errors():
            for agent_id, texts in events.items():
                keys = [self._events_key(queue, agent_id), self._follow_key(queue, agent_id)]
                followers: list[str] = []
                signed = [self._signer.wrap(EVENT, agent_id.hex, text) for text in texts]
                for chunk in chunks(signed, MAX_TASKS_PER_SCRIPT):
                    # Never repeated: the events might be appended twice.
                    followers = scripts.publish(self._single_try_client, keys, chunk)
                for mailbox in followers:
                    messages[mailbox].append(format_message(EVENTS, agent_id))
            self._send_all(messages)

    def read_events(self, queue: str, after: Mapping[UUID, int]) -> dict[UUID, list[Event]]:
        """Return, for each task, the kept events whose number is above the given one, oldest first."""
        found: dict[UUID, list[Event]] = {}
        with self._translating_errors():
            for chunk in chunks(list(after.items()), MAX_TASKS_PER_SCRIPT):
                pipeline = self._retrying_client.pipeline(transaction=False)
                for agent_id, number in chunk:
                    pipeline.xrange(
                        self._events_key(queue, agent_id), min=f"{number + 1}-0", count=2 * EVENTS_KEPT
                    )
                # A value of another type in place of a stream must not hide the other streams.
                answers = pipeline.execute(raise_on_error=False)
                for (agent_id, _), entries in zip(chunk, answers, strict=True):
                    if isinstance(entries, redis.ResponseError):
                        log.debug("The events of task %s cannot be read: %s", agent_id, entries)
                    elif isinstance(entries, Exception):
                        raise entries
                    elif entries:
                        found[agent_id] = [self._event(agent_id, *entry) for entry in entries]
        return found

    def _event(self, agent_id: UUID, entry: bytes, fields: Mapping[bytes, bytes]) -> Event:
        """Return an event. Without a valid signature, or with an unknown form, it has no text."""
        text = (fields or {}).get(b"e", b"").decode("utf-8", "replace")
        opened = self._signer.unwrap(EVENT, agent_id.hex, text)
        if opened is None:
            self._signer.note_dropped(1, "events of tasks")
        return Event(int(entry.partition(b"-")[0]), opened or "")

    def follow(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Tell `mailbox` about events of these tasks for FOLLOW_TTL_SECONDS."""
        with self._translating_errors():
            for chunk in chunks(agent_ids, MAX_TASKS_PER_SCRIPT):
                scripts.follow(
                    self._retrying_client, [self._follow_key(queue, agent_id) for agent_id in chunk], mailbox
                )

    def followed_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> set[UUID]:
        """Return those of `agent_ids` that some mailbox follows."""
        found: set[UUID] = set()
        with self._translating_errors():
            for chunk in chunks(agent_ids, MAX_TASKS_PER_SCRIPT):
                keys = [self._follow_key(queue, agent_id) for agent_id in chunk]
                # Most of the time nobody follows any task, which one reply tells.
                if self._retrying_client.exists(*keys):
                    pipeline = self._retrying_client.pipeline(transaction=False)
                    for key in keys:
                        pipeline.exists(key)
                    followed = zip(chunk, pipeline.execute(), strict=True)
                    found.update(agent_id for agent_id, exists in followed if exists)
        return found

    def _translating_errors(self) -> AbstractContextManager[None]:
        return self._connections.translating_errors()

    def _queue_key(self, queue: str, name: str) -> str:
        return f"{{{self._prefix}:{queue}}}:{name}"

    def _watch_key(self, queue: str, agent_id: UUID) -> str:
        return self._queue_key(queue, f"watch:{agent_id.hex}")

    def _events_key(self, queue: str, agent_id: UUID) -> str:
        return self._queue_key(queue, f"events:{agent_id.hex}")

    def _follow_key(self, queue: str, agent_id: UUID) -> str:
        return self._queue_key(queue, f"follow:{agent_id.hex}")

    def _mail_key(self, mailbox: str) -> str:
        return f"{self._prefix}:mail:{mailbox}"
