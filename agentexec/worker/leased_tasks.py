"""Tasks leased to a worker process, from the claim to the settlement."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from uuid import UUID

from agentexec.task import Lease
from agentexec.worker.slots import Slots
from agentexec.worker.suspects import Suspects


class LeasedTasks:
    """Leases of this process, and what each of its tasks holds: a slot, and perhaps the place of the suspect.

    Threads: any thread may call any method. A lock guards the leases; slots and suspects have locks of their own.
    """

    def __init__(self, slots: Slots, suspects: Suspects) -> None:
        self._slots = slots
        self._suspects = suspects
        self._epochs: dict[UUID, int] = {}
        self._lock = threading.Lock()

    def add(self, leases: Iterable[Lease]) -> None:
        """Note leases that were claimed."""
        with self._lock:
            self._epochs.update(leases)

    def all(self) -> list[Lease]:
        """Return the leases that are to be renewed."""
        with self._lock:
            return [Lease(agent_id, epoch) for agent_id, epoch in self._epochs.items()]

    def epoch(self, agent_id: UUID) -> int | None:
        """Return the epoch under which a task is leased, None if it is not."""
        with self._lock:
            return self._epochs.get(agent_id)

    def free_slot(self, agent_id: UUID) -> None:
        """Free the slot of a task whose handler has ended. Its lease is renewed until the ending is written."""
        self._suspects.end_attempt(agent_id)
        self._slots.end_task(agent_id)

    def settle(self, agent_id: UUID) -> None:
        """Drop the lease of a task whose ending is written; it is not a suspect any more."""
        with self._lock:
            self._epochs.pop(agent_id, None)
        self._suspects.absolve(agent_id)

    def forget(self, agent_id: UUID) -> None:
        """Drop everything a task holds: no ending of it will be written here."""
        self.free_slot(agent_id)
        self.settle(agent_id)
