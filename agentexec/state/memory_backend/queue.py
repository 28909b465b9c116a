"""Tasks of one queue in memory, with the events and followers of each."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from agentexec.policy import fits_record
from agentexec.state.backend import EVENTS_KEPT, Comparison, Event, LostLeases
from agentexec.state.groups import MAX_PARKED, NO_LIMITS
from agentexec.state.memory_backend.fair_lane import FairLane
from agentexec.state.memory_backend.groups import Groups
from agentexec.task import Entry, Lease, Priority


@dataclass(slots=True)
class QueuedTask:
    """Epoch, priority and worker of a task.

    It is in exactly one of its queue's `ready`, `delayed` and `leases`, or in the line of one of its groups. `place` is its
    place in its lane: it returns there from a line.
    """

    epoch: int
    priority: Priority
    worker: str = ""
    fairness_key: str | None = None
    fairness_weight: float = 1.0
    groups: tuple[str, ...] = ()
    place: int = 0


@dataclass(slots=True)
class Channel:
    """Live events of one task."""

    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    last_at: float = 0.0


class Queue:
    """State of one queue. Times are seconds since the epoch; the caller holds the lock."""

    def __init__(self, lock: threading.RLock) -> None:
        self.tasks: dict[UUID, QueuedTask] = {}
        self.ready: dict[Priority, FairLane] = {priority: FairLane() for priority in Priority}
        self.delayed: dict[UUID, float] = {}
        self.leases: dict[UUID, float] = {}
        self.groups = Groups(self)
        self._places = (0, 0)
        self.watches: defaultdict[UUID, dict[str, float]] = defaultdict(dict)
        self.channels: dict[UUID, Channel] = {}
        self.follows: defaultdict[UUID, dict[str, float]] = defaultdict(dict)
        self.intact = False
        self.news = threading.Condition(lock)
        self.listeners: set[threading.Condition] = set()
        """Conditions of the workers that wait for this queue and others."""

    def notify(self, count: int | None = 1) -> None:
        """Wake up to `count` workers that wait for this queue alone, or all (None), and all that wait for others too."""
        if count is None:
            self.news.notify_all()
        else:
            self.news.notify(count)
        for listener in self.listeners:
            listener.notify_all()

    def add(self, entry: Entry) -> None:
        """Add a task, which the caller puts in one of `ready`, `delayed` and `leases`."""
        self.tasks[entry.agent_id] = QueuedTask(
            entry.epoch,
            Priority(entry.priority),
            fairness_key=entry.fairness_key,
            fairness_weight=entry.fairness_weight,
            groups=entry.groups,
        )

    def promote(self, now: float) -> None:
        """Make delayed tasks that are due ready, in the order in which they became due."""
        due = [agent_id for agent_id, run_at in self.delayed.items() if run_at <= now]
        for agent_id in sorted(due, key=self.delayed.__getitem__):
            del self.delayed[agent_id]
            self.make_ready(agent_id)

    def make_ready(self, agent_id: UUID, *, first: bool = False) -> None:
        """Put a task behind those of its fairness key, or before all others."""
        task, (low, high) = self.tasks[agent_id], self._places
        task.place = low - 1 if first else high + 1
        self._places = min(low, task.place), max(high, task.place)
        lane = self.ready[task.priority]
        (lane.add_first if first else lane.add)(agent_id, task.fairness_key, task.fairness_weight)

    def put_back(self, agent_id: UUID) -> None:
        """Put a task that waited for a group before all others but those of its key that were ready earlier."""
        task = self.tasks[agent_id]
        self.ready[task.priority].add_first(
            agent_id,
            task.fairness_key,
            task.fairness_weight,
            behind=lambda other: self.tasks[other].place < task.place,
        )
        self.notify()

    def take(self, limit: int, low_quota: int, limits: Mapping[str, int] = NO_LIMITS) -> Iterator[UUID]:
        """Take ready tasks out that their groups admit: `low_quota` from LOW, then HIGH, then LOW."""
        parked = 0
        for priority, lane_limit in (
            (Priority.LOW, min(low_quota, limit)),
            (Priority.HIGH, limit),
            (Priority.LOW, limit),
        ):
            lane = self.ready[priority]
            while lane and lane_limit > 0 and limit > 0:
                agent_id = lane.pop()
                if self.groups.admit(agent_id, limits):
                    lane_limit, limit = lane_limit - 1, limit - 1
                    yield agent_id
                elif (parked := parked + 1) == MAX_PARKED:
                    return

    def next_due(self, now: float) -> float | None:
        """Return the seconds until the first delayed task is due, None without delayed tasks."""
        return max(0.0, min(self.delayed.values()) - now) if self.delayed else None

    def withdraw(self, agent_id: UUID) -> None:
        """Take a task out of `ready`, `delayed`, `leases` and the lines of its groups."""
        for lane in self.ready.values():
            lane.discard(agent_id)
        self.delayed.pop(agent_id, None)
        self.leases.pop(agent_id, None)
        self.groups.unpark(agent_id)

    def forget(self, agent_id: UUID) -> QueuedTask | None:
        """Forget a task, and let in those that waited for its groups."""
        task = self.tasks.get(agent_id)
        self.withdraw(agent_id)
        if task is not None:
            self.groups.leave(agent_id, task.groups)
            del self.tasks[agent_id]
        return task

    def compare(self, entries: Sequence[Entry], now: float, lease_seconds: float) -> Comparison:
        """Compare tasks with the record; see `StateBackend.compare`."""
        found = Comparison([], [])
        for entry in entries:
            agent_id, task = entry.agent_id, self.tasks.get(entry.agent_id)
            if task is None:
                found.missing.append(agent_id)
            elif task.groups != entry.groups or not fits_record(
                recorded_epoch=entry.epoch,
                due=entry.run_at,
                epoch=task.epoch,
                leased=agent_id in self.leases,
                at=self.leases.get(agent_id) or self.delayed.get(agent_id) or 0.0,
                now=now,
                lease_seconds=lease_seconds,
            ):
                found.wrong.append(agent_id)
        return found

    def claim_ready(
        self,
        now: float,
        worker: str,
        limit: int,
        low_quota: int,
        seconds: float,
        limits: Mapping[str, int] = NO_LIMITS,
    ) -> list[Lease]:
        """Lease up to `limit` ready tasks to a worker, each with its epoch raised by one."""
        self.promote(now)
        leases = []
        for agent_id in self.take(limit, low_quota, limits):
            task = self.tasks[agent_id]
            task.epoch, task.worker = task.epoch + 1, worker
            self.leases[agent_id] = now + seconds
            leases.append(Lease(agent_id, task.epoch))
        return leases

    def renew_leases(self, now: float, worker: str, leases: Sequence[Lease], seconds: float) -> LostLeases:
        """Extend leases; see `StateBackend.renew`."""
        lost = LostLeases([], [])
        for agent_id, epoch in leases:
            task = self.tasks.get(agent_id)
            if task is None:
                lost.missing.append(agent_id)
            elif task.epoch > epoch or (task.epoch == epoch and task.worker not in ("", worker)):
                lost.taken.append(agent_id)
            else:
                self.withdraw(agent_id)
                self.groups.hold(agent_id, task.groups)
                task.epoch, task.worker = epoch, worker
                self.leases[agent_id] = now + seconds
        return lost

    def finish_leases(self, leases: Sequence[Lease]) -> None:
        """Forget finished tasks, except those that a higher epoch holds."""
        for lease in leases:
            if self.is_finished_by(lease):
                self.forget(lease.agent_id)

    def release_lease(self, now: float, lease: Lease, delay: float) -> bool:
        """Give a task back, to the front of its priority or for `delay` seconds. False if the lease is lost."""
        agent_id = lease.agent_id
        if not self.is_held_by(lease):
            return False
        task = self.tasks[agent_id]
        self.withdraw(agent_id)
        task.epoch, task.worker = lease.epoch, ""
        if delay > 0:
            self.delayed[agent_id] = now + delay
        else:
            self.make_ready(agent_id, first=True)
        self.groups.leave_limits(agent_id)
        return True

    def restore_running(self, now: float, entries: Iterable[Entry], seconds: float) -> None:
        """Add running tasks that are unknown, leased to nobody."""
        for entry in entries:
            if entry.agent_id not in self.tasks:
                self.add(entry)
                self.groups.hold(entry.agent_id, entry.groups)
                self.leases[entry.agent_id] = now + seconds

    def is_finished_by(self, lease: Lease) -> bool:
        """Return True for a known task that no higher epoch holds."""
        task = self.tasks.get(lease.agent_id)
        return task is not None and task.epoch <= lease.epoch

    def is_held_by(self, lease: Lease) -> bool:
        """Return True if a task is leased, by no higher epoch."""
        return self.is_finished_by(lease) and lease.agent_id in self.leases

    def expired(self, now: float, limit: int) -> list[Lease]:
        """Return leases that have expired, the oldest first."""
        found = sorted((at, agent_id) for agent_id, at in self.leases.items() if at <= now)
        return [Lease(agent_id, self.tasks[agent_id].epoch) for _, agent_id in found[:limit]]
