"""The tasks of dead workers run again, but an outage of a server is not a death."""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path

import pytest

from agentexec.config import Settings
from agentexec.task import Entry, Status
from agentexec.worker.lease_recovery import LeaseRecovery
from tests.unit.worker.record import QUEUE, Record, open_record

LEASE = 20.0


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


def recovery(record: Record) -> LeaseRecovery:
    return LeaseRecovery(record.runtime, Settings(queue_name=QUEUE, lease_seconds=LEASE, max_crashes=3))


def let_leases_expire(record: Record) -> None:
    record.backend.renew(QUEUE, "worker", record.backend.worker_leases(QUEUE, "worker"), -1.0)


def test_a_task_whose_lease_has_expired_is_queued_again(record: Record) -> None:
    [task] = record.start(1)
    returns = recovery(record)
    returns.return_expired(0.0)
    assert record.statuses([task]) == [Status.RUNNING]
    let_leases_expire(record)
    returns.return_expired(1.0)
    assert record.statuses([task]) == [Status.QUEUED]
    assert record.backend.depth(QUEUE).ready == 1


def test_after_an_outage_no_lease_expires_for_one_lease(record: Record) -> None:
    [task] = record.start(1)
    returns = recovery(record)
    returns.return_expired(0.0)
    let_leases_expire(record)
    for second in range(int(LEASE)):
        returns.return_expired(100.0 + second)
        assert record.statuses([task]) == [Status.RUNNING]
    returns.return_expired(100.0 + LEASE)
    assert record.statuses([task]) == [Status.QUEUED]


def test_the_tasks_of_a_dead_worker_are_returned_before_their_leases_expire(record: Record) -> None:
    tasks = record.start(2)
    assert recovery(record).recover("worker", "was killed by SIGKILL") == 2
    assert record.statuses(tasks) == [Status.QUEUED] * 2
    assert recovery(record).recover("worker", "was killed by SIGKILL") == 0


def test_a_crash_is_counted_only_for_its_culprit_if_that_is_known(record: Record) -> None:
    tasks = record.start(2)
    for task in tasks:
        record.change(task, crashes=2, crashes_in_row=2)
    assert recovery(record).recover("worker", "was killed because it hung", tasks[1]) == 2
    assert record.statuses(tasks) == [Status.QUEUED, Status.ERROR]


def test_a_task_that_crashed_too_often_ends(record: Record) -> None:
    [task] = record.start(1)
    record.change(task, crashes=2, crashes_in_row=2)
    record.backend.watch(QUEUE, [task], "caller")
    recovery(record).recover("worker", "was killed by SIGKILL")
    assert record.statuses([task]) == [Status.ERROR]
    assert record.backend.unknown_tasks(QUEUE, [task]) == [task]
    assert record.backend.receive("caller", 0) == [f"done {task}"]


def test_each_task_that_ends_by_crashes_is_one_error_line(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = record.start(2)
    record.change(first, crashes=2, crashes_in_row=2)
    record.change(second, crashes=4, crashes_in_row=2)
    recovery(record).recover("worker", "was killed by SIGKILL")
    errors = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR]
    death = "The worker process was killed by SIGKILL while it ran this task, for the 3rd time"
    assert sorted(errors) == sorted(
        [
            f"Task work {first} failed: {death}; it is not tried again.",
            f"Task work {second} failed: {death} since its last recorded step (5 times in all); it is not tried again.",
        ]
    )


def test_a_task_that_returns_to_the_queue_is_no_error(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    record.start(2)
    recovery(record).recover("worker", "was killed by SIGKILL")
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]


def test_forged_leases_end_no_task_and_count_no_crash(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    """A lease in another queue's index, or under an epoch that the record cannot have, is not one of the task."""
    foreign, ahead, real = record.start(3)
    record.change(foreign, queue="other", crashes=2, crashes_in_row=2)
    record.backend.remove(QUEUE, [ahead])
    record.backend.restore(QUEUE, [Entry(ahead, epoch=2**31 - 2)], -1.0)
    record.backend.watch(QUEUE, [foreign], "caller")
    let_leases_expire(record)
    recovery(record).return_expired(0.0)
    assert record.statuses([foreign, ahead, real]) == [Status.RUNNING, Status.RUNNING, Status.QUEUED]
    assert record.backend.unknown_tasks(QUEUE, [foreign, ahead, real]) == [foreign, ahead]
    assert record.backend.receive("caller", 0) == [], "nobody is told that it has ended"
    assert sum("Dropped 2 lease(s)" in message for message in caplog.messages) == 1
