"""One host leads the reconciler of a queue; another takes over when it resigns."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.errors import UnavailableError
from agentexec.task import Entry, new_agent_id
from agentexec.worker.reconciler import Reconciler
from tests.unit.worker.record import QUEUE, Record, open_record


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


def test_only_the_leader_repairs_the_index(record: Record) -> None:
    first, second = (
        Reconciler(record.runtime, Settings(queue_name=QUEUE), owner) for owner in ("first", "second")
    )
    first.run_once()
    [lost] = record.enqueue(1)
    record.change(lost, created_at=utc_now() - timedelta(seconds=30))
    record.backend.remove(QUEUE, [lost])
    second.run_once()
    second.resign()
    assert record.backend.unknown_tasks(QUEUE, [lost]) == [lost], "the first one leads"
    first.resign()
    second.run_once()
    assert record.backend.unknown_tasks(QUEUE, [lost]) == []


def test_each_served_queue_has_its_leader(record: Record) -> None:
    both = Reconciler(record.runtime, Settings(queues=f"{QUEUE},other"), "both")
    other = Reconciler(record.runtime, Settings(queue_name="other"), "other")
    other.run_once()
    both.run_once()
    lead = record.backend.acquire_leadership
    assert not lead(f"reconciler:{QUEUE}", "third", 1.0), "it leads the queue that it serves alone"
    assert lead("reconciler:other", "other", 1.0), "but not the other"
    for queue in (QUEUE, "other"):
        record.backend.push(queue, [Entry(new_agent_id())])
        record.backend.claim(queue, "dead", limit=1, low_quota=0, lease_seconds=60)
    assert both.recover("dead", "died") == 2
    both.resign()
    assert lead(f"reconciler:{QUEUE}", "third", 1.0)


def test_a_turn_without_work_writes_nothing_so_it_wakes_no_process(record: Record) -> None:
    leader = Reconciler(record.runtime, Settings(queue_name=QUEUE), "leader")
    leader.run_once()
    with record.runtime.engine.connect() as connection:
        version = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        leader.run_once()
        assert connection.exec_driver_sql("PRAGMA data_version").scalar_one() == version


def contended() -> UnavailableError:
    error = UnavailableError("a lock that somebody keeps")
    error.contended = True
    return error


@pytest.mark.parametrize(
    "fault", [ValueError("a row of this queue"), contended(), UnavailableError("a shard")]
)
def test_a_fault_of_one_queue_keeps_no_other_from_its_repair(
    record: Record, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    both = Reconciler(record.runtime, Settings(queues=f"broken,{QUEUE}"), "owner")
    is_intact = record.backend.is_intact

    def fail(queue: str) -> bool:
        if queue == "broken":
            raise fault
        return is_intact(queue)

    monkeypatch.setattr(record.backend, "is_intact", fail)
    with pytest.raises(type(fault), match="a "):
        both.run_once()
    assert is_intact(QUEUE)
