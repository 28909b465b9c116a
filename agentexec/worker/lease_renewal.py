"""Lease renewal: one call keeps all leases of a worker process, from a thread of its own.

It does not run on the event loop: a handler that blocks the loop for a minute is slow, not dead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import bindparam, select

from agentexec.activity.models import Activity
from agentexec.config import Settings
from agentexec.db.transactions import reading
from agentexec.errors import UnavailableError
from agentexec.journal.store import check_lease
from agentexec.outage import Outage
from agentexec.runtime import Runtime
from agentexec.task import Entry, Lease, Status, stored_entry
from agentexec.worker.lease_clock import Instant, present, seconds_since
from agentexec.worker.leased_tasks import LeasedTasks

log = logging.getLogger("agentexec.heartbeat")

RENEWALS_PER_LEASE = 3
"""Renewals within one lease: two may fail before it expires."""

CERTAIN_SHARE = 2 / 3
"""Share of a lease for which it is certain after its renewal. The rest is the time that a call may take to leave."""

_STATES = select(
    Activity.agent_id,
    Activity.status,
    Activity.epoch,
    Activity.priority,
    Activity.fairness_key,
    Activity.fairness_weight,
    Activity.agent_type,
    Activity.lock_key,
    Activity.concurrency_key,
    Activity.held_lock,
).where(Activity.agent_id.in_(bindparam("ids", expanding=True)))


class LeaseRenewer:
    """Renews the leases of this process until stopped.

    Threads: its own thread does the work; any other may call `start`, `stop`, `is_certain` and `confirm`.

    Args:
        tasks: The leases to renew.
        on_lost: Called, in the renewer's thread, for a task that is not leased to this process any more.
        was_seen_since: Returns False if others may have taken this host for dead after a moment; also gets the present one.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        worker_id: str,
        tasks: LeasedTasks,
        *,
        on_lost: Callable[[UUID], object],
        was_seen_since: Callable[[Instant, Instant], bool] = lambda _moment, _now: True,
    ) -> None:
        self._runtime = runtime
        self._worker_id = worker_id
        self._lease_seconds = settings.lease_seconds
        self._tasks = tasks
        self._on_lost = on_lost
        self._was_seen_since = was_seen_since
        self._certain_age = settings.lease_seconds * CERTAIN_SHARE
        self._failed_at: Instant | None = None
        self._confirming = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentexec-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread before its next renewal."""
        self._stop.set()

    def _run(self) -> None:
        outage = Outage(log, recovered="Renewing leases again.", level=logging.ERROR)
        while not self._stop.wait(self._lease_seconds / RENEWALS_PER_LEASE):
            try:
                self.renew()
                outage.recovered()
            except UnavailableError as error:
                outage.failed("%s Leases are renewed when it is back.", error)
            except Exception:
                outage.failed_unexpectedly("Renewing leases failed; trying again.")

    def renew(self) -> None:
        """Renew all leases, in one call for each queue, also if one of them fails. Raises UnavailableError."""
        leases, since = self._tasks.all(), present()
        if not leases:
            return
        failure: UnavailableError | None = None
        for queue, group in self._tasks.by_queue(leases):
            try:
                self._renew(queue, group, since)
            except UnavailableError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        self._failed_at = None

    def _renew(self, queue: str, leases: Sequence[Lease], since: Instant) -> None:
        with self._tasks.renewal(leases) as held:
            try:
                lost = self._runtime.backend.renew(queue, self._worker_id, held, self._lease_seconds)
            except UnavailableError:
                self._failed_at = since
                raise
        gone = {*lost.taken, *lost.missing}
        self._tasks.note_renewed((lease for lease in held if lease.agent_id not in gone), since)
        for agent_id in lost.taken:
            self._lose(agent_id)
        if lost.missing:
            self._look_up(queue, lost.missing)

    def is_certain(self, lease: Lease) -> bool:
        """Return True if no other worker can have taken a task, as far as the clock tells; without any I/O.

        Its lease was renewed not long ago, and nobody can have taken this host for dead.
        """
        confirmed = self._tasks.confirmed_at(lease)
        if confirmed is None:
            return False
        now = present()
        # As `seconds_between`, without its call: each handler's start asks.
        age = self._certain_age
        is_recent = now.running - confirmed.running < age and now.wall - confirmed.wall < age
        return is_recent and self._was_seen_since(confirmed, now)

    def confirm(self, lease: Lease) -> None:
        """Renew the leases now, and look the task up in the record.

        Raises LeaseLostError if another worker has the task or it has ended, UnavailableError if the database is away.
        Without the state backend, in which nobody can claim tasks either, the record decides alone.
        """
        with self._confirming:  # one renewal serves all tasks that wait here
            if not self.is_certain(lease) and not self._has_just_failed():
                try:
                    self.renew()
                except UnavailableError as error:
                    log.debug("%s The record alone decides who has task %s.", error, lease.agent_id)
        check_lease(self._runtime.engine, lease)

    def _has_just_failed(self) -> bool:
        """Return True during an outage of the state backend, in which not every call should wait for another failure."""
        failed_at = self._failed_at
        return failed_at is not None and seconds_since(failed_at) < self._lease_seconds / RENEWALS_PER_LEASE

    def _look_up(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Decide by the record about tasks that the index does not know.

        They were canceled or have just finished, or the index was emptied.
        """
        entries: list[Entry] = []
        with reading(self._runtime.engine) as connection:
            rows = connection.execute(_STATES, {"ids": list(agent_ids)}).all()
        for row in rows:
            epoch = self._tasks.epoch(row.agent_id)
            if epoch is None:
                continue
            if row.epoch > epoch or row.status in (Status.CANCELED, Status.QUEUED):
                self._lose(row.agent_id)
            elif row.status is Status.RUNNING:
                entries.append(stored_entry(row, epoch=epoch))
        if entries:
            self._runtime.backend.restore(queue, entries, self._lease_seconds)

    def _lose(self, agent_id: UUID) -> None:
        log.warning("Lost the lease of task %s: it was canceled or claimed by another worker.", agent_id)
        self._on_lost(agent_id)
