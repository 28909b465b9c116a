"""Ready tasks of one priority in memory: first in, first out for each fairness key, and the keys take turns."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
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
        self._turns: dict[str | None, tuple[float, int]] = {}
        """Turn of each key that has tasks, and a number: of keys with the same turn the one that got it first comes first."""
        self._heap: list[tuple[float, int, str | None]] = []
        """Keys by turn; those that do not agree with `_turns` are outdated."""
        self._last_number = 0
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

    def move_ahead(self, agent_id: UUID, is_later: Callable[[UUID], bool]) -> None:
        """Move the last task of a key before those at the end of its key that are later."""
        tasks = self._tasks[self._key[agent_id]]
        others = itertools.islice(reversed(tasks), 1, None)
        for later in reversed(list(itertools.takewhile(is_later, others))):
            tasks.move_to_end(later)

    def pop(self) -> UUID:
        """Take the task whose turn is next."""
        while True:
            turn, number, key = heapq.heappop(self._heap)
            if self._turns.get(key) == (turn, number):
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

    def saved(self) -> dict[str, Any]:
        """Return the lane as JSON values, from which `load` makes one that behaves in the same way."""
        keys = [
            [key, *self._turns[key], [agent_id.hex for agent_id in tasks]]
            for key, tasks in self._tasks.items()
        ]
        return {"now": self._now, "number": self._last_number, "keys": keys}

    def load(self, saved: dict[str, Any], weight_of: Callable[[UUID], float]) -> None:
        """Fill an empty lane with what `saved` returned."""
        self._now, self._last_number = saved["now"], saved["number"]
        for key, turn, number, ids in saved["keys"]:
            agent_ids = [UUID(agent_id) for agent_id in ids]
            self._tasks[key] = OrderedDict((agent_id, 1.0 / weight_of(agent_id)) for agent_id in agent_ids)
            self._key.update(dict.fromkeys(agent_ids, key))
            self._turns[key] = (turn, number)
            heapq.heappush(self._heap, (turn, number, key))

    def _set_turn(self, key: str | None, turn: float) -> None:
        self._last_number += 1
        self._turns[key] = (turn, self._last_number)
        heapq.heappush(self._heap, (turn, self._last_number, key))
