"""Optional capabilities of a state backend: methods that one may have beside those of the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

from sqlalchemy import Connection

from agentexec.state.answers import Inspection
from agentexec.task import Lease


class SupportsFinishAndNotify(Protocol):
    """Method of a backend that does `finish` and `notify_done` in one call. Without it both are called."""

    def finish_and_notify(self, queue: str, leases: Sequence[Lease]) -> None:
        """Forget finished tasks, and tell those who wait for them: somebody may be waiting for a result.

        Args:
            queue: Name of the queue.
            leases: Leases of the finished tasks.
        """


def finishing_and_notifying(backend: object) -> SupportsFinishAndNotify | None:
    """Return a backend that has `finish_and_notify`, None for others."""
    # Not `isinstance`: from Python 3.12 on it does not see what a wrapper passes on by `__getattr__`.
    return cast(SupportsFinishAndNotify, backend) if hasattr(backend, "finish_and_notify") else None


class SupportsInspect(Protocol):
    """Method of a backend that does `is_intact` and `expired_leases` in one call. Without it both are called."""

    def inspect(self, queue: str, limit: int) -> Inspection:
        """Return what a worker that leads the queue asks each second.

        Args:
            queue: Name of the queue.
            limit: Maximum number of expired leases.
        """
        ...


def inspecting(backend: object) -> SupportsInspect | None:
    """Return a backend that has `inspect`, None for others."""
    return cast(SupportsInspect, backend) if hasattr(backend, "inspect") else None


class JoinFailed(Exception):  # noqa: N818 - it reaches no user
    """The company of a claim could not be written, and waits no more: the claim begins again without it."""


class JoinsClaim(Protocol):
    """Company of a claim in its transaction: its argument `joins`, on a queue in a database with a single writer."""

    @property
    def waits(self) -> bool:
        """True if something is to be written even if no task is ready."""
        ...

    def begin(self, connection: Connection) -> object:
        """Write what waits, when the transaction has begun. Raises JoinFailed."""
        ...

    def note_commit(self) -> object:
        """Note that what was written is committed."""
        ...

    def start(self, queue: str, connection: Connection, leases: Sequence[Lease]) -> object:
        """Start the claimed tasks."""
        ...
