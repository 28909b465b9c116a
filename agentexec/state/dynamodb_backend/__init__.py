"""State backend on Amazon DynamoDB: one table, and nothing to run.

A queue is a log of commands, which every process applies to a state of its own (`replica.py`, `rules.py`). Mailboxes, events,
leaderships and token buckets are items of their own (`messages.py`, `shared.py`). DynamoDB wakes nobody, so whoever waits
looks at growing intervals.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentexec.db.chunks import chunks
from agentexec.errors import UsageError
from agentexec.state.answers import Waiting
from agentexec.state.backend import PROTOCOL_VERSION, ClaimResult, Comparison, Depth, LostLeases, TaskPage
from agentexec.state.dynamodb_backend.messages import Messages, polls
from agentexec.state.dynamodb_backend.replica import Replica
from agentexec.state.dynamodb_backend.rules import Command, SharedQueue, packed_entry, packed_leases
from agentexec.state.dynamodb_backend.table import Table
from agentexec.state.groups import NO_LIMITS
from agentexec.task import Entry, Lease

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from agentexec.config import Settings

AT_ONCE = 250
"""Tasks of one command; a longer one is several."""

MAX_CLAIM = 1_000
"""Tasks of one claim."""


def create(settings: Settings, engine: Engine) -> DynamoBackend:
    """Return the backend of `AGENTEXEC_DYNAMODB_TABLE`, which connects on first use."""
    return DynamoBackend(settings.dynamodb_table)


def create_storage(settings: Settings) -> str:
    """Create the table of the settings, for `agentexec migrate --state`, and return a sentence about it."""
    name = settings.dynamodb_table
    created = Table(name).create()
    return f"The DynamoDB table {name} is created." if created else f"The DynamoDB table {name} is there."


class DynamoBackend(Messages):
    """State backend on a DynamoDB table; see `StateBackend`.

    Args:
        table: Name of the table.
    """

    protocol_version = PROTOCOL_VERSION
    transactional = False

    def __init__(self, table: str) -> None:
        super().__init__(Table(table))
        self._replicas: tuple[int, dict[str, Replica]] = (os.getpid(), {})

    def describe(self) -> str:
        """Return the table's name, for display."""
        return f"table {self._table.name}"

    def ping(self) -> None:
        """Check that the table is there, and that we may read and write it."""
        self._table.check()

    def close(self) -> None:
        """Close connections. A later call opens them again."""
        self._table.close()

    def _replica(self, queue: str) -> Replica:
        # A fork starts with none: a lock of another thread would never be released there.
        pid, replicas = self._replicas
        if pid != os.getpid():
            replicas = {}
            self._replicas = (os.getpid(), replicas)
        return replicas.setdefault(queue, replicas.get(queue) or Replica(self._table, queue))

    def push(self, queue: str, entries: Sequence[Entry], *, transaction: Connection | None = None) -> None:
        """Put tasks on a queue. Tasks that the index knows are left as they are."""
        _refuse(transaction)
        for chunk in chunks(entries, AT_ONCE):
            self._run(queue, ["push", self._table.now(), [packed_entry(entry) for entry in chunk]])

    def wake(self, queue: str, count: int) -> None:
        """Wake all workers that wait on a queue."""
        if count > 0:
            self._run(queue, ["wake", self._table.now()])

    def claim(
        self,
        queue: str,
        worker: str,
        *,
        limit: int,
        low_quota: int,
        lease_seconds: float,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> ClaimResult:
        """Lease up to `limit` ready tasks, 1,000 at most, to `worker`, each with its epoch raised by one."""
        now, limit = self._table.now(), min(limit, MAX_CLAIM)
        leases = self._run(
            queue,
            ["claim", now, worker, limit, low_quota, lease_seconds, dict(limits)],
            needed=lambda state: limit > 0 and state.has_ready(now),
            default=[],
        )
        with self._replica(queue).known() as state:
            left_ready = len(leases) < limit and state.has_ready(now)
            return ClaimResult(leases, 0.0 if left_ready else state.next_due(now))

    def wait(self, queue: str | Sequence[str], timeout: float) -> None:
        """Wait up to `timeout` seconds until a task may be ready. May return early."""
        replicas = [self._replica(name) for name in ([queue] if isinstance(queue, str) else queue)]
        wakes: dict[Replica, int] = {}
        for _ in polls(timeout if replicas else 0.0):
            for replica in replicas:
                with replica.reading() as state:
                    if (
                        state.has_ready(self._table.now())
                        or wakes.setdefault(replica, state.wakes) != state.wakes
                    ):
                        return

    def renew(self, queue: str, worker: str, leases: Sequence[Lease], lease_seconds: float) -> LostLeases:
        """Extend leases. A lease that expired is taken up again, unless another worker has claimed the task."""
        lost = LostLeases([], [])
        for chunk in chunks(leases, MAX_CLAIM):
            part = self._run(queue, ["renew", self._table.now(), worker, packed_leases(chunk), lease_seconds])
            lost.taken.extend(part.taken)
            lost.missing.extend(part.missing)
        return lost

    def finish(self, queue: str, leases: Sequence[Lease], *, transaction: Connection | None = None) -> None:
        """Forget finished tasks, except those that a higher epoch holds."""
        _refuse(transaction)
        for chunk in chunks(leases, MAX_CLAIM):
            self._run(
                queue,
                ["finish", self._table.now(), packed_leases(chunk)],
                needed=lambda state, chunk=chunk: any(map(state.is_finished_by, chunk)),
            )

    def release(self, queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        """Give a task back, to the front of its priority or for `delay` seconds. False if the lease is lost."""
        return self._run(
            queue,
            ["release", self._table.now(), lease.agent_id.hex, lease.epoch, delay],
            needed=lambda state: state.is_held_by(lease),
            default=False,
        )

    def make_ready(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Make delayed tasks ready now. Other tasks stay as they are."""
        for chunk in chunks(agent_ids, MAX_CLAIM):
            self._run(
                queue,
                ["advance", self._table.now(), _hexes(chunk)],
                needed=lambda state, chunk=chunk: any(agent_id in state.delayed for agent_id in chunk),
            )

    def restore(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> None:
        """Add running tasks that the index does not know, leased to nobody."""
        for chunk in chunks(entries, AT_ONCE):
            self._run(
                queue,
                ["restore", self._table.now(), [packed_entry(entry) for entry in chunk], lease_seconds],
                needed=lambda state, chunk=chunk: any(entry.agent_id not in state.tasks for entry in chunk),
            )

    def expired_leases(self, queue: str, limit: int) -> list[Lease]:
        """Return leases that have expired, the oldest first, without changing the tasks."""
        with self._replica(queue).reading() as state:
            return state.expired(self._table.now(), limit)

    def worker_leases(self, queue: str, worker: str) -> list[Lease]:
        """Return the leases of a worker."""
        with self._replica(queue).reading() as state:
            return [
                Lease(agent_id, task.epoch) for agent_id, task in state.tasks.items() if task.worker == worker
            ]

    def remove(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Remove tasks, whatever their state, and return the worker of each that was leased."""
        holders: dict[UUID, str] = {}
        for chunk in chunks(agent_ids, MAX_CLAIM):
            holders |= self._run(
                queue,
                ["remove", self._table.now(), _hexes(chunk)],
                needed=lambda state, chunk=chunk: any(agent_id in state.tasks for agent_id in chunk),
                default={},
            )
        return holders

    def unknown_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        """Return those of `agent_ids` that the index does not know."""
        with self._replica(queue).reading() as state:
            return [agent_id for agent_id in agent_ids if agent_id not in state.tasks]

    def compare(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> Comparison:
        """Compare what the index knows about tasks with what the record says; see `StateBackend.compare`."""
        with self._replica(queue).reading() as state:
            found = state.compare(entries, self._table.now(), lease_seconds)
            waiting = [entry.agent_id for entry in entries if state.groups.may_go_on(entry.agent_id)]
        if waiting:
            self._run(queue, ["go_on", self._table.now(), _hexes(waiting)])
        return found

    def list_tasks(self, queue: str, cursor: str) -> TaskPage:
        """Return all tasks that the index knows, as one page."""
        with self._replica(queue).reading() as state:
            return TaskPage(list(state.tasks), "")

    def depth(self, queue: str) -> Depth:
        """Count the tasks of a queue."""
        with self._replica(queue).reading() as state:
            return state.count(self._table.now())

    def waiting_for(self, queue: str, agent_id: UUID) -> Waiting | None:
        """Return the group for which a task waits, None if it does not."""
        with self._replica(queue).reading() as state:
            return state.groups.waiting_for(agent_id)

    def is_intact(self, queue: str) -> bool:
        """Return False if the index was emptied since `mark_intact`."""
        with self._replica(queue).reading() as state:
            return state.intact

    def mark_intact(self, queue: str) -> None:
        """Note that the index of a queue is complete."""
        self._run(queue, ["mark", self._table.now()], needed=lambda state: not state.intact)

    def _run(
        self,
        queue: str,
        command: Command,
        *,
        needed: Callable[[SharedQueue], bool] = lambda _: True,
        default: Any = None,
    ) -> Any:
        return self._replica(queue).run(command, is_needed=needed, default=default)


def _hexes(agent_ids: Sequence[UUID]) -> list[str]:
    return [agent_id.hex for agent_id in agent_ids]


def _refuse(transaction: object) -> None:
    if transaction is not None:
        raise UsageError(
            "The DynamoDB backend cannot join a database transaction; call it without transaction=."
        )
