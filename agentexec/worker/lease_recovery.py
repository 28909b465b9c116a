"""Lease recovery: the tasks of dead worker processes go back to the queue, or end if they crashed too often."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from uuid import UUID

from agentexec.activity.changes.crashes import record_crashes
from agentexec.activity.changes.locks import free_locks_now
from agentexec.config import Settings
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.runtime import Runtime
from agentexec.task import Lease
from agentexec.worker.failure_log import log_failure

log = logging.getLogger("agentexec.reconciler")

OUTAGE_SECONDS = 1.5
"""Seconds between two turns above which a server must have been away (if that is also longer than half a lease)."""

BUSY_WAITS = (0.05, 0.2, 0.5)
"""Seconds to wait for the tasks that a dead process had locked: its server is about to notice. Then their leases expire."""


class LeaseRecovery:
    """Returns the leases of one queue's dead workers."""

    def __init__(self, runtime: Runtime, settings: Settings, queue: str | None = None) -> None:
        self._runtime = runtime
        self._settings = settings
        self._queue = settings.queue_name if queue is None else queue
        self._last_turn: float | None = None
        self._trusted_from = 0.0

    def reset(self) -> None:
        """Forget when the last turn was: another host leads."""
        self._last_turn = None

    def note_contact(self, clock: float) -> None:
        """Note that the state backend answered at a moment, by the monotonic clock, which is then not in an outage."""
        self._last_turn = clock

    def return_expired(self, clock: float, found: Sequence[Lease] | None = None) -> None:
        """Return the tasks whose leases have expired, once a turn; `clock` is monotonic. Raises UnavailableError.

        `found`: the first `CHUNK_SIZE` of them, if they are known.
        """
        if not self._leases_are_trusted(clock):
            return
        while leases := self._find_expired() if found is None else found:
            found = None
            busy = self._return(leases, f"did not answer for {self._settings.lease_seconds:g} s")
            if len(leases) < CHUNK_SIZE or len(busy) == len(leases):
                return

    def _find_expired(self) -> Sequence[Lease]:
        return self._runtime.backend.expired_leases(self._queue, CHUNK_SIZE)

    def recover(self, worker_id: str, reason: str, culprit: UUID | None = None) -> int:
        """Return the tasks of a worker process that is known to be dead, and their number. Raises UnavailableError.

        `reason` completes the sentence "The worker process …". `culprit` is the task that is known to have caused it.
        """
        leases = self._runtime.backend.worker_leases(self._queue, worker_id)
        busy = self._return(leases, reason, culprit)
        for seconds in BUSY_WAITS:
            if not busy:
                break
            time.sleep(seconds)
            busy = self._return(busy, reason, culprit)
        return len(leases)

    def _leases_are_trusted(self, clock: float) -> bool:
        """Return False for one lease after an outage: no lease could be renewed, so an expired one means nothing."""
        gap = clock - self._last_turn if self._last_turn is not None else 0.0
        if gap > max(OUTAGE_SECONDS, self._settings.lease_seconds / 2):
            self._trusted_from = clock + self._settings.lease_seconds
        self._last_turn = clock
        return clock >= self._trusted_from

    def _return(self, leases: Sequence[Lease], reason: str, culprit: UUID | None = None) -> Sequence[Lease]:
        """Return tasks to the queue, and return those leases whose tasks another process has locked."""
        if not leases:
            return leases
        backend = self._runtime.backend
        with writing(self._runtime.engine) as connection:
            deaths = record_crashes(
                connection,
                leases,
                queue=self._queue,
                reason=reason,
                max_crashes=self._settings.max_crashes,
                now=utc_now(),
                culprit=culprit,
            )
        for task in deaths.failed:
            log_failure(log, task.task_name, task.agent_id, task.error)
        for lease in deaths.requeue:
            backend.release(self._queue, lease)
        if deaths.requeue:
            backend.wake(self._queue, len(deaths.requeue))
            log.warning(
                "Returned %d task(s) to the queue: their worker process %s.", len(deaths.requeue), reason
            )
        if deaths.contradicted:
            backend.finish(self._queue, deaths.contradicted)
            log.warning(
                "Dropped %d lease(s) of queue %s that the database contradicts, such as that of task %s: it has the task on "
                "another queue, or under another epoch. The reconciler of its queue adds the task again.",
                len(deaths.contradicted),
                self._queue,
                deaths.contradicted[0].agent_id,
            )
        if deaths.acknowledge:
            free_locks_now(self._runtime.engine, [lease.agent_id for lease in deaths.acknowledge])
            backend.finish(self._queue, deaths.acknowledge)
            backend.notify_done(self._queue, [lease.agent_id for lease in deaths.acknowledge])
        return deaths.busy
