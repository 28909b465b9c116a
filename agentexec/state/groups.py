"""Groups of tasks, which say how many of them may run at once: locks and limits.

A lock has one task, from its first claim until it ends. A limit has as many as the workers declare, while they are leased.
A backend lets the tasks of a group in by the order in which they were ready, HIGH before LOW. A group is a text: "lock:KEY",
or "limit:TASK", a unit separator and the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from agentexec.state.answers import Waiting
from agentexec.task import LIMIT, LOCK, SEPARATOR, Lease

NO_LIMITS: Mapping[str, int] = MappingProxyType({})
"""Limits of a claim by a worker whose tasks have none."""

MAX_PARKED = 300
"""Tasks that one claim finds waiting for their groups before it ends; the next claim continues."""


@runtime_checkable
class SupportsGroups(Protocol):
    """Method of a backend that knows locks and limits. A backend without it runs tasks that have neither."""

    def waiting_for(self, queue: str, agent_id: UUID) -> Waiting | None:
        """Return the group for which a task waits, None if it does not. Reads only, for display.

        Args:
            queue: Name of the queue.
            agent_id: Task to look up.
        """


def is_lock(group: str) -> bool:
    """Return True for a lock, False for a limit."""
    return group.startswith(LOCK)


def key_of(group: str) -> str:
    """Return the key of a group."""
    return group.removeprefix(LOCK) if is_lock(group) else group.partition(SEPARATOR)[2]


def capacity(group: str, limits: Mapping[str, int]) -> int | None:
    """Return how many tasks a group admits at once, None for any number: no task of the worker declares a limit."""
    return 1 if is_lock(group) else limits.get(group.removeprefix(LIMIT).partition(SEPARATOR)[0])


def left_by_transaction(backend: Any, leases: Sequence[Lease]) -> list[Lease]:
    """Return the tasks that `finish` within a transaction leaves to a call after its commit: on SQL, those with groups."""
    unfinished = getattr(backend, "unfinished", None)
    return [] if unfinished is None else unfinished(leases)
