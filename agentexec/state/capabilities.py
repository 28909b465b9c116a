"""Optional capabilities of a state backend: methods that one may have beside those of the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

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
