"""Ready tasks of one priority in memory: first in, first out for each fairness key, and the keys take turns."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID


class FairLane:
    """Ready tasks of one priority. Tasks without a key are those of one more key of weight 1.

    A key's turn is that of its first task: one step after the task before it, or after the task that was taken last if
    the key had none. A step is 1 by the task's weight.
    """

    def __init__(self) -> None:
        self._tasks: dict[str | None, OrderedDict[UUID, float]] = {}
        """Tasks of each key, with their steps."""
        self._key: dict[UUID, str | None] = {}
        self._turns: dict[str | None, float] = {}
        """Turn of each key that has tasks."""
        self._heap: list[tuple[float, int, str | None]] = []
        """Keys by turn; those that do not agree with `_turns` are outdated."""
        self._numbers = itertools.count()
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._key)

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._key

    def add(self, agent_id: UUID, key: str | None, weight: float) -> None:
        """Add a task behind those of its key."""
        tasks = self._tasks.setdefault(key, OrderedDict())
        tasks[agent_id] = 1.0 / weight
        self._key[agent_id] = key
        if key not in self._turns:
            self._set_turn(key, self._now + tasks[agent_id])

    def add_first(
        self,
        agent_id: UUID,
        key: str | None,
        weight: float,
        *,
        behind: Callable[[UUID], bool] = lambda _: False,
    ) -> None:
        """Add a task before all others, except the first ones of its key that it is `behind`."""
        before = list(itertools.takewhile(behind, self._tasks.get(key, ())))
        self.add(agent_id, key, weight)
        for first in (agent_id, *reversed(before)):
            self._tasks[key].move_to_end(first, last=False)
        self._set_turn(key, -1.0)

    def pop(self) -> UUID:
        """Take the task whose turn is next."""
        while True:
            turn, _, key = heapq.heappop(self._heap)
            if self._turns.get(key) == turn:
                break
        self._now = max(self._now, turn)
        agent_id = next(iter(self._tasks[key]))
        self.discard(agent_id)
        if key in self._tasks:
            self._set_turn(key, self._now + next(iter(self._tasks[key].values())))
        return agent_id

    def discard(self, agent_id: UUID) -> None:
        """Remove a task if it is there."""
        if agent_id not in self._key:
            return
        key = self._key.pop(agent_id)
        del self._tasks[key][agent_id]
        if not self._tasks[key]:
            del self._tasks[key], self._turns[key]

    def _set_turn(self, key: str | None, turn: float) -> None:
        self._turns[key] = turn
        heapq.heappush(self._heap, (turn, next(self._numbers), key))
