"""A plain task stays cheap: features that it does not use must not add to what each task executes.

Calls of Python functions are counted, because their number does not depend on the machine or its load.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from uuid import UUID

from agentexec.activity.changes.admissions import StartTerms
from agentexec.activity.changes.store import RecordStore
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.registry import Registry
from agentexec.worker.running import RunningTasks
from tests.unit.worker.parts import MAX_CRASHES, FakeWriter, Held
from tests.unit.worker.record import QUEUE, Record, open_record

TASKS = 100

HIGHEST_NUMBER_OF_CALLS = 115
"""Calls for one task, from its claim to its recorded end. On Python 3.11 there are 106."""


class CallCounter:
    """Number of Python functions that this thread has called."""

    number = 0

    def note(self, _frame: FrameType, event: str, _argument: object) -> None:
        self.number += event == "call"


@contextmanager
def counting_calls() -> Generator[CallCounter]:
    counter = CallCounter()
    before = sys.getprofile()
    sys.setprofile(counter.note)
    try:
        yield counter
    finally:
        sys.setprofile(before)


async def nothing(agent_id: UUID, context: dict[str, int]) -> None:
    """Do nothing, so that only agentexec is counted."""


def run_tasks(record: Record, threads: ThreadPoolExecutor) -> int:
    """Run tasks as a worker does, without its threads and its queue; return the number of calls."""
    registry, held, writer = Registry(), Held(slots=TASKS, queue=QUEUE), FakeWriter()
    registry.add("work", nothing)
    store = RecordStore(record.runtime.engine)
    running = RunningTasks(registry, Settings(), held.tasks, writer, threads)
    record.enqueue(TASKS)
    leases = record.claim(TASKS)
    held.slots.acquire(TASKS)
    with counting_calls() as calls:
        held.tasks.add(leases)
        terms = StartTerms(utc_now(), "Task started.", MAX_CRASHES, queue=QUEUE)
        admissions = store.admit(leases, terms, suspect_running=False)
        held.suspects.add(admissions.started)

        async def run() -> None:
            running.open()
            running.begin(admissions.started)
            while len(writer.endings) < TASKS:  # noqa: ASYNC110 - an event would be set by the code that is counted
                await asyncio.sleep(0)

        asyncio.run(run())
        recorded = store.record([], writer.endings, now=utc_now(), result_ttl=60)
    assert not recorded.refused
    return calls.number


def test_a_plain_task_makes_few_calls(tmp_path: Path) -> None:
    with open_record(tmp_path) as record, ThreadPoolExecutor(1) as threads:
        for _ in range(2):
            run_tasks(record, threads)  # compiles the statements, and plans those that return
        assert run_tasks(record, threads) / TASKS <= HIGHEST_NUMBER_OF_CALLS
