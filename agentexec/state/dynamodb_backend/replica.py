"""The log of a queue, and the state that a process makes from it.

A queue is a log of commands. An entry is appended by putting the item of the next number on the condition that there is none, so
exactly one process appends each number, after it has applied all entries before. Every process applies all entries, in
order, to a state of its own (`rules.py`), and so has the same answers: who got which task is decided by the order of
the log. Commands of several threads go into one entry.

| pk | sk | item |
| --- | --- | --- |
| `queue#<rules>#<queue>` | `head` | generation of the log; number, id and size of the last snapshot; first number that may not be emptied |
| `queue#<rules>#<queue>` | `snap#<number>#<id>#<part>` | part of a snapshot: the state after that entry |
| `log#<rules>#<queue>#<generation>#<segment>` | `<number>` | entry: its id, and commands as compressed JSON |

Entries before the last snapshot but one are emptied, and DynamoDB removes them after a week: until then their numbers are taken, so
a process that was suspended meanwhile cannot append one of them again. A table that was emptied has no head: the next append starts a new generation,
and nobody reads what another process might still append to the old one.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from agentexec.errors import UnavailableError
from agentexec.state.dynamodb_backend.rules import INVALID, RULES, Command, SharedQueue
from agentexec.state.dynamodb_backend.table import Item, Table, expiry, key, pause

log = logging.getLogger("agentexec.dynamodb")

MAX_ENTRY_BYTES = 300_000
"""Size of the commands of one entry before compression; an item has at most 400 KB."""

PART_BYTES = 350_000
"""Size of a part of a snapshot."""

MIN_LOG_BYTES, MAX_LOG_ENTRIES = 131_072, 1_000
"""A snapshot is made when the log after the last one has become this large, and as large as that one, or has so many entries."""

HEAD_SECONDS = 1.0
"""Longest time for which a process goes on without a look whether the table was emptied."""

CALL_SECONDS = 15.0
"""Time limit of a call."""

SEGMENT = 100
"""Entries of one partition. So no partition is written to for long."""

EMPTIED_SECONDS = 7 * 86_400
"""Seconds for which the number of an entry that is no longer needed stays taken."""

LAST = "~"
"""Sort key above all others."""


@dataclass(slots=True)
class Call:
    """Command of a thread, and its answer."""

    command: Command
    is_needed: Callable[[SharedQueue], bool]
    size: int
    is_done: bool = False
    answer: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Head:
    """Head of a queue: its generation, and where its last snapshot is. Numbers start at 1."""

    generation: str = ""
    number: int = 0
    """Number of the entry after which the last snapshot was made; 0: there is no snapshot."""
    entry_id: str = ""
    snapshot: str = ""
    parts: int = 0
    size: int = 0
    kept: int = 1


@dataclass(slots=True)
class State:
    """State of a queue after an entry of its log."""

    queue: SharedQueue
    head: Head
    number: int = 0
    entry_id: str = ""
    bytes_since: int = 0
    checked_at: float = field(default_factory=time.monotonic)


class Moved(Exception):  # noqa: N818 - never leaves this module
    """The log does not continue where this process is: it was shortened, or the table was emptied."""


class Replica:
    """One queue as this process knows it. Threads share it.

    Args:
        table: The table.
        name: Name of the queue.
    """

    def __init__(self, table: Table, name: str) -> None:
        self._table = table
        self._pk = f"queue#{RULES}#{name}"
        self._log_pk = f"log#{RULES}#{name}#"
        self._turn = threading.RLock()  # for whoever talks to the table about this queue
        self._calls_lock = threading.Lock()
        self._calls: list[Call] = []
        self._state = self._new_state(Head())

    def _new_state(self, head: Head) -> State:
        return State(SharedQueue(threading.RLock()), head)

    # Calls

    @contextmanager
    def reading(self) -> Generator[SharedQueue]:
        """Yield the queue as it is now. The caller changes nothing."""
        with self._my_turn(), self._table.translated_errors():
            self._catch_up()
            yield self._state.queue

    @contextmanager
    def known(self) -> Generator[SharedQueue]:
        """Yield the queue as this process knew it last."""
        with self._my_turn():
            yield self._state.queue

    def run(
        self,
        command: Command,
        *,
        is_needed: Callable[[SharedQueue], bool] = lambda _: True,
        default: Any = None,
    ) -> Any:
        """Append a command and return its answer; `default`, without an entry, if the queue as it is now needs none."""
        call = Call(command, is_needed, len(json.dumps(command)), answer=default)
        with self._calls_lock:
            self._calls.append(call)
        with self._my_turn():
            while not call.is_done:
                self._commit_some()
        if call.error is not None:
            raise call.error
        return call.answer

    @contextmanager
    def _my_turn(self) -> Generator[None]:
        if not self._turn.acquire(timeout=CALL_SECONDS):
            raise UnavailableError("DynamoDB is too slow: other threads of this process wait for it.")
        try:
            yield
        finally:
            self._turn.release()

    def _commit_some(self) -> None:
        """Append commands of this process in one entry, the oldest first."""
        calls = self._next_calls()
        try:
            with self._table.translated_errors():
                self._append(calls)
        except BaseException as error:
            for call in calls:
                call.error = call.error or error
            if not isinstance(error, Exception):
                raise
        finally:
            for call in calls:
                call.is_done = True

    def _next_calls(self) -> list[Call]:
        with self._calls_lock:
            size, count = 0, 0
            for call in self._calls:
                size += call.size
                if count and size > MAX_ENTRY_BYTES:
                    break
                count += 1
            calls, self._calls = self._calls[:count], self._calls[count:]
        return calls

    def _append(self, calls: Sequence[Call]) -> None:
        deadline, failures = time.monotonic() + CALL_SECONDS, 0
        entry_id, needed = uuid4().hex, []
        # If the next number is free, nobody has appended anything that this process does not know.
        looks = not self._may_be_current()
        while True:
            answers = self._catch_up(entry_id) if looks else None
            if answers is None:
                needed = [call for call in calls if call.is_needed(self._state.queue)]
                if looks and not needed:
                    return
                if looks or len(needed) == len(calls):
                    answers = self._put_entry(entry_id, needed)
            if answers is not None:
                for call, answer in zip(needed, answers, strict=True):
                    call.answer, call.error = (
                        (None, answer) if isinstance(answer, Exception) else (answer, None)
                    )
                self._maybe_snapshot()
                return
            # Another process was first, or the reply to the first try of ours was lost.
            if time.monotonic() > deadline:
                raise UnavailableError("DynamoDB: too many processes change this queue at the same time.")
            if failures:
                time.sleep(pause(failures))
            failures, looks = failures + looks, True

    def _may_be_current(self) -> bool:
        state = self._state
        return bool(state.head.generation) and time.monotonic() - state.checked_at <= HEAD_SECONDS

    def _put_entry(self, entry_id: str, calls: Sequence[Call]) -> list[Any] | None:
        """Put the next entry and return the answers to its commands; None if another process was first."""
        if not self._state.head.generation:
            self._start_generation()
            return None
        item = self._entry(entry_id, [call.command for call in calls])
        return self._apply(item) if self._table.put_new(item) else None

    def _entry(self, entry_id: str, commands: Sequence[Command]) -> Item:
        data = zlib.compress(json.dumps(commands, separators=(",", ":")).encode(), 1)
        state = self._state
        return {
            **self._entry_key(state.head, state.number + 1),
            "id": {"S": entry_id},
            "data": {"B": data},
        }

    def _start_generation(self) -> None:
        """Create the head of an empty queue, unless another process has just done so."""
        head = Head(generation=uuid4().hex)
        if self._table.put_new(_head_item(self._pk, head)):
            self._state = self._new_state(head)

    def _entry_key(self, head: Head, number: int) -> Item:
        return key(f"{self._log_pk}{head.generation}#{number // SEGMENT}", _sort_key(number))

    # Reading the log

    def _catch_up(self, own: str = "") -> list[Any] | None:
        """Apply all entries that are new, and return the answers to the commands of the entry whose id is `own`."""
        deadline, has_moved = time.monotonic() + CALL_SECONDS, False
        while True:
            try:
                if has_moved:
                    self._load()
                return self._read_news(own)
            except Moved:
                has_moved = True
                if time.monotonic() > deadline:
                    raise UnavailableError("DynamoDB: a queue changes faster than it can be read.") from None

    def _read_news(self, own: str) -> list[Any] | None:
        state = self._state
        if not self._may_be_current():
            head = _read_head(self._table.get(self._pk, "head"))
            if head.generation != state.head.generation:
                raise Moved
            state.checked_at = time.monotonic()
            if not head.generation:
                return None
        # The last entry that is known is read again: if it is gone, others may be too.
        items = self._entries(state.head, max(1, state.number))
        if state.number:
            last = next(items, None)
            if last is None or "id" not in last or last["id"]["S"] != state.entry_id:
                raise Moved
        answers = None
        for item in items:
            if item["sk"]["S"] != _sort_key(state.number + 1) or "id" not in item:
                raise Moved
            found = self._apply(item)
            if item["id"]["S"] == own:
                answers = found
        return answers

    def _entries(self, head: Head, number: int) -> Generator[Item]:
        """Yield the entries from a number on."""
        while True:
            first, last = self._entry_key(head, number), None
            for item in self._table.query(first["pk"]["S"], first["sk"]["S"], LAST):
                last = item["sk"]["S"]
                yield item
            number = (number // SEGMENT + 1) * SEGMENT
            if last != _sort_key(number - 1):
                return

    def _apply(self, item: Item) -> list[Any]:
        """Apply an entry, and return the answers to its commands; an invalid one is an error, and the next goes on."""
        state, data, answers = self._state, bytes(item["data"]["B"]), []
        try:
            commands = json.loads(zlib.decompress(data))
        except (ValueError, zlib.error):
            commands = []
        with state.queue.lock:
            for command in commands if isinstance(commands, list) else []:
                try:
                    answers.append(state.queue.apply(command))
                except INVALID as error:
                    answers.append(error)
        state.number, state.entry_id = state.number + 1, item["id"]["S"]
        state.bytes_since += len(data)
        return answers

    def _load(self) -> None:
        """Start again from the last snapshot. Raises Moved if a newer one replaces it meanwhile."""
        head = _read_head(self._table.get(self._pk, "head"))
        state = self._new_state(head)
        if head.number:
            start = f"snap#{_sort_key(head.number)}#{head.snapshot}#"
            parts = [bytes(item["data"]["B"]) for item in self._table.query(self._pk, start, start + LAST)]
            if len(parts) != head.parts:
                raise Moved
            state.queue.load(json.loads(zlib.decompress(b"".join(parts))))
            state.number, state.entry_id = head.number, head.entry_id
        self._state = state

    # Snapshots

    def _maybe_snapshot(self) -> None:
        state = self._state
        # Only one process appends this number, so it alone looks.
        if state.number % 10:
            return
        is_long = state.number - state.head.number >= MAX_LOG_ENTRIES
        if is_long or state.bytes_since >= max(MIN_LOG_BYTES, state.head.size):
            try:
                self.snapshot()
            except Exception:
                log.warning("A snapshot of a queue in DynamoDB failed; the next one is soon.", exc_info=True)

    def snapshot(self) -> None:
        """Store the state, and delete what it makes superfluous."""
        state, old = self._state, _read_head(self._table.get(self._pk, "head"))
        state.bytes_since = 0
        if old.generation != state.head.generation:
            return
        if old.number > state.head.number:
            # Another process has made one since this one looked.
            state.head = old
            return
        data = zlib.compress(json.dumps(state.queue.saved(), separators=(",", ":")).encode(), 3)
        parts = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
        new = Head(old.generation, state.number, state.entry_id, uuid4().hex, len(parts), len(data), old.kept)
        start = f"snap#{_sort_key(new.number)}#{new.snapshot}#"
        self._table.put_all(
            {**key(self._pk, f"{start}{place:06}"), "data": {"B": part}} for place, part in enumerate(parts)
        )
        is_newest = self._table.put_if(
            _head_item(self._pk, new),
            "generation = :generation AND #number < :number",
            {":generation": {"S": new.generation}, ":number": {"N": str(new.number)}},
            {"#number": "number"},
        )
        if is_newest:
            state.head = new
            self._clean_up(old, new)

    def _clean_up(self, old: Head, new: Head) -> None:
        """Delete older snapshots, and empty the entries before the last snapshot but one: others may be between the two."""
        found = self._table.query(
            self._pk, "snap#", f"snap#{_sort_key(new.number)}", ProjectionExpression="pk, sk"
        )
        self._table.delete_all(list(found))
        end = max(old.number, new.kept)
        self._table.put_all(
            {**self._entry_key(new, number), "ttl": expiry(EMPTIED_SECONDS)}
            for number in range(new.kept, end)
        )
        if end > new.kept:
            self._table.succeeds(
                self._table.client.update_item,
                TableName=self._table.name,
                Key=key(self._pk, "head"),
                UpdateExpression="SET kept = :kept",
                ConditionExpression="generation = :generation AND kept < :kept",
                ExpressionAttributeValues={
                    ":kept": {"N": str(end)},
                    ":generation": {"S": new.generation},
                },
            )


def _sort_key(number: int) -> str:
    return f"{number:016}"


def _head_item(pk: str, head: Head) -> Item:
    return {
        **key(pk, "head"),
        "generation": {"S": head.generation},
        "number": {"N": str(head.number)},
        "entry_id": {"S": head.entry_id},
        "snapshot": {"S": head.snapshot},
        "parts": {"N": str(head.parts)},
        "size": {"N": str(head.size)},
        "kept": {"N": str(head.kept)},
    }


def _read_head(item: Item | None) -> Head:
    """Return the head of a queue; an empty one if there is none."""
    if item is None:
        return Head()
    return Head(
        item["generation"]["S"],
        int(item["number"]["N"]),
        item["entry_id"]["S"],
        item["snapshot"]["S"],
        int(item["parts"]["N"]),
        int(item["size"]["N"]),
        int(item["kept"]["N"]),
    )
