"""Operations that the tests of a backend share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

from agentexec.state.backend import StateBackend
from agentexec.task import Entry, Lease, Priority, new_agent_id

T = TypeVar("T")

SHORT_LEASE = 0.3
"""Seconds of a lease that a test lets expire."""

LONG_LEASE = 60.0
"""Seconds of a lease that does not expire within a test."""

WAIT_TIMEOUT = 10.0
"""Seconds that a test waits for something that must happen."""


def push(backend: StateBackend, queue: str, count: int, priority: Priority = Priority.LOW) -> list[UUID]:
    """Push new tasks in one call, and return their ids."""
    entries = [Entry(new_agent_id(), priority) for _ in range(count)]
    backend.push(queue, entries)
    return [entry.agent_id for entry in entries]


def claim(
    backend: StateBackend,
    queue: str,
    limit: int = 1,
    *,
    worker: str = "worker",
    low_quota: int = 0,
    seconds: float = LONG_LEASE,
) -> list[Lease]:
    """Claim once, and return the leases."""
    return backend.claim(queue, worker, limit=limit, low_quota=low_quota, lease_seconds=seconds).leases


def claim_all(backend: StateBackend, queue: str) -> list[Lease]:
    """Claim until the queue is empty, and return the leases."""
    claimed: list[Lease] = []
    while leases := claim(backend, queue, 1000):
        claimed += leases
    return claimed


def ids(leases: Sequence[Lease]) -> list[UUID]:
    """Return the ids of leases, in order."""
    return [lease.agent_id for lease in leases]


def wait_until(condition: Callable[[], T]) -> T:
    """Call `condition` until it returns something true, and return that."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not (outcome := condition()):
        assert time.monotonic() < deadline, f"still not true after {WAIT_TIMEOUT:g} s"
        time.sleep(0.01)
    return outcome


@contextmanager
def running_in_thread(call: Callable[[], object]) -> Generator[Callable[[], float]]:
    """Run a blocking call in a thread, and yield a function that waits for its end and returns the seconds of its wait.

    The call may have ended before, as waits may always return early.
    """
    ready = threading.Event()

    def run() -> None:
        ready.set()
        call()

    with ThreadPoolExecutor(1) as threads:
        thread = threads.submit(run)
        ready.wait()
        time.sleep(0.1)  # it cannot be seen from outside that the call blocks
        started = time.monotonic()

        def ended() -> float:
            thread.result(2 * WAIT_TIMEOUT)
            return time.monotonic() - started

        yield ended
