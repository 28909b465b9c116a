"""The heartbeat of a worker process: renews all its leases in one call, from a thread of its own.

Not on the event loop: a handler that blocks the loop for a minute is slow, not dead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import bindparam, select

from agentexec.activity.models import Activity
from agentexec.db.transactions import reading
from agentexec.errors import UnavailableError
from agentexec.runtime import Runtime
from agentexec.task import Entry, Lease, Priority, Status

log = logging.getLogger("agentexec.heartbeat")

BEATS_PER_LEASE = 3
"""Two renewals may fail before a lease runs out."""

_STATES = select(Activity.agent_id, Activity.status, Activity.epoch, Activity.priority).where(
    Activity.agent_id.in_(bindparam("ids", expanding=True))
)


class LeaseRenewer:
    """Renews the leases in `leases` (id → epoch) until stopped; calls `on_lease_lost` for those that are gone."""

    def __init__(
        self,
        runtime: Runtime,
        queue: str,
        worker_id: str,
        lease_seconds: float,
        leases: dict[UUID, int],
        on_lease_lost: Callable[[UUID], None],
    ) -> None:
        self._runtime = runtime
        self._queue = queue
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds
        self._leases = leases
        self._on_lease_lost = on_lease_lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread at its next turn."""
        self._stop.set()

    def _run(self) -> None:
        failing = False
        while not self._stop.wait(self._lease_seconds / BEATS_PER_LEASE):
            try:
                self._beat()
                if failing:
                    log.info("Leases are renewed again.")
                failing = False
            except UnavailableError as error:
                if not failing:
                    log.error("%s Leases are renewed when it is back.", error)
                failing = True
            except Exception:
                log.exception("A heartbeat failed.")

    def _beat(self) -> None:
        leases = [Lease(agent_id, epoch) for agent_id, epoch in self._leases.copy().items()]
        if not leases:
            return
        lost = self._runtime.backend.renew(self._queue, self._worker_id, leases, self._lease_seconds)
        for agent_id in lost.taken:
            self._on_lease_lost(agent_id)
        if lost.missing:
            self._ask_record(lost.missing)

    def _ask_record(self, agent_ids: Sequence[UUID]) -> None:
        """The index does not know these: canceled, just finished, or the index was emptied. The record decides."""
        entries: list[Entry] = []
        with reading(self._runtime.engine) as connection:
            rows = connection.execute(_STATES, {"ids": list(agent_ids)}).all()
        for row in rows:
            epoch = self._leases.get(row.agent_id)
            if epoch is None:
                continue
            if row.epoch > epoch or row.status in (Status.CANCELED, Status.QUEUED):
                self._on_lease_lost(row.agent_id)
            elif row.status is Status.RUNNING:
                entries.append(Entry(row.agent_id, Priority(row.priority), 0.0, epoch))
        if entries:
            self._runtime.backend.restore(self._queue, entries, self._lease_seconds)
