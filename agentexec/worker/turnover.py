"""Turnover: what a worker process claims while it takes over from its predecessors, and before it is replaced itself.

A process that is to be replaced finishes its tasks while its successor runs already. Together they have no more slots than
one process: the successor claims for the slots that its predecessors do not use any more.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable

from agentexec.worker.scoreboard import Cell, State

TAKEOVER_WAIT = 0.05
"""Seconds between two looks at the slots of predecessors."""

BURST_WAIT = 0.2
"""Seconds between two claims of a process that is to end when nothing is left to do."""

JITTER_PART = 10
"""The part of its tasks, one in so many, that a process may do fewer, so that not all are replaced at once."""


class Turnover:
    """The turnover of one worker process.

    Threads: the claiming thread calls everything; `retired` is also read and called by others.

    Args:
        cell: Cell of this process.
        slots: Number of its slots.
        max_tasks: Number of tasks to start at most, 0 for any number.
        burst: Tell the supervisor of claims that find nothing, so that it can end all.
        predecessors: Cells of the processes whose place this one takes, each with the number of its start.
    """

    def __init__(
        self,
        cell: Cell,
        slots: int,
        *,
        max_tasks: int = 0,
        burst: bool = False,
        predecessors: Iterable[tuple[Cell, int]] = (),
    ) -> None:
        self.cell = cell
        self._slots = slots
        self._burst = burst
        self.idle_wait = BURST_WAIT if burst else math.inf
        """Seconds of one wait for tasks at most."""
        self._limit = max_tasks - secrets.randbelow(max_tasks // JITTER_PART + 1) if max_tasks else 0
        # From here on the supervisor has the time to start a successor.
        self._due_at = self._limit - min(slots, self._limit // 2)
        self._predecessors = list(predecessors)

    def quota(self, started: int, free: int) -> int | None:
        """Return how many of the free slots may be claimed for, None if this process may start no more tasks.

        `started`: number of tasks that it has started.
        """
        if self._predecessors:
            free -= self._slots_of_predecessors()
        if self._limit:
            left = self._limit - started
            if left <= 0:
                return None
            free = min(free, left)
        return max(0, free)

    def begin_claim(self) -> None:
        """Note that this process looks for tasks."""
        if self._burst:
            self.cell.begin_claim()

    def end_claim(self, *, empty: bool) -> None:
        """Note that it has looked; `empty`: it has found no task, and has none."""
        if self._burst:
            self.cell.end_claim(empty=empty)

    def note_started(self, number: int) -> None:
        """Note the number of tasks that this process has started."""
        self.cell.note_started(number)
        if self._limit and number >= self._due_at and self.cell.state is State.SERVING:
            self.cell.note_state(State.DUE)

    def note_retiring(self, used_slots: int) -> None:
        """Note how many slots are still used, as this process claims nothing more."""
        self.cell.note_used_slots(used_slots)
        self.cell.note_state(State.RETIRING)

    def _slots_of_predecessors(self) -> int:
        """Return the number of slots that predecessors use, and forget those that are gone."""
        self._predecessors = [(cell, start) for cell, start in self._predecessors if cell.start == start]
        return sum(
            cell.used_slots if cell.state is State.RETIRING else self._slots for cell, _ in self._predecessors
        )
