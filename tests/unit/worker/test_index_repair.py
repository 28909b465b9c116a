"""Every open task of the record comes back into the index, however it was lost."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from agentexec.activity.models import Activity
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.state.backend import Comparison, Depth
from agentexec.task import Entry, Status, new_agent_id
from agentexec.worker.index_repair import PUSH_GRACE, RECENT, IndexRepair
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


def test_a_rebuilt_index_knows_the_fairness_keys(record: Record, repair: IndexRepair) -> None:
    many, [late] = record.enqueue(20), record.enqueue(1)
    for agent_id in many:
        record.change(agent_id, fairness_key="many", fairness_weight=1.0)
    record.change(late, fairness_key="late", fairness_weight=1.0)
    record.backend.remove(QUEUE, [*many, late])
    repair.rebuild_if_emptied()
    claimed = record.backend.claim(QUEUE, "worker", limit=2, low_quota=0, lease_seconds=60).leases
    assert late in [lease.agent_id for lease in claimed]


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


def test_recent_tasks_are_not_looked_at_where_the_turn_knows_of_none(
    record: Record, repair: IndexRepair
) -> None:
    repair.push_lost(100.0)
    [lost] = record.enqueue(1)
    record.change(lost, created_at=utc_now() - LATER)
    record.backend.remove(QUEUE, [lost])
    repair.push_lost(101.0, utc_now())
    assert record.backend.unknown_tasks(QUEUE, [lost]) == [lost]
    repair.push_lost(102.0, utc_now() + RECENT)  # too long after the last look
    assert record.backend.unknown_tasks(QUEUE, [lost]) == []


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


def test_a_task_that_moves_on_while_it_is_compared_is_left_alone(
    record: Record, repair: IndexRepair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row was read before the task was put off by an hour, and the entry after it."""
    [task] = record.enqueue(1)
    [lease] = record.claim()
    look = repair._compare
    later = utc_now() + timedelta(hours=1)

    def put_off(rows: Sequence[Any]) -> Comparison:
        record.change(task, run_at=later, epoch=lease.epoch)
        record.backend.release(QUEUE, lease, delay=3_600)
        monkeypatch.setattr(repair, "_compare", look)
        return look(rows)

    record.change(task, created_at=utc_now() - LATER)
    monkeypatch.setattr(repair, "_compare", put_off)
    repair.push_lost(0.0)
    assert record.backend.depth(QUEUE) == Depth(0, 1, 0)


def test_tasks_that_end_while_they_are_looked_at_do_not_come_back(
    record: Record, repair: IndexRepair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their rows were read before they ended: as leased by nobody, they would keep their locks for a whole lease."""
    [running], [queued] = record.start(1), record.enqueue(1)
    look = repair._compare

    def compare(rows: Sequence[Any]) -> Comparison:
        for task in (running, queued):
            record.change(task, status=Status.COMPLETE)
        record.backend.remove(QUEUE, [running, queued])
        return look(rows)

    monkeypatch.setattr(repair, "_compare", compare)
    repair.rebuild_if_emptied()
    assert record.backend.depth(QUEUE) == Depth(0, 0, 0)


def test_tasks_that_have_just_ended_are_left_to_their_workers(record: Record, repair: IndexRepair) -> None:
    ended, running = record.start(2)
    forged = new_agent_id()
    record.change(ended, status=Status.COMPLETE)
    record.backend.push(QUEUE, [Entry(forged, run_at=4e9)])
    repair.push_lost(0.0)
    assert record.backend.unknown_tasks(QUEUE, [ended, running, forged]) == [forged]
    repair.push_lost(1_000.0)
    assert record.backend.unknown_tasks(QUEUE, [ended]) == [ended], "nobody acknowledged it"


@pytest.mark.parametrize("epoch", [2**31 - 1, 2**62, -1, "many"])
def test_a_task_whose_epoch_no_claim_can_raise_ends_and_holds_up_no_other(
    record: Record, repair: IndexRepair, epoch: int | str
) -> None:
    spoiled, odd, good = record.enqueue(3)
    record.backend.remove(QUEUE, [spoiled, odd, good])
    with writing(record.runtime.engine) as connection:
        connection.execute(
            text(f"UPDATE {Activity.__tablename__} SET epoch = :epoch WHERE agent_id = :id"),
            {"epoch": epoch, "id": spoiled.hex},
        )
    record.change(odd, priority=9)
    record.backend.watch(QUEUE, [spoiled], "caller")
    repair.rebuild_if_emptied()
    assert record.statuses([spoiled, odd, good]) == [Status.ERROR, Status.QUEUED, Status.QUEUED]
    assert record.backend.unknown_tasks(QUEUE, [spoiled, odd, good]) == [spoiled]
    assert record.backend.receive("caller", 0) == [f"done {spoiled}"]


@pytest.mark.parametrize("hours", [-1, 1])
def test_an_emptied_index_is_rebuilt_whatever_the_clock_of_the_leader_says(
    record: Record, repair: IndexRepair, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    tasks = record.enqueue(2)
    record.backend.remove(QUEUE, tasks)
    monkeypatch.setattr("agentexec.worker.index_repair.utc_now", lambda: utc_now() + timedelta(hours=hours))
    repair.rebuild_if_emptied()
    assert record.backend.depth(QUEUE).ready == 2


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_lost_push_of_a_host_whose_clock_is_wrong_is_found(
    record: Record, repair: IndexRepair, hours: int
) -> None:
    [lost] = record.enqueue(1)
    record.change(lost, created_at=utc_now() + timedelta(hours=hours))
    record.backend.remove(QUEUE, [lost])
    repair.push_lost(0.0)
    assert record.backend.unknown_tasks(QUEUE, [lost]) == []


def test_looks_at_recent_tasks_take_a_small_share_of_the_time(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair = IndexRepair(record.runtime, Settings(queue_name=QUEUE, lease_seconds=3600))
    looks: list[Any] = []

    def look_slowly(condition: Any) -> int:
        looks.append(condition)
        time.sleep(0.02)
        return 0

    monkeypatch.setattr(repair, "_has_open", lambda *_: True)
    monkeypatch.setattr(repair, "_push_unknown", look_slowly)
    for clock, expected in ((0.0, 1), (1.0, 2), (1.3, 2), (1000.0, 3)):
        repair.push_lost(clock)
        assert len(looks) == expected, f"at {clock} s"
