"""Burst: the end of the workers once the queue holds nothing that they could run now."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from agentexec.worker.child_processes import ChildProcess
from agentexec.worker.scoreboard import Cell

log = logging.getLogger("agentexec.supervisor")

CLAIMS_NEEDED = 2
"""Claims in a row that find nothing. The first may have begun before the others had nothing to do."""


class _Look(NamedTuple):
    """A worker process at one moment: its start, the tasks that it has started, its claims that found nothing."""

    start: int
    started: int
    empty_claims: int


class Burst:
    """Decides that nothing is left to do: each worker process has looked for tasks while none of them ran any.

    Threads: only the supervisor's loop calls it.
    """

    def __init__(self) -> None:
        self._since: list[_Look] = []

    def is_over(self, workers: Sequence[ChildProcess]) -> bool:
        """Return True if no worker process has had anything to do since an earlier call, and all of them have looked."""
        cells = [worker.cell for worker in workers if worker.alive and worker.cell is not None]
        looks = [_Look(cell.start, cell.started, cell.empty_claims) for cell in cells]
        if not workers or len(cells) < len(workers) or not self._are_idle(looks):
            if [look[:2] for look in looks] != [look[:2] for look in self._since]:
                self._since = looks
            return False
        return not _any_busy(cells, looks)

    def _are_idle(self, looks: Sequence[_Look]) -> bool:
        return len(looks) == len(self._since) and all(
            now.start == before.start
            and now.started == before.started
            and now.empty_claims >= before.empty_claims + CLAIMS_NEEDED
            for now, before in zip(looks, self._since, strict=True)
        )


def _any_busy(cells: Sequence[Cell], looks: Sequence[_Look]) -> bool:
    """Return True if a process has found a task, which it would have done before the last claims of the others."""
    return any(cell.claiming or cell.started != look.started for cell, look in zip(cells, looks, strict=True))
