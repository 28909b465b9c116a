"""The reconciler: makes the state backend agree with the record. One host leads it for each queue.

Its duties are modules of their own: `lease_recovery`, `index_repair`, `task_expiry`, `expiry` and `counting`.
"""

from __future__ import annotations

import time

from agentexec.config import Settings
from agentexec.runtime import Runtime
from agentexec.worker.counting import Counting
from agentexec.worker.expiry import Expiry
from agentexec.worker.index_repair import IndexRepair
from agentexec.worker.lease_recovery import LeaseRecovery
from agentexec.worker.task_expiry import TaskExpiry

MIN_LEADERSHIP_SECONDS = 5.0
"""Shortest time for which the leadership is taken."""


class Reconciler:
    """Keeps one queue's index in agreement with the record while it leads."""

    def __init__(self, runtime: Runtime, settings: Settings, owner: str) -> None:
        self._runtime = runtime
        self._role = f"reconciler:{settings.queue_name}"
        self._owner = owner
        self._leadership_seconds = max(MIN_LEADERSHIP_SECONDS, settings.lease_seconds)
        self._leading = False
        self._leases = LeaseRecovery(runtime, settings)
        self._index = IndexRepair(runtime, settings)
        self._task_expiry = TaskExpiry(runtime)
        self._expiry = Expiry(runtime.engine)
        self._counting = Counting(runtime.engine)

    def run_once(self) -> None:
        """Do every duty that is due, if this host leads; to be called about once a second. Raises UnavailableError."""
        if not self._lead():
            return
        self._index.rebuild_if_emptied()
        self._leases.return_expired(time.monotonic())
        self._index.push_lost(time.monotonic())
        self._index.wake_answered()
        self._task_expiry.run_once()
        self._expiry.run_if_due(time.monotonic())
        self._counting.run_if_due(time.monotonic())

    def recover(self, worker_id: str, reason: str) -> int:
        """Return the tasks of a worker process that is known to be dead, and their number. Raises UnavailableError.

        `reason` completes the sentence "The worker process …".
        """
        return self._leases.recover(worker_id, reason)

    def resign(self) -> None:
        """Give up the leadership, so that another host can lead immediately. Raises UnavailableError."""
        if self._leading:
            self._runtime.backend.release_leadership(self._role, self._owner)

    def _lead(self) -> bool:
        led, backend = self._leading, self._runtime.backend
        self._leading = backend.acquire_leadership(self._role, self._owner, self._leadership_seconds)
        if not self._leading:
            self._leases.reset()
        elif not led:
            # Nobody knows what the last leader has looked at.
            self._index.reset()
        return self._leading
