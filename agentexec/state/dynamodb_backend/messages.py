"""Mailboxes, watches and live events.

| pk | sk | item |
| --- | --- | --- |
| `mail#<mailbox>` | `<nanoseconds><number>` | messages of one call |
| `watch#<queue>#<task>` | `-` | attributes `@<mailbox>`: the time until which it watches |
| `follow#<queue>#<task>` | `-` | the same for followers |
| `events#<queue>#<task>` | `<number of the first>` | events of one call, or a part of them, and the time |

All have a `ttl`. DynamoDB removes items hours later, so readers check the times themselves.
"""

from __future__ import annotations

import itertools
import json
import time
import zlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from agentexec.llm.rate_limits import MICROS_PER_SECOND
from agentexec.state.backend import (
    EVENT_TTL_SECONDS,
    EVENTS_KEPT,
    FOLLOW_TTL_SECONDS,
    MAIL_TTL_SECONDS,
    WATCH_TTL_SECONDS,
    Event,
)
from agentexec.state.dynamodb_backend.log import LAST
from agentexec.state.dynamodb_backend.shared import ONLY, SharedState
from agentexec.state.dynamodb_backend.table import Item, Table, expiry, key
from agentexec.state.messages import DONE, EVENTS, format_message

FIRST_POLL, LONGEST_POLL = 0.03, 0.5
"""Seconds between two looks, first and longest: each pause is half as long again as the one before."""

PART_BYTES = 200_000
"""Bytes of texts in one item before compression; a longer text has an item of its own."""

PART_TEXTS = 250
"""Texts in one item of events. Old events are removed by items."""

KEPT_SECONDS = 86_400
"""Seconds after which events are removed although newer ones of their task follow."""


def polls(timeout: float) -> Generator[None]:
    """Yield at once, and then at growing intervals until the time is over."""
    deadline, interval = time.monotonic() + timeout, FIRST_POLL
    while True:
        yield
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        time.sleep(min(interval, remaining))
        interval = min(LONGEST_POLL, interval * 1.5)


class Messages(SharedState):
    """Part of the DynamoDB backend that carries messages and events."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._numbers = itertools.count()

    def watch(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Tell `mailbox` when these tasks are done. A watch expires after an hour unless repeated."""
        self._subscribe("watch", queue, agent_ids, mailbox, WATCH_TTL_SECONDS)

    def follow(self, queue: str, agent_ids: Sequence[UUID], mailbox: str) -> None:
        """Tell `mailbox` about events of these tasks for FOLLOW_TTL_SECONDS."""
        self._subscribe("follow", queue, agent_ids, mailbox, FOLLOW_TTL_SECONDS)

    def notify_done(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Send `done <agent_id>` to every mailbox that watches one of these tasks, and end the watches."""
        mail: dict[str, list[str]] = {}
        with self._table.translated_errors():
            keys = {key(f"watch#{queue}#{agent_id.hex}", ONLY)["pk"]["S"]: agent_id for agent_id in agent_ids}
            for item in self._table.read_all(key(pk, ONLY) for pk in keys):
                pk = item["pk"]["S"]
                # All that are in it now are told. Where it is gone, the reply to our own request may have been lost.
                old = self._table.client.delete_item(
                    TableName=self._table.name, Key=key(pk, ONLY), ReturnValues="ALL_OLD"
                ).get("Attributes", item)
                for mailbox in _subscribers(old, self._table.now()):
                    mail.setdefault(mailbox, []).append(format_message(DONE, keys[pk]))
        self._send_all(mail)

    def send(self, mailbox: str, messages: Sequence[str]) -> None:
        """Put messages into a mailbox. A mailbox that nobody reads is removed after a minute."""
        self._send_all({mailbox: messages})

    def _send_all(self, mail: Mapping[str, Sequence[str]]) -> None:
        items = [
            {
                **key(f"mail#{mailbox}", f"{time.time_ns():020}{next(self._numbers):010}{uuid4().hex[:8]}"),
                "texts": {"B": _packed(texts)},
                "ttl": expiry(MAIL_TTL_SECONDS),
            }
            for mailbox, messages in mail.items()
            for texts in _parts(messages)
        ]
        with self._table.translated_errors():
            self._table.put_all(items)

    def receive(self, mailbox: str, timeout: float) -> list[str]:
        """Wait up to `timeout` seconds for messages, and take all of them, oldest first."""
        with self._table.translated_errors():
            for _ in polls(timeout):
                items = list(self._table.query(f"mail#{mailbox}", "0", LAST))
                if items:
                    self._table.delete_all(_key_of(item) for item in items)
                    return [text for item in items for text in _unpacked(item["texts"])]
        return []

    def publish(self, queue: str, events: Mapping[UUID, Sequence[str]]) -> None:
        """Append live events to those of each task, and notify its followers."""
        mail: dict[str, list[str]] = {}
        with self._table.translated_errors():
            for agent_id, texts in events.items():
                if texts:
                    self._append(f"events#{queue}#{agent_id.hex}", texts)
            for agent_id, followers in self._followers(queue, list(events)).items():
                for mailbox in followers:
                    mail.setdefault(mailbox, []).append(format_message(EVENTS, agent_id))
        self._send_all(mail)

    def _append(self, pk: str, texts: Sequence[str]) -> None:
        newest = next(self._table.query(pk, "0", LAST, ScanIndexForward=False, Limit=1), None)
        # The first number comes from the clock, so new events continue above the numbers of expired ones.
        number = int(newest["last"]["N"]) if newest else int(self._table.now() * MICROS_PER_SECOND)
        items = []
        for part in _parts(texts, PART_TEXTS):
            items.append(
                {
                    **key(pk, f"{number + 1:020}"),
                    "last": {"N": str(number + len(part))},
                    "at": {"N": repr(self._table.now())},
                    "texts": {"B": _packed(part)},
                    "ttl": expiry(KEPT_SECONDS),
                }
            )
            number += len(part)
        self._table.put_all(items)
        # An item goes if the events after it are enough: its last number is below that of the first event to keep.
        end = f"{number - EVENTS_KEPT + 1:020}"
        old = self._table.query(pk, "0", end, ProjectionExpression="pk, sk")
        self._table.delete_all([_key_of(item) for item in old][:-1])

    def read_events(self, queue: str, after: Mapping[UUID, int]) -> dict[UUID, list[Event]]:
        """Return, for each task, the kept events whose number is above the given one, oldest first."""
        found: dict[UUID, list[Event]] = {}
        with self._table.translated_errors():
            for agent_id, number in after.items():
                # The item with the event after `number` may begin before it.
                start = f"{max(0, number - PART_TEXTS):020}"
                items = list(self._table.query(f"events#{queue}#{agent_id.hex}", start, LAST))
                if items and float(items[-1]["at"]["N"]) + EVENT_TTL_SECONDS >= self._table.now():
                    events = [
                        Event(place, text)
                        for item in items
                        for place, text in enumerate(_unpacked(item["texts"]), int(item["sk"]["S"]))
                        if place > number
                    ]
                    if events:
                        found[agent_id] = events
        return found

    def followed_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> set[UUID]:
        """Return those of `agent_ids` that some mailbox follows."""
        with self._table.translated_errors():
            return {*self._followers(queue, agent_ids)}

    def _followers(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
        keys = {f"follow#{queue}#{agent_id.hex}": agent_id for agent_id in agent_ids}
        items = self._table.read_all(key(pk, ONLY) for pk in keys)
        found = {keys[item["pk"]["S"]]: _subscribers(item, self._table.now()) for item in items}
        return {agent_id: mailboxes for agent_id, mailboxes in found.items() if mailboxes}

    def _subscribe(
        self, kind: str, queue: str, agent_ids: Sequence[UUID], mailbox: str, seconds: float
    ) -> None:
        with self._table.translated_errors():
            for agent_id in agent_ids:
                self._table.client.update_item(
                    TableName=self._table.name,
                    Key=key(f"{kind}#{queue}#{agent_id.hex}", ONLY),
                    UpdateExpression="SET #mailbox = :until, #ttl = :ttl",
                    ExpressionAttributeNames={"#mailbox": f"@{mailbox}", "#ttl": "ttl"},
                    ExpressionAttributeValues={
                        ":until": {"N": repr(self._table.now() + seconds)},
                        ":ttl": expiry(seconds),
                    },
                )


def _subscribers(item: Item, now: float) -> list[str]:
    """Return the mailboxes whose watches have not expired."""
    return [
        name[1:] for name, value in item.items() if name.startswith("@") and float(value.get("N", 0)) > now
    ]


def _key_of(item: Item) -> Item:
    return {name: item[name] for name in ("pk", "sk")}


def _packed(texts: Sequence[str]) -> bytes:
    return zlib.compress(json.dumps(texts).encode(), 1)


def _unpacked(value: Any) -> list[str]:
    """Return the texts of an item. Anybody with access may have written it."""
    try:
        texts = json.loads(zlib.decompress(bytes(value["B"])))
    except (KeyError, ValueError, zlib.error):
        return []
    return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []


def _parts(texts: Sequence[str], most: int = 1_000) -> Generator[list[str]]:
    """Yield the texts in parts that fit into an item."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and (len(part) == most or size + len(text) > PART_BYTES):
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part
