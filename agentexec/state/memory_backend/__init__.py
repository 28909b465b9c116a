"""State backend within one process, for tests: nothing to install, nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from agentexec.errors import UsageError
from agentexec.llm.rate_limits import MICROS_PER_SECOND, Demand, spend
from agentexec.state.answers import Waiting
from agentexec.state.backend import (
    PROTOCOL_VERSION,
    ClaimResult,
    Comparison,
    Depth,
    LostLeases,
    TaskPage,
    longest_leadership,
)
from agentexec.state.groups import NO_LIMITS, is_lock
from agentexec.state.memory_backend.messages import MemoryMessages
from agentexec.state.memory_backend.queue import Queue
from agentexec.task import Entry, Lease

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from agentexec.config import Settings

_ATTRIBUTE = "_agentexec_memory_backend"


def create(settings: Settings, engine: Engine) -> MemoryBackend:
    """Return the backend of an engine: everything in the process that shares the engine shares its queue too.

    The backend is an attribute of the engine: the index belongs to that record and lives no longer than it.
    """
    return vars(engine).setdefault(_ATTRIBUTE, MemoryBackend())


class MemoryBackend(MemoryMessages):
    """State backend within one process; see `StateBackend`.

    Args:
        clock: Returns the time in seconds since the epoch.
        single_queue: Treat all queue names as one queue, so that one claim finds every task.
    """

    protocol_version = PROTOCOL_VERSION
    transactional = False

    def __init__(self, clock: Callable[[], float] = time.time, *, single_queue: bool = False) -> None:
        super().__init__(clock, single_queue=single_queue)
        self._leaders: dict[str, tuple[str, float]] = {}
        self._buckets: dict[str, int] = {}

    def ping(self) -> None:
        """Do nothing: memory is always within reach."""

    def close(self) -> None:
        """Do nothing: tasks stay, as they would on a server."""

    def flush(self) -> None:
        """Forget everything, like a server that was emptied."""
        with self._lock:
            for queue in self._queues.values():
                queue.notify(None)
            self._queues.clear()
            self._mailboxes.clear()
            self._leaders.clear()
            self._buckets.clear()

    def push(self, queue: str, entries: Sequence[Entry], *, transaction: Connection | None = None) -> None:
        """Put tasks on a queue, and wake as many workers. Tasks that the index knows are left as they are."""
        _refuse_transaction(transaction)
        with self._lock:
            state = self._queue(queue)
            for entry in entries:
                if entry.agent_id in state.tasks:
                    continue
                state.add(entry)
                if entry.holds_lock:
                    state.groups.hold(entry.agent_id, filter(is_lock, entry.groups))
                if entry.run_at > self._clock():
                    state.delayed[entry.agent_id] = entry.run_at
                else:
                    state.make_ready(entry.agent_id)
            state.notify(len(entries))

    def wake(self, queue: str, count: int) -> None:
        """Wake up to `count` workers that wait on a queue."""
        with self._lock:
            self._queue(queue).notify(count)

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
        """Lease up to `limit` ready tasks to `worker`, each with its epoch raised by one."""
        with self._lock:
            state, now = self._queue(queue), self._clock()
            leases = state.claim_ready(now, worker, limit, low_quota, lease_seconds, limits)
            left_ready = len(leases) < limit and any(state.ready.values())
            return ClaimResult(leases, 0.0 if left_ready else state.next_due(now))

    def wait(self, queue: str | Sequence[str], timeout: float) -> None:
        """Wait up to `timeout` seconds until a task may be ready. May return early."""
        with self._lock:
            states = [self._queue(name) for name in ([queue] if isinstance(queue, str) else queue)]
            for state in states:
                state.promote(self._clock())
            if timeout <= 0 or any(any(state.ready.values()) for state in states):
                return
            if len(states) == 1:
                states[0].news.wait(timeout)
            else:
                self._wait_for_any(states, timeout)

    def _wait_for_any(self, states: Sequence[Queue], timeout: float) -> None:
        news = threading.Condition(self._lock)
        for state in states:
            state.listeners.add(news)
        try:
            news.wait(timeout)
        finally:
            for state in states:
                state.listeners.discard(news)

    def renew(self, queue: str, worker: str, leases: Sequence[Lease], lease_seconds: float) -> LostLeases:
        """Extend leases. A lease that expired is taken up again, unless another worker has claimed the task."""
        with self._lock:
            return self._queue(queue).renew_leases(self._clock(), worker, leases, lease_seconds)

    def finish(self, queue: str, leases: Sequence[Lease], *, transaction: Connection | None = None) -> None:
        """Forget finished tasks, except those that a higher epoch holds."""
        _refuse_transaction(transaction)
        with self._lock:
            self._queue(queue).finish_leases(leases)

    def release(self, queue: str, lease: Lease, *, delay: float = 0.0) -> bool:
        """Give a task back, to the front of its priority or for `delay` seconds. False if the lease is lost."""
        with self._lock:
            state = self._queue(queue)
            if not state.release_lease(self._clock(), lease, delay):
                return False
            state.notify()
            return True

    def make_ready(self, queue: str, agent_ids: Sequence[UUID]) -> None:
        """Make delayed tasks ready now, and wake workers. Other tasks stay as they are."""
        with self._lock:
            state = self._queue(queue)
            for agent_id in agent_ids:
                if state.delayed.pop(agent_id, None) is not None:
                    state.make_ready(agent_id)
            state.notify(len(agent_ids))

    def restore(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> None:
        """Add running tasks that the index does not know, leased to nobody."""
        with self._lock:
            self._queue(queue).restore_running(self._clock(), entries, lease_seconds)

    def expired_leases(self, queue: str, limit: int) -> list[Lease]:
        """Return leases that have expired, the oldest first, without changing the tasks."""
        with self._lock:
            return self._queue(queue).expired(self._clock(), limit)

    def worker_leases(self, queue: str, worker: str) -> list[Lease]:
        """Return the leases of a worker."""
        with self._lock:
            tasks = self._queue(queue).tasks
            return [Lease(agent_id, task.epoch) for agent_id, task in tasks.items() if task.worker == worker]

    def remove(self, queue: str, agent_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Remove tasks, whatever their state, and return the worker of each that was leased."""
        holders: dict[UUID, str] = {}
        with self._lock:
            state = self._queue(queue)
            for agent_id in agent_ids:
                task = state.forget(agent_id)
                if task is not None and task.worker:
                    holders[agent_id] = task.worker
        return holders

    def unknown_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        """Return those of `agent_ids` that the index does not know."""
        with self._lock:
            tasks = self._queue(queue).tasks
            return [agent_id for agent_id in agent_ids if agent_id not in tasks]

    def compare(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> Comparison:
        """Compare what the index knows about tasks with what the record says; see `StateBackend.compare`."""
        with self._lock:
            state = self._queue(queue)
            state.groups.go_on(entry.agent_id for entry in entries)
            return state.compare(entries, self._clock(), lease_seconds)

    def list_tasks(self, queue: str, cursor: str) -> TaskPage:
        """Return all tasks that the index knows, as one page."""
        with self._lock:
            return TaskPage(list(self._queue(queue).tasks), "")

    def depth(self, queue: str) -> Depth:
        """Count the tasks of a queue."""
        with self._lock:
            state = self._queue(queue)
            state.promote(self._clock())
            ready = sum(map(len, state.ready.values()))
            return Depth(ready, len(state.delayed), len(state.leases), len(state.groups))

    def waiting_for(self, queue: str, agent_id: UUID) -> Waiting | None:
        """Return the group for which a task waits, None if it does not."""
        with self._lock:
            return self._queue(queue).groups.waiting_for(agent_id)

    def is_intact(self, queue: str) -> bool:
        """Return False if the index was emptied since `mark_intact`."""
        with self._lock:
            return self._queue(queue).intact

    def mark_intact(self, queue: str) -> None:
        """Note that the index of a queue is complete."""
        with self._lock:
            self._queue(queue).intact = True

    def acquire_leadership(self, role: str, owner: str, seconds: float) -> bool:
        """Acquire or keep a leadership for `seconds`; False if another owner holds it."""
        with self._lock:
            now = self._clock()
            holder, until = self._leaders.get(role, ("", 0.0))
            if holder != owner and now < until <= now + longest_leadership(seconds):
                return False
            self._leaders[role] = (owner, now + seconds)
            return True

    def release_leadership(self, role: str, owner: str) -> None:
        """Give up a leadership if `owner` holds it."""
        with self._lock:
            if self._leaders.get(role, ("", 0.0))[0] == owner:
                del self._leaders[role]

    def reserve(self, demands: Sequence[Demand], max_wait: float) -> float:
        """Take amounts from token buckets, all of them or none; see `StateBackend.reserve`."""
        return self._take(demands, max_wait)

    def settle(self, demands: Sequence[Demand]) -> None:
        """Correct earlier reservations, without a wait."""
        self._take(demands, None)

    def _take(self, demands: Sequence[Demand], max_wait: float | None) -> float:
        with self._lock:
            now = round(self._clock() * MICROS_PER_SECOND)
            spent = [spend(self._buckets.get(demand.name), now, demand) for demand in demands]
            wait = max((micros for micros, _ in spent), default=0) / MICROS_PER_SECOND
            if max_wait is None or wait <= max_wait:
                for demand, (_, full_at) in zip(demands, spent, strict=True):
                    self._buckets[demand.name] = full_at
            return wait


def _refuse_transaction(transaction: object) -> None:
    if transaction is not None:
        raise UsageError(
            "The memory backend cannot join a database transaction; call it without transaction=."
        )
