"""Claimed tasks start if the record agrees; all others are acknowledged, held or given back."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agentexec.activity.changes.admissions import Admitted
from agentexec.activity.changes.unknown_tasks import MAX_UNKNOWN_SECONDS, left_message
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.errors import UnavailableError
from agentexec.task import Entry, Lease, Status, new_agent_id
from agentexec.worker.admission import Admitter
from tests.unit.worker.parts import MAX_CRASHES, Held
from tests.unit.worker.record import QUEUE, Record, open_record


class FakeWriter:
    """Keeps the leases that it is told of."""

    def __init__(self) -> None:
        self.leases: list[Lease] = []

    def hold(self, leases: Iterable[Lease]) -> None:
        self.leases.extend(leases)


class FakePublisher:
    """Ignores what it is told."""

    def notify_log_changed(self, agent_ids: Sequence[Any]) -> None:
        pass


class Admission:
    """An admitter on a record, with everything around it."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.held = Held(slots=100, queue=QUEUE)
        self.writer = FakeWriter()
        self.started: list[Admitted] = []
        self.stopping = False
        self.admitter = Admitter(
            record.runtime,
            Settings(queue_name=QUEUE, max_crashes=MAX_CRASHES),
            self.held.tasks,
            self.held.suspects,
            cast(Any, self.writer),
            cast(Any, FakePublisher()),
            begin=self.started.extend,
            stopping=lambda: self.stopping,
        )

    def claim(self) -> list[Lease]:
        leases = self.record.claim()
        self.held.slots.acquire(len(leases))
        self.held.tasks.add(leases)
        return leases

    def claim_and_admit(self) -> None:
        self.admitter.admit([*self.admitter.take_startable(), *self.claim()])

    @property
    def started_ids(self) -> list[Any]:
        return [admitted.lease.agent_id for admitted in self.started]


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


@pytest.fixture
def admission(record: Record) -> Admission:
    return Admission(record)


def test_claimed_tasks_are_running_in_the_record_before_they_start(admission: Admission) -> None:
    tasks = admission.record.enqueue(3)
    statuses: list[Status] = []

    def look(started: Sequence[Admitted]) -> None:
        statuses.extend(admission.record.statuses([admitted.lease.agent_id for admitted in started]))

    admission.admitter._begin = look
    admission.claim_and_admit()
    assert statuses == [Status.RUNNING] * 3
    assert {lease.agent_id for lease in admission.writer.leases} == set(tasks)
    assert admission.held.free_slots == 97


def claim_within(admission: Admission, leases: Sequence[Lease]) -> None:
    """Start claimed tasks in a transaction, as a claim on SQLite alone does."""
    with writing(admission.record.runtime.engine) as connection:
        admission.admitter.start_within(QUEUE, connection, leases)


def test_tasks_that_start_within_their_claim_begin_after_its_commit(admission: Admission) -> None:
    ended, *others = admission.record.enqueue(3)
    admission.record.change(ended, status=Status.COMPLETE)
    leases = admission.claim()
    claim_within(admission, leases)
    assert admission.record.statuses([ended, *others]) == [Status.COMPLETE, Status.RUNNING, Status.RUNNING]
    assert admission.started == []
    admission.admitter.admit(leases)
    assert admission.started_ids == others
    assert admission.held.tasks.all() == [lease for lease in leases if lease.agent_id != ended]


def test_a_start_that_was_rolled_back_with_its_claim_is_forgotten(admission: Admission) -> None:
    [canceled, *_] = tasks = admission.record.enqueue(2)
    leases = admission.claim()
    with pytest.raises(KeyError), writing(admission.record.runtime.engine) as connection:
        admission.admitter.start_within(QUEUE, connection, leases)
        raise KeyError
    assert admission.record.statuses(tasks) == [Status.QUEUED] * 2
    admission.record.change(canceled, status=Status.CANCELED)
    claim_within(admission, leases)
    admission.admitter.admit(leases)
    assert admission.started_ids == tasks[1:]


def test_a_task_that_has_ended_is_acknowledged(admission: Admission) -> None:
    ended, other = admission.record.enqueue(2)
    admission.record.change(ended, status=Status.COMPLETE)
    admission.record.backend.watch(QUEUE, [ended], "caller")
    admission.claim_and_admit()
    assert admission.started_ids == [other]
    assert admission.record.backend.unknown_tasks(QUEUE, [ended, other]) == [ended]
    assert admission.record.backend.receive("caller", 0) == [f"done {ended}"]
    assert admission.held.free_slots == 99


def test_a_task_with_a_newer_epoch_is_left_alone(admission: Admission) -> None:
    [taken] = admission.record.enqueue(1)
    admission.record.change(taken, epoch=5, status=Status.RUNNING)
    admission.claim_and_admit()
    assert admission.started == []
    assert admission.record.backend.unknown_tasks(QUEUE, [taken]) == []
    assert (admission.held.tasks.all(), admission.held.free_slots) == ([], 100)


def test_one_suspect_starts_and_the_others_are_held_until_it_ends(admission: Admission) -> None:
    suspects = admission.record.enqueue(3)
    for agent_id in suspects:
        admission.record.change(agent_id, crashes=2, crashes_in_row=2)
    admission.claim_and_admit()
    for number in (1, 2, 3):
        assert len(admission.started) == number
        assert admission.admitter.holds_tasks == (number < 3)
        assert not admission.admitter.startable
        admission.held.tasks.forget(admission.started[-1].lease.agent_id)
        admission.claim_and_admit()
    assert set(admission.started_ids) == set(suspects)


def test_a_poison_task_ends_without_a_start(admission: Admission) -> None:
    [poison] = admission.record.enqueue(1)
    admission.record.change(poison, status=Status.RUNNING, crashes=2, crashes_in_row=2)
    admission.claim_and_admit()
    assert admission.started == []
    assert admission.record.statuses([poison]) == [Status.ERROR]
    assert admission.record.backend.unknown_tasks(QUEUE, [poison]) == [poison]


def test_each_task_that_ends_without_a_start_is_one_error_line(
    admission: Admission, caplog: pytest.LogCaptureFixture
) -> None:
    poison, unknown = admission.record.enqueue(2)
    admission.record.change(poison, status=Status.RUNNING, crashes=2, crashes_in_row=2)
    admission.record.change(
        unknown,
        agent_type="removed",
        message=left_message("removed"),
        updated_at=utc_now() - timedelta(seconds=MAX_UNKNOWN_SECONDS),
    )
    admission.admitter._task_names = lambda: ["work"]
    admission.claim_and_admit()
    assert admission.record.statuses([poison, unknown]) == [Status.ERROR] * 2
    errors = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR]
    assert sorted(errors) == sorted(
        [
            f"Task work {poison} failed: The worker process died without a word while it ran this task, "
            "for the 3rd time; it is not tried again.",
            f"Task removed {unknown} failed: no worker had a task named removed for 10 minutes; "
            "the tasks of the workers on its queue are work",
        ]
    )


def test_held_tasks_go_back_to_the_queue_at_the_end(admission: Admission) -> None:
    for agent_id in admission.record.enqueue(2):
        admission.record.change(agent_id, crashes=2, crashes_in_row=2)
    admission.claim_and_admit()
    admission.admitter.release_held()
    assert not admission.admitter.holds_tasks
    assert admission.record.backend.depth(QUEUE).ready == 1
    assert admission.held.tasks.all() == [admission.started[0].lease]


def test_what_is_not_admitted_when_the_process_drains_goes_back_to_the_queue(admission: Admission) -> None:
    admission.record.enqueue(2)
    leases = admission.claim()
    admission.stopping = True
    admission.admitter.admit(leases)
    assert admission.started == []
    assert admission.record.backend.depth(QUEUE).ready == 2
    assert admission.held.free_slots == 100


def test_while_the_database_is_away_claimed_tasks_wait(
    admission: Admission, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agentexec.worker.admission.RETRY_WAIT", 0.0)
    tasks = admission.record.enqueue(2)
    errors = [UnavailableError("The database is away.") for _ in range(3)]
    admit = admission.admitter._admit_in_record

    def fail_first(queue: str | None, leases: Sequence[Lease]) -> Any:
        if errors:
            raise errors.pop()
        return admit(queue, leases)

    monkeypatch.setattr(admission.admitter, "_admit_in_record", fail_first)
    with caplog.at_level(logging.ERROR):
        admission.claim_and_admit()
    assert set(admission.started_ids) == set(tasks)
    assert len(caplog.records) == 1, "an outage is logged once"


def test_a_task_that_cannot_be_admitted_does_not_keep_the_others_from_starting(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = admission.record.enqueue(4)
    broken = tasks[1]
    admit = admission.admitter._admit_in_record

    def fail(queue: str | None, leases: Sequence[Lease]) -> Any:
        if broken in [lease.agent_id for lease in leases]:
            raise ValueError("not a status")
        return admit(queue, leases)

    monkeypatch.setattr(admission.admitter, "_admit_in_record", fail)
    admission.claim_and_admit()
    assert set(admission.started_ids) == {*tasks} - {broken}
    assert admission.record.backend.unknown_tasks(QUEUE, tasks) == [broken]
    assert admission.held.free_slots == 97


def test_a_task_that_the_record_does_not_know_is_acknowledged(admission: Admission) -> None:
    forged = new_agent_id()
    admission.record.backend.push(QUEUE, [Entry(forged)])
    admission.claim_and_admit()
    assert admission.started == []
    assert admission.record.backend.unknown_tasks(QUEUE, [forged]) == [forged]


def test_another_queues_task_and_an_epoch_far_ahead_start_nothing(
    admission: Admission, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can write to the queue can forge its entries: the record decides."""
    foreign, ended, ahead, mine, alone = admission.record.enqueue(5)
    admission.record.change(foreign, queue="other", status=Status.RUNNING, epoch=0)
    admission.record.change(ended, queue="other", status=Status.COMPLETE)
    admission.record.change(alone, queue=None)
    admission.record.backend.remove(QUEUE, [ahead])
    admission.record.backend.push(QUEUE, [Entry(ahead, epoch=2**31 - 3)])
    admission.claim_and_admit()
    assert admission.started_ids == [mine]
    assert admission.record.statuses([foreign, ended, ahead]) == [
        Status.RUNNING,
        Status.COMPLETE,
        Status.QUEUED,
    ]
    gone = [foreign, ended, ahead, alone]
    assert admission.record.backend.unknown_tasks(QUEUE, gone) == gone
    assert (admission.held.free_slots, [lease.agent_id for lease in admission.held.tasks.all()]) == (
        99,
        [mine],
    )
    [line] = [record.message for record in caplog.records]
    assert "Dropped 4 entry(ies)" in line
    admission.record.backend.push(QUEUE, [Entry(ahead)])
    admission.claim_and_admit()
    assert admission.started_ids == [mine, ahead]


def test_tasks_of_several_queues_start_together_and_each_only_in_its_own(admission: Admission) -> None:
    [mine, other, misplaced] = admission.record.enqueue(3)
    admission.record.change(other, queue="other")
    admission.record.backend.remove(QUEUE, [other, misplaced])
    admission.record.backend.push("other", [Entry(other), Entry(misplaced)])
    leases = admission.record.backend.claim("other", "w", limit=2, low_quota=0, lease_seconds=60).leases
    admission.held.slots.acquire(2)
    admission.held.tasks.add(leases, queue="other")
    admission.admitter.admit([*leases, *admission.claim()])
    assert {*admission.started_ids} == {mine, other}
    assert admission.record.backend.unknown_tasks("other", [other, misplaced]) == [misplaced]


def test_held_tasks_of_a_paused_queue_go_back_to_it(admission: Admission) -> None:
    for agent_id in admission.record.enqueue(2):
        admission.record.change(agent_id, crashes=2, crashes_in_row=2)
    admission.claim_and_admit()
    assert admission.admitter.holds_tasks
    admission.held.tasks.forget(admission.started[0].lease.agent_id)
    assert admission.admitter.take_startable(frozenset({QUEUE})) == []
    assert not admission.admitter.holds_tasks
    assert admission.record.backend.depth(QUEUE).ready == 1
