"""Measures of the tasks that a worker process runs."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress

from agentexec.activity.changes.admissions import Admitted
from agentexec.activity.changes.endings import Ending
from agentexec.db.clock import utc_now
from agentexec.task import Status
from agentexec.telemetry.meter import Meter
from agentexec.telemetry.names import DURATION, RETRIES, TASKS, WAIT

MAX_NOTED = 500
"""Endings that are noted and not counted."""

COMPLETED, RETRIED = "complete", "retried"


class TaskMeasures:
    """Counts attempts and their lengths.

    An ending is only noted, which costs a task little, and counted together with others. Threads: the event loop's thread
    calls everything, and the thread that reads the meter counts what is noted.

    Args:
        meter: Meter of the process.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._ended: deque[tuple[str, float, str]] = deque()
        """Name, seconds and outcome of attempts that are not counted yet."""
        meter.add_source(self._count)

    def note_starts(self, started: Sequence[Admitted]) -> None:
        """Note that attempts start."""
        now = utc_now()
        waits: dict[str, list[float]] = defaultdict(list)
        for admitted in started:
            if admitted.queued_at is not None:
                waits[admitted.task_name].append((now - admitted.queued_at).total_seconds())
        for name, values in waits.items():
            self._meter.observe_all(
                WAIT, values if min(values) >= 0 else [max(0.0, value) for value in values], name
            )

    def note_end(self, admitted: Admitted, ending: Ending, *, began: float, aborted: bool) -> None:
        """Note that an attempt has ended.

        Args:
            admitted: The task.
            ending: The ending of the attempt.
            began: Moment at which it began, by `time.monotonic`.
            aborted: Nothing is written, because the task was canceled or lost its lease.
        """
        outcome = ""
        if not aborted:
            if ending.status is Status.COMPLETE:
                outcome = COMPLETED
            elif ending.status is Status.QUEUED and ending.counts_as_attempt:
                outcome = RETRIED
        self._ended.append((admitted.task_name, time.monotonic() - began, outcome))
        if len(self._ended) >= MAX_NOTED:
            self._count()

    def _count(self) -> None:
        """Count the endings that are noted."""
        lengths: dict[str, list[float]] = defaultdict(list)
        outcomes: dict[tuple[str, str], int] = defaultdict(int)
        with suppress(IndexError):  # another thread may count some of them
            while self._ended:
                name, seconds, outcome = self._ended.popleft()
                lengths[name].append(seconds)
                outcomes[name, outcome] += 1
        for name, values in lengths.items():
            self._meter.observe_all(DURATION, values, name)
        for (name, outcome), number in outcomes.items():
            if outcome == COMPLETED:
                self._meter.add(TASKS, name, COMPLETED, amount=number)
            elif outcome == RETRIED:
                self._meter.add(RETRIES, name, amount=number)

    def note_cancellation(self, task_name: str) -> None:
        """Note that a running task was canceled."""
        self._meter.add(TASKS, task_name, "canceled")
