"""Measures of the tasks that a worker process runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

from agentexec.activity.changes.admissions import Admitted
from agentexec.activity.changes.endings import Ending
from agentexec.db.clock import utc_now
from agentexec.task import Status
from agentexec.telemetry.meter import Meter
from agentexec.telemetry.names import DURATION, RETRIES, TASKS, WAIT


class TaskMeasures:
    """Counts attempts and their lengths. Threads: the event loop's thread calls everything.

    Args:
        meter: Meter of the process.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._started: dict[UUID, float] = {}

    def note_starts(self, started: Sequence[Admitted]) -> None:
        """Note that attempts start."""
        began, now = time.monotonic(), utc_now()
        waits: dict[str, list[float]] = {}
        for admitted in started:
            self._started[admitted.lease.agent_id] = began
            if admitted.queued_at is not None:
                waited = max(0.0, (now - admitted.queued_at).total_seconds())
                waits.setdefault(admitted.task_name, []).append(waited)
        for name, values in waits.items():
            self._meter.observe_all(WAIT, values, name)

    def note_end(self, admitted: Admitted, ending: Ending, *, aborted: bool) -> None:
        """Note that an attempt has ended; `aborted`: nothing is written, because it was canceled or lost its lease."""
        name = admitted.task_name
        began = self._started.pop(admitted.lease.agent_id, None)
        if began is not None:
            self._meter.observe(DURATION, time.monotonic() - began, name)
        if aborted:
            return
        if ending.status is Status.COMPLETE:
            self._meter.add(TASKS, name, "complete")
        elif ending.status is Status.QUEUED and ending.counts_as_attempt:
            self._meter.add(RETRIES, name)

    def note_cancellation(self, task_name: str) -> None:
        """Note that a running task was canceled."""
        self._meter.add(TASKS, task_name, "canceled")
