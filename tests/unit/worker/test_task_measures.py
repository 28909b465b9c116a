"""Attempts are counted once each, by how they end, and measured."""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import uuid4

from agentexec.activity.changes.admissions import Admitted
from agentexec.activity.changes.endings import Ending
from agentexec.db.clock import utc_now
from agentexec.policy import CrashCounts
from agentexec.task import Lease, Status
from agentexec.telemetry.meter import Meter
from agentexec.telemetry.names import DURATION, RETRIES, TASKS, WAIT
from agentexec.worker.task_measures import TaskMeasures


def test_each_ending_counts_as_what_it_is() -> None:
    meter = Meter()
    measures = TaskMeasures(meter)
    for status, counts, aborted in (
        (Status.COMPLETE, True, False),
        (Status.QUEUED, True, False),
        (Status.QUEUED, False, False),
        (Status.COMPLETE, True, True),
        (Status.ERROR, True, False),  # counted where it is logged, with those that end without an attempt
    ):
        lease = Lease(uuid4(), 1)
        admitted = Admitted(lease, "work", None, 1, CrashCounts(), utc_now() - timedelta(seconds=7))
        measures.note_starts([admitted])
        ending = Ending(lease, status, "", counts_as_attempt=counts)
        measures.note_end(admitted, ending, began=time.monotonic(), aborted=aborted)
    measures.note_cancellation("work")
    values = meter.values()
    assert values[TASKS.name, ("work", "complete")] == [1]
    assert values[TASKS.name, ("work", "canceled")] == [1]
    assert values[RETRIES.name, ("work",)] == [1]
    assert (TASKS.name, ("work", "error")) not in values
    assert sum(values[DURATION.name, ("work",)][:-1]) == 5
    *buckets, waited = values[WAIT.name, ("work",)]
    assert (sum(buckets), 35 <= waited < 60) == (5, True)
