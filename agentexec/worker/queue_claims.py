"""Claims from the queues that a worker process serves, and the wait for tasks of any of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from agentexec.config import Settings
from agentexec.errors import UnavailableError
from agentexec.outage import Outage
from agentexec.policy import low_priority_quota
from agentexec.state.backend import StateBackend
from agentexec.state.groups import NO_LIMITS
from agentexec.task import Lease
from agentexec.worker.claim_transaction import ClaimTransaction
from agentexec.worker.queue_shares import QueueShares

log = logging.getLogger("agentexec.worker")

PAUSED_WAIT = 1.0
"""Seconds of one wait for tasks while another queue is paused: it may be resumed meanwhile."""

AWAY_WAIT = 2.0
"""Longest wait in seconds between two claims from a queue that fails while others answer."""

AWAY_SHARE = 4
"""The least wait between them, as a multiple of how long the first of the two took: a server may let it run into its time-out."""


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


class _AwayQueue:
    """A queue that fails while others answer, such as one whose shard of a cluster is away."""

    def __init__(self, queue: str) -> None:
        self.outage = Outage(
            log,
            recovered=f"Claiming tasks of queue {queue} again.",
            level=logging.ERROR,
            maximum=AWAY_WAIT,
        )
        self._queue = queue
        self.retry_at = 0.0
        """Monotonic moment of its next claim."""

    def note(self, error: Exception, took: float) -> None:
        """Note a failed claim, and the seconds that it took."""
        if isinstance(error, UnavailableError):
            text = "%s Tasks of queue %s are not claimed until it is back; those of others are."
            wait = self.outage.failed(text, error, self._queue)
        else:
            try:
                raise error
            except Exception:
                text = "Claiming from queue %s failed; trying again."
                wait = self.outage.failed_unexpectedly(text, self._queue)
        self.retry_at = time.monotonic() + max(wait, AWAY_SHARE * took)


class QueueClaims:
    """The queues that a worker process serves, as the thread that claims sees them.

    A worker that serves one queue makes one call for each claim and each wait. A queue that fails while another one answers is
    left out for a while, and keeps nobody from the others. Threads: the thread that claims calls
    everything.

    Args:
        joins: Passed to a backend that claims in a transaction of the record.
    """

    def __init__(
        self,
        backend: StateBackend,
        settings: Settings,
        worker_id: str,
        pauses: SupportsPauses,
        limits: Mapping[str, int] = NO_LIMITS,
        joins: ClaimTransaction | None = None,
    ) -> None:
        self._backend = backend
        self._joins = joins
        self._names = [queue.name for queue in settings.served_queues]
        self._shares = QueueShares(settings.served_queues)
        self._lease_seconds = settings.lease_seconds
        self._worker_id = worker_id
        self._pauses = pauses
        self._limits = limits
        self._claimed = dict.fromkeys(self._names, 0)
        self._away: dict[str, _AwayQueue] = {}
        self._wait_failed = False
        """True if the last wait failed. Which of its queues is away, the next claim finds out."""

    def claim(self, limit: int) -> Claimed:
        """Claim up to `limit` tasks. Raises the error of a queue, such as UnavailableError, if no queue answers."""
        leases: dict[str, list[Lease]] = {}
        due: list[float] = []
        # Left out where there is nothing to pass, which a backend of the user's need not know.
        options: dict[str, Any] = {"limits": self._limits} if self._limits else {}
        answered: list[str] = []
        failures: dict[str, tuple[Exception, float]] = {}

        def claim_from(queue: str, number: int) -> int:
            if self._joins is not None:
                options["joins"] = self._joins
            began = time.monotonic()
            try:
                found, next_due = self._backend.claim(
                    queue,
                    self._worker_id,
                    limit=number,
                    low_quota=low_priority_quota(self._claimed[queue], number),
                    lease_seconds=self._lease_seconds,
                    **options,
                )
            except Exception as error:
                failures[queue] = error, time.monotonic() - began
                return 0
            answered.append(queue)
            if next_due is not None:
                due.append(next_due)
            if found:
                leases.setdefault(queue, []).extend(found)
                self._claimed[queue] += len(found)
            return len(found)

        self._shares.fill(self._answering(self._without(self._pauses.paused())), limit, claim_from)
        if failures and not answered:
            raise next(iter(failures.values()))[0]
        for queue, (error, took) in failures.items():
            self._away.setdefault(queue, _AwayQueue(queue)).note(error, took)
        for queue in self._away.keys() & {*answered} - failures.keys():
            self._away.pop(queue).outage.recovered()
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
            return
        if paused:
            timeout = min(timeout, PAUSED_WAIT)
        if self._away:
            next_try = min(away.retry_at for away in self._away.values())
            timeout = max(0.0, min(timeout, next_try - time.monotonic()))
        queues = self._answering(queues)
        try:
            self._backend.wait(queues[0] if len(queues) == 1 else queues, timeout)
        except UnavailableError:
            if self._wait_failed or len(queues) == 1:
                raise
            self._wait_failed = True
        else:
            self._wait_failed = False

    def _answering(self, queues: Sequence[str]) -> Sequence[str]:
        """Return those of the queues that are not away, or whose next try is due; all of them if there are none."""
        if not self._away:
            return queues
        now = time.monotonic()
        return [
            name for name in queues if name not in self._away or self._away[name].retry_at <= now
        ] or queues

    def _without(self, paused: frozenset[str]) -> list[str]:
        return [name for name in self._names if name not in paused] if paused else self._names
