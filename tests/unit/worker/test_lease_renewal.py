"""Leases are renewed together; a lease that is lost stops its task, unless only the index has forgotten it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agentexec.activity.changes.endings import Ending
from agentexec.config import Settings
from agentexec.errors import LeaseLostError, UnavailableError
from agentexec.task import Entry, Lease, Status
from agentexec.worker.lease_clock import Instant, present
from agentexec.worker.lease_renewal import CERTAIN_SHARE, LeaseRenewer
from agentexec.worker.settlement import Settlement
from tests.unit.worker.parts import Held
from tests.unit.worker.record import QUEUE, Record, open_record


class Renewal:
    """A renewer of two running tasks."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.tasks = record.enqueue(2)
        self.leases = record.claim()
        for lease in self.leases:
            record.change(lease.agent_id, status=Status.RUNNING, epoch=lease.epoch)
        self.held = held = Held(queue=QUEUE)
        held.tasks.add(self.leases)
        self.lost: list[UUID] = []
        self.was_seen = True
        self.renewer = LeaseRenewer(
            record.runtime,
            Settings(queue_name=QUEUE),
            "worker",
            held.tasks,
            on_lost=self.lost.append,
            was_seen_since=lambda _moment, _now: self.was_seen,
        )

    def freeze(self, seconds: float = 60.0, wall: float | None = None) -> None:
        """Let time pass since the last renewal, of which the wall clock may see another length."""
        now, wall = present(), seconds if wall is None else wall
        self.held.tasks.note_renewed(self.leases, Instant(now.running - seconds, now.wall - wall))


@pytest.fixture
def renewal(tmp_path: Path) -> Generator[Renewal]:
    with open_record(tmp_path) as record:
        yield Renewal(record)


def test_a_lease_that_is_renewed_does_not_expire(renewal: Renewal) -> None:
    backend = renewal.record.backend
    for lease in renewal.leases:
        backend.renew(QUEUE, "worker", [lease], -1.0)
    assert len(backend.expired_leases(QUEUE, 10)) == 2
    renewal.renewer.renew()
    assert backend.expired_leases(QUEUE, 10) == []
    assert renewal.lost == []


def test_a_task_that_another_worker_has_claimed_is_lost(renewal: Renewal) -> None:
    backend = renewal.record.backend
    taken = renewal.leases[0]
    backend.release(QUEUE, taken)
    assert renewal.record.claim() == [Lease(taken.agent_id, taken.epoch + 1)]
    renewal.renewer.renew()
    assert renewal.lost == [taken.agent_id]


def test_a_canceled_task_is_lost(renewal: Renewal) -> None:
    canceled = renewal.tasks[0]
    renewal.record.change(canceled, status=Status.CANCELED)
    renewal.record.backend.remove(QUEUE, [canceled])
    renewal.renewer.renew()
    assert renewal.lost == [canceled]


def test_a_renewal_that_has_begun_does_not_take_up_a_task_that_goes_back_to_the_queue(
    renewal: Renewal, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, [given_back, _] = renewal.record.backend, renewal.leases
    settlement = Settlement(renewal.record.runtime, renewal.held.tasks)
    ending = Ending(given_back, Status.QUEUED, "")
    settling = threading.Thread(target=settlement.settle, args=([ending], []))
    renew = backend.renew

    def renew_late(*arguments: Any) -> Any:
        settling.start()
        settling.join(0.3)  # it waits for this renewal
        return renew(*arguments)

    monkeypatch.setattr(backend, "renew", renew_late)
    renewal.renewer.renew()
    settling.join()
    depth = backend.depth(QUEUE)
    assert (depth.ready, depth.leased) == (1, 1)
    assert renewal.lost == []


def test_tasks_that_an_emptied_index_has_forgotten_are_restored(renewal: Renewal) -> None:
    backend = renewal.record.backend
    backend.remove(QUEUE, renewal.tasks)
    renewal.renewer.renew()
    assert renewal.lost == []
    assert backend.depth(QUEUE).leased == 2


def test_a_lease_is_certain_until_a_part_of_it_has_passed_since_its_claim_or_renewal(
    renewal: Renewal,
) -> None:
    renewer, lease = renewal.renewer, renewal.leases[0]
    assert renewer.is_certain(lease)
    assert not renewer.is_certain(Lease(lease.agent_id, lease.epoch + 1))
    limit = Settings().lease_seconds * CERTAIN_SHARE
    renewal.freeze(limit - 5)
    assert renewer.is_certain(lease)
    for pause in ({"seconds": limit}, {"seconds": 0.0, "wall": limit}, {"seconds": limit, "wall": -3600.0}):
        renewal.freeze(**pause)
        assert not renewer.is_certain(lease), pause
        renewer.renew()
        assert renewer.is_certain(lease), pause
    renewal.was_seen = False
    assert not renewer.is_certain(lease), "others may have taken this host for dead"
    renewal.was_seen = True
    renewal.held.tasks.settle([lease.agent_id])
    assert not renewer.is_certain(lease)


def test_a_process_that_slept_through_its_lease_keeps_the_tasks_that_nobody_took(renewal: Renewal) -> None:
    backend, lease = renewal.record.backend, renewal.leases[0]
    backend.renew(QUEUE, "worker", renewal.leases, -1.0)
    renewal.freeze()
    renewal.renewer.confirm(lease)
    assert backend.expired_leases(QUEUE, 10) == [], "now nobody can take them"
    assert all(renewal.renewer.is_certain(lease) for lease in renewal.leases)


def test_a_process_that_slept_through_its_lease_loses_the_tasks_that_others_took(renewal: Renewal) -> None:
    backend, [taken, canceled] = renewal.record.backend, renewal.leases
    backend.release(QUEUE, taken)
    [next_lease] = renewal.record.claim()
    renewal.record.change(taken.agent_id, epoch=next_lease.epoch)
    renewal.record.change(canceled.agent_id, status=Status.CANCELED)
    renewal.freeze()
    for lease in (taken, canceled):
        with pytest.raises(LeaseLostError):
            renewal.renewer.confirm(lease)
    assert renewal.lost == [taken.agent_id]
    assert not renewal.renewer.is_certain(taken)


def test_the_leases_of_one_queue_are_renewed_while_the_server_of_another_is_away(
    renewal: Renewal, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, leases = renewal.record.backend, renewal.leases
    renew = backend.renew

    def fail(queue: str, *arguments: Any) -> Any:
        if queue == "away":
            raise UnavailableError("Its shard is away.")
        return renew(queue, *arguments)

    monkeypatch.setattr(backend, "renew", fail)
    monkeypatch.setattr(renewal.held.tasks, "by_queue", lambda _: [("away", leases[:1]), (QUEUE, leases[1:])])
    renewal.freeze()
    with pytest.raises(UnavailableError):
        renewal.renewer.renew()
    assert [renewal.renewer.is_certain(lease) for lease in leases] == [False, True]


def test_the_record_decides_alone_while_the_state_backend_is_away(
    renewal: Renewal, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, taken = renewal.leases
    renewal.record.change(taken.agent_id, epoch=taken.epoch + 1)
    tries = 0

    def renew(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise UnavailableError("Redis is away.")

    monkeypatch.setattr(renewal.record.backend, "renew", renew)
    renewal.freeze()
    for _ in range(3):
        renewal.renewer.confirm(mine)
        with pytest.raises(LeaseLostError):
            renewal.renewer.confirm(taken)
    assert tries == 1, "not every call waits until Redis does not answer"


def test_leases_of_several_queues_are_renewed_and_restored_in_their_own(renewal: Renewal) -> None:
    backend = renewal.record.backend
    [other] = renewal.record.enqueue(1)
    backend.remove(QUEUE, [other])
    backend.push("other", [Entry(other)])
    [lease] = backend.claim("other", "worker", limit=1, low_quota=0, lease_seconds=-1.0).leases
    renewal.record.change(other, status=Status.RUNNING, epoch=lease.epoch)
    renewal.held.tasks.add([lease], queue="other")
    renewal.renewer.renew()
    assert backend.expired_leases("other", 10) == []
    backend.flush()
    renewal.renewer.renew()
    assert (backend.depth(QUEUE).leased, backend.depth("other").leased) == (2, 1)
