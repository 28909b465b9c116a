"""State of a queue, made from the commands of its log.

Each process applies the same commands in the same order, so a command must have the same effect everywhere: it has the time
with it, and nothing here looks at a clock, at chance or at the order of a set. A change of the effects is a new RULES.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from agentexec.state.answers import Depth, LostLeases
from agentexec.state.groups import is_lock
from agentexec.state.memory_backend.groups import Groups
from agentexec.state.memory_backend.queue import Queue, QueuedTask
from agentexec.task import Entry, Lease, Priority

RULES = 1
"""Version of the effects of commands. Processes with different ones have separate indexes, which the reconciler fills."""

MICROS = 1_000_000

Command = list[Any]
"""Name of a method of `SharedQueue.COMMANDS`, the time, and further arguments; JSON values."""

INVALID = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Errors of a command that none of ours has written."""


def packed_entry(entry: Entry) -> list[Any]:
    """Return a task as JSON values."""
    return [entry.agent_id.hex, int(entry.priority), *entry[2:6], list(entry.groups), *entry[7:]]


def packed_leases(leases: Sequence[Lease]) -> list[Any]:
    """Return leases as JSON values."""
    return [[agent_id.hex, epoch] for agent_id, epoch in leases]


def _entry(values: Sequence[Any]) -> Entry:
    agent_id, priority, run_at, epoch, key, weight, groups, holds_lock, since = values
    return Entry(
        UUID(agent_id),
        Priority(priority),
        float(run_at),
        int(epoch),
        key,
        float(weight),
        tuple(groups),
        holds_lock,
        since,
    )


class CarefulGroups(Groups):
    """Groups that give no lock away while the index is incomplete: it does not know who has one, nor who comes first."""

    def admit(self, agent_id: UUID, limits: Mapping[str, int]) -> bool:
        """Let a task into its groups. If one is full, the task waits for that one, and has those before it."""
        if not self._queue.intact:
            for group in filter(is_lock, self._queue.tasks[agent_id].groups):
                if agent_id not in self._held[group]:
                    self.park(agent_id, group)
                    return False
        return super().admit(agent_id, limits)

    def open_all(self) -> None:
        """Let one task into each lock that nobody has."""
        self.go_on(list(self._parked))

    def may_go_on(self, agent_id: UUID) -> bool:
        """Return True for a task that waits for a limit, or for a lock that nobody has."""
        group = self._parked.get(agent_id)
        return group is not None and not (is_lock(group) and self._held.get(group))


class SharedQueue(Queue):
    """Tasks of one queue. Commands change it, and everything else only reads."""

    def __init__(self, lock: threading.RLock) -> None:
        super().__init__(lock)
        self.lock = lock
        self.groups: CarefulGroups = CarefulGroups(self)
        self.wakes = 0
        """Number of calls that woke workers without a task."""

    def apply(self, command: Command) -> Any:
        """Apply a command, and return its answer. An invalid one is an error that leaves the same state everywhere."""
        name, now, *arguments = command
        return self.COMMANDS[name](self, float(now), *arguments)

    # Commands

    def push(self, now: float, entries: Sequence[Any]) -> None:
        """Add tasks that are unknown."""
        for entry in map(_entry, entries):
            if entry.agent_id in self.tasks:
                continue
            self.add(entry)
            if entry.holds_lock:
                self.groups.hold(entry.agent_id, filter(is_lock, entry.groups))
            if entry.run_at > now:
                self.delayed[entry.agent_id] = entry.run_at
            else:
                self.place(entry.agent_id, now, entry.since)

    def place(self, agent_id: UUID, now: float, since: float = 0.0) -> None:
        """Make a task ready, behind those that were ready earlier; `since`: the time of a task that had been lost."""
        low, high = self._places
        # Places are times, so that a task that the index had lost gets its own again.
        self._places = low, max(high, int(now * MICROS))
        self.make_ready(agent_id)
        if since:
            task = self.tasks[agent_id]
            task.place = min(task.place, int(since * MICROS))
            self.ready[task.priority].move_ahead(agent_id, lambda other: self.tasks[other].place > task.place)

    def renew(self, now: float, worker: str, leases: Sequence[Any], seconds: float) -> LostLeases:
        """Extend leases."""
        return self.renew_leases(now, worker, _leases(leases), seconds)

    def finish(self, _now: float, leases: Sequence[Any]) -> None:
        """Forget finished tasks, except those that a higher epoch holds."""
        self.finish_leases(_leases(leases))

    def release(self, now: float, agent_id: str, epoch: int, delay: float) -> bool:
        """Give a task back. False if the lease is lost."""
        return self.release_lease(now, Lease(UUID(agent_id), epoch), delay)

    def advance(self, now: float, agent_ids: Sequence[str]) -> None:
        """Make delayed tasks ready now."""
        for agent_id in map(UUID, agent_ids):
            if self.delayed.pop(agent_id, None) is not None:
                self.place(agent_id, now)

    def restore(self, now: float, entries: Sequence[Any], seconds: float) -> None:
        """Add running tasks that are unknown, leased to nobody."""
        self.restore_running(now, map(_entry, entries), seconds)

    def remove(self, _now: float, agent_ids: Sequence[str]) -> dict[UUID, str]:
        """Remove tasks, and return the worker of each that was leased."""
        removed = {agent_id: self.forget(agent_id) for agent_id in map(UUID, agent_ids)}
        return {agent_id: task.worker for agent_id, task in removed.items() if task and task.worker}

    def mark(self, _now: float) -> None:
        """Note that the index is complete: from now on it gives locks away."""
        if not self.intact:
            self.intact = True
            self.groups.open_all()

    def go_on(self, _now: float, agent_ids: Sequence[str]) -> None:
        """Let the next tasks into the groups for which these wait, where there is room that nobody has noticed."""
        self.groups.go_on(map(UUID, agent_ids))

    def count_wake(self, _now: float) -> None:
        """Wake workers that wait."""
        self.wakes += 1

    COMMANDS = {  # noqa: RUF012 - a constant
        "push": push,
        "claim": Queue.claim_ready,
        "renew": renew,
        "finish": finish,
        "release": release,
        "advance": advance,
        "restore": restore,
        "remove": remove,
        "mark": mark,
        "go_on": go_on,
        "wake": count_wake,
    }

    # Reads

    def has_ready(self, now: float) -> bool:
        """Return True if a claim may find a task."""
        return any(self.ready.values()) or any(run_at <= now for run_at in self.delayed.values())

    def count(self, now: float) -> Depth:
        """Count the tasks. Those that are due count as ready."""
        due = sum(run_at <= now for run_at in self.delayed.values())
        ready = sum(map(len, self.ready.values()))
        return Depth(ready + due, len(self.delayed) - due, len(self.leases), len(self.groups))

    # Snapshots

    def saved(self) -> dict[str, Any]:
        """Return the queue as JSON values, from which `load` makes one that behaves in the same way."""
        return {
            "tasks": [
                [
                    agent_id.hex,
                    task.epoch,
                    int(task.priority),
                    task.worker,
                    task.fairness_key,
                    task.fairness_weight,
                    list(task.groups),
                    task.place,
                ]
                for agent_id, task in self.tasks.items()
            ],
            "ready": [self.ready[priority].saved() for priority in Priority],
            "delayed": [[agent_id.hex, at] for agent_id, at in self.delayed.items()],
            "leases": [[agent_id.hex, at] for agent_id, at in self.leases.items()],
            "groups": self.groups.saved(),
            "places": list(self._places),
            "intact": self.intact,
            "wakes": self.wakes,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Fill an empty queue with what `saved` returned."""
        for agent_id, epoch, priority, worker, key, weight, groups, place in saved["tasks"]:
            self.tasks[UUID(agent_id)] = QueuedTask(
                epoch, Priority(priority), worker, key, weight, tuple(groups), place
            )
        for priority in Priority:
            self.ready[priority].load(
                saved["ready"][priority], lambda agent_id: self.tasks[agent_id].fairness_weight
            )
        self.delayed.update((UUID(agent_id), at) for agent_id, at in saved["delayed"])
        self.leases.update((UUID(agent_id), at) for agent_id, at in saved["leases"])
        self.groups.load(saved["groups"])
        low, high = saved["places"]
        self._places = (low, high)
        self.intact, self.wakes = saved["intact"], saved["wakes"]


def _leases(values: Sequence[Any]) -> list[Lease]:
    return [Lease(UUID(agent_id), int(epoch)) for agent_id, epoch in values]
