"""Watch of the conversations whose streams wait for a next turn: one thread and one query for all streams of a process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from sqlalchemy import bindparam, select

from agentexec.conversations.locking import CONVERSATION
from agentexec.db.chunks import chunks
from agentexec.db.transactions import reading
from agentexec.errors import UnavailableError
from agentexec.outage import Outage
from agentexec.runtime import RUNTIME, Runtime

log = logging.getLogger("agentexec.stream")

LOOK_SECONDS = 0.25
"""Seconds between two looks at the conversations that are waited for."""

_TAKEN = select(CONVERSATION.c.id, CONVERSATION.c.last_taken).where(
    CONVERSATION.c.id.in_(bindparam("ids", expanding=True))
)


class _Waiter:
    """A stream that waits until a message after a position has been taken."""

    def __init__(self, conversation: str, position: int, wake: Callable[[], object]) -> None:
        self.conversation = conversation
        self.position = position
        self.wake = wake


class ConversationWatch:
    """Watch of a process; its thread runs while streams wait."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._outage = Outage(log, recovered="Streams of conversations go on.")
        self._waiters: set[_Waiter] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def wait(self, conversation: str, position: int) -> None:
        """Wait until a message after a position may have been taken."""
        taken = threading.Event()
        waiter = _Waiter(conversation, position, taken.set)
        self._add(waiter)
        try:
            taken.wait()
        finally:
            self._remove(waiter)

    async def wait_async(self, conversation: str, position: int) -> None:
        """Wait: `wait` for code with an event loop."""
        loop, taken = asyncio.get_running_loop(), asyncio.Event()
        waiter = _Waiter(conversation, position, lambda: loop.call_soon_threadsafe(taken.set))
        self._add(waiter)
        try:
            await taken.wait()
        finally:
            self._remove(waiter)

    def close(self) -> None:
        """End the thread, and let every stream look for itself."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            waiters = list(self._waiters)
        self._wake(waiters)

    def _add(self, waiter: _Waiter) -> None:
        with self._changed:
            if not self._closed:
                self._waiters.add(waiter)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="agentexec-chats", daemon=True)
                    self._thread.start()
                return
        self._wake([waiter])

    def _remove(self, waiter: _Waiter) -> None:
        with self._changed:
            self._waiters.discard(waiter)

    def _wake(self, waiters: list[_Waiter]) -> None:
        for waiter in waiters:
            try:
                waiter.wake()
            except RuntimeError:
                # Its event loop is closed.
                self._remove(waiter)

    def _run(self) -> None:
        seconds = LOOK_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed, seconds)
                if self._closed or not self._waiters:
                    self._thread = None
                    return
                waiters = list(self._waiters)
            try:
                self._wake(self._find_taken(waiters))
                self._outage.recovered()
                seconds = LOOK_SECONDS
            except UnavailableError as error:
                seconds = self._outage.failed("%s Streams of conversations wait until it is back.", error)
            except Exception:
                seconds = self._outage.failed_unexpectedly(
                    "The conversations could not be read; trying again."
                )

    def _find_taken(self, waiters: list[_Waiter]) -> list[_Waiter]:
        """Return the streams that have something new."""
        last: dict[str, int] = {}
        with reading(self._runtime.engine) as connection:
            for ids in chunks(sorted({waiter.conversation for waiter in waiters})):
                last.update(tuple(row) for row in connection.execute(_TAKEN, {"ids": ids}))
        return [waiter for waiter in waiters if last.get(waiter.conversation, 0) > waiter.position]


def conversation_watch() -> ConversationWatch:
    """Return the watch of this process."""
    return RUNTIME.get_shared(ConversationWatch, lambda: ConversationWatch(RUNTIME))
