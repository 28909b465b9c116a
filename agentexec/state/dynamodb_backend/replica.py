"""The log of a queue, and the state that a process makes from it.

A queue is a log of commands. An entry is appended by putting the item of the next number on the condition that there is none, so
exactly one process appends each number, after it has applied all entries before. Every process applies all entries, in
order, to a state of its own (`rules.py`), and so has the same answers: who got which task is decided by the order of
the log. Commands of several threads go into one entry. `log.py` has the items.
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
from agentexec.state.dynamodb_backend.log import Head, Moved, QueueLog, sort_key
from agentexec.state.dynamodb_backend.rules import INVALID, RULES, Command, SharedQueue
from agentexec.state.dynamodb_backend.table import Item, Table, pause

log = logging.getLogger("agentexec.dynamodb")

MAX_ENTRY_BYTES = 300_000
"""Size of the commands of one entry before compression; an item has at most 400 KB."""

MIN_LOG_BYTES, MAX_LOG_ENTRIES = 131_072, 1_000
"""A snapshot is made when the log after the last one has become this large, and as large as that one, or has so many entries."""

BYTES_PER_ENTRY = 500
"""A large snapshot waits for more entries: one for so many of its bytes."""

HEAD_SECONDS = 1.0
"""Longest time for which a process goes on without a look whether the table was emptied."""

CALL_SECONDS = 15.0
"""Time limit of a call."""


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
class Attempt:
    """Entry that a process tries to append, perhaps several times: its id, and the calls in the last try."""

    entry_id: str = field(default_factory=lambda: uuid4().hex)
    calls: list[Call] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """State of a queue after an entry of its log."""

    queue: SharedQueue
    head: Head
    number: int = 0
    entry_id: str = ""
    bytes_since: int = 0
    checked_at: float = field(default_factory=time.monotonic)


class Replica:
    """One queue as this process knows it. Threads share it.

    Args:
        table: The table.
        name: Name of the queue.
    """

    def __init__(self, table: Table, name: str) -> None:
        self._table = table
        self._log = QueueLog(table, name, RULES)
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
        attempt = Attempt()
        # If the next number is free, nobody has appended anything that this process does not know.
        looks = not self._may_be_current()
        while not self._try_append(calls, attempt, looks=looks):
            # Another process was first, or the reply to the first try of ours was lost.
            if time.monotonic() > deadline:
                raise UnavailableError("DynamoDB: too many processes change this queue at the same time.")
            time.sleep(pause(failures) if failures else 0.0)
            failures, looks = failures + looks, True
        if attempt.calls:
            self._maybe_snapshot()

    def _try_append(self, calls: Sequence[Call], attempt: Attempt, *, looks: bool) -> bool:
        """Append those commands that are needed, and note their answers. False if it has to be tried again after a look."""
        answers = self._catch_up(attempt.entry_id) if looks else None
        if answers is None:
            attempt.calls = [call for call in calls if call.is_needed(self._state.queue)]
            if looks and not attempt.calls:
                return True
            if looks or len(attempt.calls) == len(calls):
                answers = self._put_entry(attempt.entry_id, attempt.calls)
        if answers is None:
            return False
        for call, answer in zip(attempt.calls, answers, strict=True):
            call.answer, call.error = (None, answer) if isinstance(answer, Exception) else (answer, None)
        return True

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
            **self._log.entry_key(state.head, state.number + 1),
            "id": {"S": entry_id},
            "data": {"B": data},
        }

    def _start_generation(self) -> None:
        """Create the head of an empty queue, unless another process has just done so."""
        head = Head(generation=uuid4().hex)
        if self._log.create_head(head):
            self._state = self._new_state(head)

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
            head = self._log.read_head()
            if head.generation != state.head.generation:
                raise Moved
            state.checked_at = time.monotonic()
            if not head.generation:
                return None
        # The last entry that is known is read again: if it is gone, others may be too.
        items = self._log.entries(state.head, max(1, state.number))
        if state.number:
            last = next(items, None)
            if last is None or "id" not in last or last["id"]["S"] != state.entry_id:
                raise Moved
        answers = None
        for item in items:
            if item["sk"]["S"] != sort_key(state.number + 1) or "id" not in item:
                raise Moved
            found = self._apply(item)
            if item["id"]["S"] == own:
                answers = found
        return answers

    def _apply(self, item: Item) -> list[Any]:
        """Apply an entry, and return the answers to its commands; an invalid one is an error, and the next goes on."""
        state, answers = self._state, []
        data = bytes(item.get("data", {}).get("B", b""))
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
        head = self._log.read_head()
        state = self._new_state(head)
        if head.number:
            state.queue.load(self._log.load_snapshot(head))
            state.number, state.entry_id = head.number, head.entry_id
        self._state = state

    # Snapshots

    def _maybe_snapshot(self) -> None:
        state = self._state
        # Only one process appends this number, so it alone looks.
        if state.number % 10:
            return
        entries = state.number - state.head.number
        is_long = entries >= max(MAX_LOG_ENTRIES, state.head.size // BYTES_PER_ENTRY)
        if is_long or state.bytes_since >= max(MIN_LOG_BYTES, state.head.size):
            try:
                self._snapshot()
            except Exception:
                log.warning("A snapshot of a queue in DynamoDB failed; the next one is soon.", exc_info=True)

    def _snapshot(self) -> None:
        state, stored = self._state, self._log.read_head()
        state.bytes_since = 0
        if stored.generation != state.head.generation:
            return
        if stored.number > state.head.number:
            # Another process has made one since this one looked.
            state.head = stored
            return
        new = self._log.store_snapshot(stored, state.number, state.entry_id, state.queue.saved())
        if new is not None:
            state.head = new
