"""Tests of compare and list_tasks: what was forged in the index is found by what the record says."""

from __future__ import annotations

import time
from uuid import UUID

import pytest

from agentexec.policy import MAX_EPOCH_LEAD
from agentexec.state.backend import Comparison, StateBackend
from agentexec.task import Entry, Lease, Priority, new_agent_id
from agentexec.testing.backend_suite.operations import LONG_LEASE, claim, ids, push

YEARS = 1e8
"""Seconds that no lease and no leadership lasts."""


class ForgeryTests:
    """Tests of compare, list_tasks, and of leaderships that last too long."""

    def test_entries_as_the_record_has_them_are_right(self, backend: StateBackend, queue: str) -> None:
        later = time.time() + 3600
        ready, delayed, leased, again, left = (new_agent_id() for _ in range(5))
        backend.push(queue, [Entry(leased, epoch=7), Entry(again), Entry(left)])
        first, second, third = claim(backend, queue, 3)
        assert ids([first, second, third]) == [leased, again, left]
        backend.release(queue, second)
        backend.release(queue, third, delay=LONG_LEASE)
        backend.push(queue, [Entry(ready, Priority.HIGH, epoch=3), Entry(delayed, run_at=later)])
        recorded = [
            Entry(ready, Priority.HIGH, epoch=3),
            Entry(delayed, run_at=later),
            Entry(leased, epoch=7),
            Entry(again),
            Entry(left),
        ]
        assert backend.compare(queue, recorded, LONG_LEASE) == Comparison([], [])
        unknown = new_agent_id()
        assert backend.compare(queue, [*recorded, Entry(unknown)], LONG_LEASE) == Comparison([unknown], [])

    @pytest.mark.parametrize(
        ("forged", "recorded_epoch"),
        [
            ({"run_at": YEARS}, 0),
            ({"epoch": 2**31 - 3}, 0),
            ({"epoch": MAX_EPOCH_LEAD}, 0),
            ({"epoch": 0}, 5),
        ],
        ids=["delay", "last epoch", "epoch ahead", "old epoch"],
    )
    def test_an_entry_that_the_record_contradicts_is_wrong(
        self, backend: StateBackend, queue: str, forged: dict[str, float], recorded_epoch: int
    ) -> None:
        agent_id = new_agent_id()
        run_at = time.time() + forged["run_at"] if "run_at" in forged else 0.0
        backend.push(queue, [Entry(agent_id, run_at=run_at, epoch=int(forged.get("epoch", 0)))])
        self.assert_replaced(backend, queue, Entry(agent_id, epoch=recorded_epoch))

    def test_a_lease_that_is_too_long_is_wrong(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue, seconds=YEARS)
        assert backend.compare(queue, [Entry(lease.agent_id)], YEARS) == Comparison([], [])
        self.assert_replaced(backend, queue, Entry(lease.agent_id))

    def test_a_task_on_another_queue_can_be_put_on_its_own(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.push(f"{queue}-other", [Entry(agent_id)])
        found = backend.compare(queue, [Entry(agent_id)], LONG_LEASE)
        assert [*found.missing, *found.wrong] == [agent_id]
        backend.remove(queue, found.wrong)
        backend.push(queue, [Entry(agent_id)])
        assert claim(backend, queue) == [Lease(agent_id, 1)]

    def test_every_task_is_listed(self, backend: StateBackend, queue: str) -> None:
        assert self.listed(backend, queue) == set()
        pushed = push(backend, queue, 1_300)
        delayed, restored = new_agent_id(), new_agent_id()
        backend.push(queue, [Entry(delayed, run_at=time.time() + YEARS)])
        backend.restore(queue, [Entry(restored, epoch=1)], YEARS)
        backend.push(f"{queue}-other", [Entry(new_agent_id())])
        claim(backend, queue, 5)
        assert self.listed(backend, queue) == {*pushed, delayed, restored}
        backend.remove(queue, [restored])
        assert self.listed(backend, queue) == {*pushed, delayed}
        assert backend.list_tasks(queue, "no cursor").agent_ids

    def test_a_leadership_that_lasts_too_long_holds_nobody_off(
        self, backend: StateBackend, name: str
    ) -> None:
        assert backend.acquire_leadership(name, "forged", YEARS)
        assert backend.acquire_leadership(name, "me", LONG_LEASE)
        assert not backend.acquire_leadership(name, "other", LONG_LEASE)

    @staticmethod
    def listed(backend: StateBackend, queue: str) -> set[UUID]:
        """Return all tasks that a backend lists."""
        found: set[UUID] = set()
        page = backend.list_tasks(queue, "")
        found.update(page.agent_ids)
        while page.cursor:
            page = backend.list_tasks(queue, page.cursor)
            found.update(page.agent_ids)
        return found

    @staticmethod
    def assert_replaced(backend: StateBackend, queue: str, recorded: Entry) -> None:
        """Fail unless a task is wrong, and can be claimed after the reconciler's repair."""
        assert backend.compare(queue, [recorded], LONG_LEASE) == Comparison([], [recorded.agent_id])
        backend.remove(queue, [recorded.agent_id])
        backend.push(queue, [recorded])
        assert backend.compare(queue, [recorded], LONG_LEASE) == Comparison([], [])
        assert claim(backend, queue) == [Lease(recorded.agent_id, recorded.epoch + 1)]
