"""Locks and limits of one queue in memory: the tasks that each has admitted, and those that wait for it."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentexec.state.answers import Waiting
from agentexec.state.groups import capacity, is_lock

if TYPE_CHECKING:
    from agentexec.state.memory_backend.queue import Queue


class Groups:
    """Groups of a queue; the caller holds the lock of the backend."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._held: defaultdict[str, dict[UUID, None]] = defaultdict(dict)
        self._lines: defaultdict[str, list[tuple[int, int, UUID]]] = defaultdict(list)
        self._parked: dict[UUID, str] = {}

    def __len__(self) -> int:
        """Return the number of tasks that wait."""
        return len(self._parked)

    def admit(self, agent_id: UUID, limits: Mapping[str, int]) -> bool:
        """Let a task into its groups. If one is full, the task waits for that one, and has those before it."""
        task = self._queue.tasks[agent_id]
        for group in task.groups:
            held, most = self._held[group], capacity(group, limits)
            if agent_id in held:
                continue
            if most is not None and len(held) >= most:
                self.park(agent_id, group)
                return False
            held[agent_id] = None
            if not is_lock(group) and (most is None or len(held) < most):
                self.advance(group)  # a limit that was raised lets more tasks in
        return True

    def park(self, agent_id: UUID, group: str) -> None:
        """Put a task into the line of a group."""
        task = self._queue.tasks[agent_id]
        bisect.insort(self._lines[group], (task.priority, task.place, agent_id))
        self._parked[agent_id] = group

    def hold(self, agent_id: UUID, groups: Iterable[str]) -> None:
        """Let a task into groups, full or not."""
        for group in groups:
            self._held[group][agent_id] = None

    def leave(self, agent_id: UUID, groups: Iterable[str]) -> None:
        """Take a task out of groups, and let the next ones in."""
        for group in groups:
            self._held[group].pop(agent_id, None)
            if not (is_lock(group) and self._held[group]):
                self.advance(group)
            if not self._held[group] and not self._lines[group]:
                del self._held[group], self._lines[group]

    def leave_limits(self, agent_id: UUID) -> None:
        """Take a task whose lease ends out of its limits."""
        groups = self._queue.tasks[agent_id].groups
        self.leave(agent_id, [group for group in groups if not is_lock(group)])

    def advance(self, group: str) -> None:
        """Put the first task that waits for a group back into its lane."""
        if line := self._lines[group]:
            agent_id = line.pop(0)[2]
            del self._parked[agent_id]
            self._queue.put_back(agent_id)

    def go_on(self, agent_ids: Iterable[UUID]) -> None:
        """Let one task into each lock that nobody has, and into each limit, of those for which these tasks wait."""
        for group in dict.fromkeys(self._parked[known] for known in agent_ids if known in self._parked):
            if not is_lock(group) or not self._held[group]:
                self.advance(group)

    def unpark(self, agent_id: UUID) -> None:
        """Take a task out of the line in which it waits."""
        group = self._parked.pop(agent_id, None)
        if group is not None:
            self._lines[group] = [entry for entry in self._lines[group] if entry[2] != agent_id]

    def waiting_for(self, agent_id: UUID) -> Waiting | None:
        """Return the group for which a task waits, None if it does not."""
        group = self._parked.get(agent_id)
        if group is None:
            return None
        line = [entry[2] for entry in self._lines[group]]
        return Waiting(group, line.index(agent_id), list(self._held[group])[:20])

    def saved(self) -> dict[str, Any]:
        """Return the groups as JSON values, from which `load` makes them again."""
        held = {group: [agent_id.hex for agent_id in ids] for group, ids in self._held.items() if ids}
        lines = {
            group: [[priority, place, agent_id.hex] for priority, place, agent_id in line]
            for group, line in self._lines.items()
            if line
        }
        return {"held": held, "lines": lines}

    def load(self, saved: dict[str, Any]) -> None:
        """Fill empty groups with what `saved` returned."""
        for group, ids in saved["held"].items():
            self._held[group] = dict.fromkeys(map(UUID, ids))
        for group, line in saved["lines"].items():
            self._lines[group] = [(priority, place, UUID(agent_id)) for priority, place, agent_id in line]
            self._parked.update((entry[2], group) for entry in self._lines[group])
