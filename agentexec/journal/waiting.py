"""Waiting inside an attempt: when a task may leave its worker, and when it must be back.

A task leaves only when nothing else is in progress in it, so that no other call is cut off.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import defaultdict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from typing import Literal, TypeVar

from agentexec.errors import Postponed

PostponedT = TypeVar("PostponedT", bound=Postponed)

WaitKind = Literal["approval", "event"]

POLL_SECONDS = 0.25
"""Seconds between two checks for an awaited answer or event, while something else is in progress in the task."""

QUIET_SECONDS = 0.05
"""Seconds without activity after which a task counts as idle; the gap between two steps of a run is shorter."""

FAR_FUTURE_SECONDS = 10 * 365 * 86_400.0
"""Seconds after which a task that waits without a time limit starts by itself."""


class ActiveCalls:
    """The calls in progress in an attempt: of models, tools and steps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Not Counters: every attempt makes them, and their constructor is Python.
        self._tracked: dict[object, int] = defaultdict(int)
        self._suspended: dict[object, int] = defaultdict(int)

    @contextmanager
    def track(self, call: object) -> Generator[None]:
        """Count a call as in progress inside the block."""
        with _counted(self._lock, self._tracked, (call,)):
            yield

    @contextmanager
    def suspend(self, calls: Iterable[object]) -> Generator[None]:
        """Inside the block, do not count these calls as active: they only wait for what the block yields."""
        with _counted(self._lock, self._suspended, tuple(calls)):
            yield

    @property
    def idle(self) -> bool:
        """True if every call in progress is suspended."""
        with self._lock:
            return all(call in self._suspended for call in self._tracked)


@contextmanager
def _counted(lock: threading.Lock, counter: dict[object, int], calls: tuple[object, ...]) -> Generator[None]:
    with lock:
        for call in calls:
            counter[call] += 1
    try:
        yield
    finally:
        with lock:
            for call in calls:
                counter[call] -= 1
                if not counter[call]:
                    del counter[call]


async def wait_until_idle(active_calls: ActiveCalls, within: Iterable[object]) -> None:
    """Wait until nothing is in progress except the calls that the caller is inside of."""
    with active_calls.suspend(within):
        while not active_calls.idle:  # noqa: ASYNC110 - tasks may run on several event loops
            await asyncio.sleep(QUIET_SECONDS)


@dataclasses.dataclass(slots=True, eq=False)
class Wait:
    """One open wait of an attempt. `kind` is None for a sleep, `ends_at` None for a wait without a time limit."""

    kind: WaitKind | None
    ends_at: datetime | None


class OpenWaits:
    """The open waits of an attempt: for answers and events, and its sleeps.

    Branches of a handler wait side by side, so the task must be back when the first of the waits ends. Safe to use
    from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: list[Wait] = []

    @contextmanager
    def open(self, kind: WaitKind | None, ends_at: datetime | None = None) -> Generator[Wait]:
        """Hold a wait open inside the block, which may set `ends_at` when it learns it."""
        wait = Wait(kind, ends_at)
        with self._lock:
            self._waits.append(wait)
        try:
            yield wait
        finally:
            with self._lock:
                self._waits.remove(wait)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of what the task waits for now."""
        with self._lock:
            return frozenset(wait.kind for wait in self._waits if wait.kind is not None)

    @property
    def earliest_end(self) -> datetime | None:
        """The moment at which the first of the open waits ends; None if none has a time limit."""
        with self._lock:
            return min((wait.ends_at for wait in self._waits if wait.ends_at is not None), default=None)

    def leave(self, reason: type[PostponedT], message: str, now: datetime) -> PostponedT:
        """Return the exception that takes the task off its worker until one of its waits may have ended."""
        ends_at = self.earliest_end
        seconds = FAR_FUTURE_SECONDS if ends_at is None else max(0.0, (ends_at - now).total_seconds())
        return reason(seconds, message, self.kinds)
