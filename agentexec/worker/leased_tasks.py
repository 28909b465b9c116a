"""Tasks leased to a worker process, from the claim to the settlement."""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from uuid import UUID

from agentexec.task import Lease
from agentexec.worker.lease_clock import Instant, present
from agentexec.worker.slots import Slots
from agentexec.worker.suspects import Suspects


class LeasedTasks:
    """Leases of this process, and what each of its tasks holds: a slot, and perhaps the place of the suspect.

    Threads: any thread may call any method. A lock guards the leases; slots and suspects have locks of their own. Another one is
    held during each renewal.

    Args:
        queue: Queue of the tasks for which no other is given.
    """

    def __init__(self, slots: Slots, suspects: Suspects, queue: str = "") -> None:
        self._slots = slots
        self._suspects = suspects
        self._queue = queue
        self._other_queues: dict[UUID, str] = {}
        """Queues of the tasks of other queues, so that a worker of one queue keeps nothing here."""
        self._held: dict[UUID, tuple[int, Instant]] = {}
        self._lock = threading.Lock()
        self._renewal = threading.Lock()

    def add(self, leases: Iterable[Lease], since: Instant | None = None, queue: str | None = None) -> None:
        """Note leases that were claimed from a queue; `since` is a moment before that, by default the present one."""
        since = since or present()
        with self._lock:
            for agent_id, epoch in leases:
                self._held[agent_id] = epoch, since
                if queue is not None and queue != self._queue:
                    self._other_queues[agent_id] = queue

    def queue_of(self, agent_id: UUID) -> str:
        """Return the queue from which a task was claimed."""
        return self._other_queues.get(agent_id, self._queue)

    def by_queue(self, leases: Sequence[Lease]) -> list[tuple[str, list[Lease]]]:
        """Return leases by the queues of their tasks; to be called before the tasks are forgotten."""
        if not leases:
            return []
        if not self._other_queues:
            return [(self._queue, list(leases))]
        groups: dict[str, list[Lease]] = {}
        for lease in leases:
            groups.setdefault(self.queue_of(lease.agent_id), []).append(lease)
        return list(groups.items())

    @property
    def any(self) -> bool:
        """True if this process holds a lease."""
        return bool(self._held)

    def all(self) -> list[Lease]:
        """Return the leases that are to be renewed."""
        with self._lock:
            return [Lease(agent_id, epoch) for agent_id, (epoch, _) in self._held.items()]

    @contextmanager
    def renewal(self, leases: Sequence[Lease]) -> Generator[list[Lease]]:
        """Yield those of some leases that are still held, to be renewed inside."""
        with self._renewal:
            yield [lease for lease in leases if self.confirmed_at(lease) is not None]

    def wait_for_renewal(self) -> None:
        """Wait for a renewal that has begun; to be called before a task goes back to the queue whose lease was dropped.

        A renewal that came after would lease it again to this process, which does not run it any more.
        """
        with self._renewal:
            return

    def note_renewed(self, leases: Iterable[Lease], since: Instant) -> None:
        """Note that these leases were renewed, at or after a moment."""
        with self._lock:
            for agent_id, epoch in leases:
                if agent_id in self._held and self._held[agent_id][0] == epoch:
                    self._held[agent_id] = epoch, since

    def confirmed_at(self, lease: Lease) -> Instant | None:
        """Return a moment after which a lease was claimed or renewed; None if it is not held."""
        held = self._held.get(lease.agent_id)  # without the lock: this is asked before each call and handler
        return held[1] if held is not None and held[0] == lease.epoch else None

    def epoch(self, agent_id: UUID) -> int | None:
        """Return the epoch under which a task is leased, None if it is not."""
        with self._lock:
            held = self._held.get(agent_id)
        return None if held is None else held[0]

    def free_slot(self, agent_id: UUID) -> None:
        """Free the slot of a task whose handler has ended. Its lease is renewed until the ending is written."""
        self._suspects.end_attempt(agent_id)
        self._slots.end_task(agent_id)

    def settle(self, agent_ids: Collection[UUID]) -> None:
        """Drop the leases of tasks whose endings are written; they are not suspects any more."""
        with self._lock:
            for agent_id in agent_ids:
                self._held.pop(agent_id, None)
                if self._other_queues:
                    self._other_queues.pop(agent_id, None)
        if self._suspects.any_running:
            for agent_id in agent_ids:
                self._suspects.absolve(agent_id)

    def forget(self, agent_id: UUID) -> None:
        """Drop everything a task holds: no ending of it will be written here."""
        self.free_slot(agent_id)
        self.settle([agent_id])
