"""The reconciler: makes the state backend agree with the record. One host leads it for each queue.

Its duties are modules of their own: `lease_recovery`, `index_repair`, `task_expiry`, `expiry`, `counting`, `queue_vacuum`,
`partition_care` and `payload_sweep`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID

from agentexec.config import Settings
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.errors import UnavailableError
from agentexec.runtime import Runtime
from agentexec.state.capabilities import inspecting
from agentexec.task import Lease
from agentexec.worker.counting import Counting
from agentexec.worker.due import EVERYTHING, Due
from agentexec.worker.expiry import Expiry
from agentexec.worker.index_repair import IndexRepair
from agentexec.worker.lease_recovery import LeaseRecovery
from agentexec.worker.partition_care import PartitionCare
from agentexec.worker.payload_sweep import PayloadSweep
from agentexec.worker.queue_vacuum import QueueVacuum
from agentexec.worker.task_expiry import TaskExpiry

T = TypeVar("T")

MIN_LEADERSHIP_SECONDS = 5.0
"""Shortest time for which the leadership is taken."""

RENEWAL_SHARE = 0.25
"""Part of that time after which the leader takes it again."""


def do_all(*duties: Callable[[], T], despite_outages: bool = False) -> list[T]:
    """Do every duty, whatever is wrong with those before it, and then raise the first error.

    An outage ends it at once, unless another duty may be on another server (`despite_outages`). A lock that somebody keeps for
    long does not count as an outage: it is in the way of one duty.
    """
    done: list[T] = []
    failure: Exception | None = None
    for duty in duties:
        try:
            done.append(duty())
        except Exception as error:
            if isinstance(error, UnavailableError) and not (error.contended or despite_outages):
                raise
            failure = failure or error
    if failure is not None:
        raise failure
    return done


class Reconciler:
    """Keeps the indexes of the queues of this host in agreement with the record, each while it leads that queue."""

    def __init__(self, runtime: Runtime, settings: Settings, owner: str) -> None:
        self._runtime = runtime
        self._settings = settings
        self._queues = {
            queue.name: QueueRepair(runtime, settings, owner, queue.name) for queue in settings.served_queues
        }
        self._task_expiry = TaskExpiry(runtime)
        self._expiry = Expiry(runtime.engine)
        self._counting = Counting(runtime.engine)
        self._vacuum = QueueVacuum(runtime)
        self._partitions = PartitionCare(runtime.engine)
        self._payloads = PayloadSweep(runtime)

    def run_once(self, due: Due = EVERYTHING) -> None:
        """Do every duty that is due, for the queues that this host leads; to be called about once a second.

        Raises UnavailableError.
        """
        now = time.monotonic()
        leads: list[bool] = []
        # What is wrong with one queue must not keep the others from their repair: it may be on a server of its own.
        turns = [lambda queue=queue: leads.append(queue.run_once(due)) for queue in self._queues.values()]
        try:
            do_all(*turns, despite_outages=True)
        finally:
            if any(leads):
                do_all(
                    *[self._task_expiry.run_once] * due.expirations,
                    lambda: self._expiry.run_if_due(now),
                    lambda: self._counting.run_if_due(now),
                    lambda: self._vacuum.run_if_due(now),
                    lambda: self._partitions.run_if_due(now),
                    # The last one: a payload store that is away must not keep the others from their work.
                    lambda: self._payloads.run_if_due(now),
                )

    def recover(
        self,
        worker_id: str,
        reason: str,
        queues: Iterable[str] | None = None,
        *,
        culprit: UUID | None = None,
    ) -> int:
        """Return the tasks of a worker process that is known to be dead, and their number. Raises UnavailableError.

        Args:
            worker_id: Name of the worker process.
            reason: Completes the sentence "The worker process …".
            queues: Queues that it served; by default those of this host.
            culprit: Task that is known to have caused the death.
        """
        duties = [
            functools.partial(self._leases(queue).recover, worker_id, reason, culprit)
            for queue in queues or self._queues
        ]
        return sum(do_all(*duties, despite_outages=True))

    def resign(self) -> None:
        """Give up the leaderships, so that another host can lead immediately. Raises UnavailableError."""
        do_all(*(queue.resign for queue in self._queues.values()), despite_outages=True)

    def _leases(self, queue: str) -> LeaseRecovery:
        """Return the lease recovery of a queue, which this host need not serve."""
        known = self._queues.get(queue)
        return LeaseRecovery(self._runtime, self._settings, queue) if known is None else known.leases


class QueueRepair:
    """The reconciler's duties for one queue, done by the host that leads it."""

    def __init__(self, runtime: Runtime, settings: Settings, owner: str, queue: str) -> None:
        self._runtime = runtime
        self._queue = queue
        self._role = f"reconciler:{queue}"
        self._owner = owner
        self._leadership_seconds = max(MIN_LEADERSHIP_SECONDS, settings.lease_seconds)
        self._leading = False
        self._next_renewal = 0.0
        self.leases = LeaseRecovery(runtime, settings, queue)
        self._index = IndexRepair(runtime, settings, queue)

    def run_once(self, due: Due = EVERYTHING) -> bool:
        """Repair the queue if this host leads it, and return whether it does. Raises UnavailableError."""
        if not self._lead():
            return False
        is_intact, expired = self._inspect()
        do_all(
            lambda: self._index.rebuild_if_emptied(is_intact=is_intact),
            lambda: self.leases.return_expired(time.monotonic(), expired),
            lambda: self._index.push_lost(time.monotonic(), due.none_until),
            *[self._index.wake_answered] * due.answers,
        )
        return True

    def _inspect(self) -> tuple[bool, Sequence[Lease] | None]:
        """Return True if the index is known to be complete, and the first expired leases if they are known."""
        backend = inspecting(self._runtime.backend)
        if backend is None:
            return False, None
        is_intact, expired = backend.inspect(self._queue, CHUNK_SIZE)
        # While the index is completed, leases may be added and removed.
        return is_intact, expired if is_intact else None

    def resign(self) -> None:
        """Give up the leadership of the queue. Raises UnavailableError."""
        if self._leading:
            self._next_renewal = 0.0
            self._runtime.backend.release_leadership(self._role, self._owner)

    def _lead(self) -> bool:
        # Not at each turn: on SQLite each write wakes all processes. Nobody else can lead before the leadership ends.
        began = time.monotonic()
        if self._leading and began < self._next_renewal:
            return True
        led, backend = self._leading, self._runtime.backend
        self._leading = backend.acquire_leadership(self._role, self._owner, self._leadership_seconds)
        self._next_renewal = began + self._leadership_seconds * RENEWAL_SHARE
        if not self._leading:
            self.leases.reset()
        elif not led:
            # Nobody knows what the last leader has looked at.
            self._index.reset()
        return self._leading
