"""Every open task of the record comes back into the index, however it was lost."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.task import Status
from agentexec.worker.index_repair import PUSH_GRACE, IndexRepair
from tests.unit.worker.record import QUEUE, Record, open_record

LATER = timedelta(seconds=PUSH_GRACE + 1)


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


@pytest.fixture
def repair(record: Record) -> IndexRepair:
    return IndexRepair(record.runtime, Settings(queue_name=QUEUE))


def test_an_emptied_index_is_rebuilt_once(record: Record, repair: IndexRepair) -> None:
    running = record.start(1)
    queued = record.enqueue(2)
    [ended] = record.enqueue(1)
    record.change(ended, status=Status.COMPLETE)
    record.backend.remove(QUEUE, [*running, *queued, ended])
    repair.rebuild_if_emptied()
    depth = record.backend.depth(QUEUE)
    assert (depth.ready, depth.leased) == (2, 1)
    record.backend.remove(QUEUE, queued)
    repair.rebuild_if_emptied()
    assert record.backend.depth(QUEUE).ready == 0, "an intact index is left alone"


def test_a_task_whose_push_was_lost_is_pushed_after_a_moment(record: Record, repair: IndexRepair) -> None:
    [lost, fresh] = record.enqueue(2)
    record.change(lost, created_at=utc_now() - LATER)
    record.backend.remove(QUEUE, [lost, fresh])
    repair.push_lost(0.0)
    assert record.backend.unknown_tasks(QUEUE, [lost, fresh]) == [fresh], "its push may be on the way"


def test_recent_tasks_are_looked_at_each_time_and_old_ones_now_and_then(
    record: Record, repair: IndexRepair
) -> None:
    repair.push_lost(100.0)
    [recent, old] = record.enqueue(2)
    record.change(recent, created_at=utc_now() - LATER)
    record.change(old, created_at=utc_now() - timedelta(days=1))
    record.backend.remove(QUEUE, [recent, old])
    repair.push_lost(101.0)
    assert record.backend.unknown_tasks(QUEUE, [recent, old]) == [old]
    repair.push_lost(1_000.0)
    assert record.backend.unknown_tasks(QUEUE, [recent, old]) == []


def test_a_new_leader_looks_at_every_task(record: Record, repair: IndexRepair) -> None:
    repair.push_lost(100.0)
    [old] = record.enqueue(1)
    record.change(old, created_at=utc_now() - timedelta(days=1))
    record.backend.remove(QUEUE, [old])
    repair.reset()
    repair.push_lost(101.0)
    assert record.backend.unknown_tasks(QUEUE, [old]) == []


def test_more_tasks_than_one_page_are_found(
    record: Record, repair: IndexRepair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentexec.worker.index_repair.CHUNK_SIZE", 2)
    tasks = record.enqueue(5)
    record.backend.remove(QUEUE, tasks)
    repair.rebuild_if_emptied()
    assert record.backend.depth(QUEUE).ready == 5
