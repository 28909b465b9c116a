"""Leases are renewed together; a lease that is lost stops its task, unless only the index has forgotten it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from uuid import UUID

import pytest

from agentexec.config import Settings
from agentexec.task import Lease, Status
from agentexec.worker.lease_renewal import LeaseRenewer
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
        held = Held()
        held.tasks.add(self.leases)
        self.lost: list[UUID] = []
        self.renewer = LeaseRenewer(
            record.runtime, Settings(queue_name=QUEUE), "worker", held.tasks, on_lost=self.lost.append
        )


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


def test_tasks_that_an_emptied_index_has_forgotten_are_restored(renewal: Renewal) -> None:
    backend = renewal.record.backend
    backend.remove(QUEUE, renewal.tasks)
    renewal.renewer.renew()
    assert renewal.lost == []
    assert backend.depth(QUEUE).leased == 2
