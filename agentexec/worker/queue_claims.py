"""Claims from the queues that a worker process serves, and the wait for tasks of any of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from agentexec.config import Settings
from agentexec.policy import low_priority_quota
from agentexec.state.backend import StateBackend
from agentexec.state.groups import NO_LIMITS
from agentexec.task import Lease
from agentexec.worker.queue_shares import QueueShares

log = logging.getLogger("agentexec.worker")

PAUSED_WAIT = 1.0
"""Seconds of one wait for tasks while another queue is paused: it may be resumed meanwhile."""


class SupportsPauses(Protocol):
    """Parts of the Pauses that claiming uses."""

    def paused(self) -> frozenset[str]:
        """Return the names of the paused queues. May raise UnavailableError."""
        ...

    def wait_for_change(self, known: frozenset[str], timeout: float) -> None:
        """Wait until other queues than `known` are paused."""
        ...


class NoPauses:
    """Pauses of a process for which no queue is ever paused."""

    def paused(self) -> frozenset[str]:
        """Return no queue."""
        return frozenset()

    def wait_for_change(self, known: frozenset[str], timeout: float) -> None:
        """Return at once."""


class Claimed(NamedTuple):
    """Leases by queue, and the seconds until the next delayed task of any queue is due."""

    leases: dict[str, list[Lease]]
    next_due: float | None


class QueueClaims:
    """The queues that a worker process serves, as the thread that claims sees them.

    A worker that serves one queue makes one call for each claim and each wait. Threads: the thread that claims calls
    everything.
    """

    def __init__(
        self,
        backend: StateBackend,
        settings: Settings,
        worker_id: str,
        pauses: SupportsPauses,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> None:
        self._backend = backend
        self._names = [queue.name for queue in settings.served_queues]
        self._shares = QueueShares(settings.served_queues)
        self._lease_seconds = settings.lease_seconds
        self._worker_id = worker_id
        self._pauses = pauses
        self._limits = limits
        self._claimed = dict.fromkeys(self._names, 0)

    def claim(self, limit: int) -> Claimed:
        """Claim up to `limit` tasks. Raises UnavailableError."""
        leases: dict[str, list[Lease]] = {}
        due: list[float] = []

        def claim_from(queue: str, number: int) -> int:
            found, next_due = self._backend.claim(
                queue,
                self._worker_id,
                limit=number,
                low_quota=low_priority_quota(self._claimed[queue], number),
                lease_seconds=self._lease_seconds,
                # Left out without limits, which a backend of the user's need not know.
                **({"limits": self._limits} if self._limits else {}),
            )
            if next_due is not None:
                due.append(next_due)
            if found:
                leases.setdefault(queue, []).extend(found)
                self._claimed[queue] += len(found)
            return len(found)

        try:
            self._shares.fill(self._without(self._pauses.paused()), limit, claim_from)
        except Exception as error:
            if not leases:
                raise
            # What was claimed runs; the next claim fails again if this was not a moment's error.
            log.debug("Claiming from a further queue failed: %s.", error)
        return Claimed(leases, min(due, default=None))

    def paused(self) -> frozenset[str]:
        """Return the names of the paused queues. May raise UnavailableError before they were read once."""
        return self._pauses.paused()

    def wait(self, timeout: float) -> None:
        """Wait until a task of a queue that is not paused may be ready, or for `timeout` seconds. May return early."""
        paused = self._pauses.paused()
        queues = self._without(paused)
        if not queues:
            self._pauses.wait_for_change(paused, timeout)
        else:
            self._backend.wait(
                queues[0] if len(queues) == 1 else queues, min(timeout, PAUSED_WAIT) if paused else timeout
            )

    def _without(self, paused: frozenset[str]) -> list[str]:
        return [name for name in self._names if name not in paused] if paused else self._names
