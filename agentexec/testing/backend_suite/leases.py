"""Tests of leases: their holder may do everything, a worker that lost one nothing."""

from __future__ import annotations

import time

import pytest

from agentexec.state.backend import Depth, LostLeases, StateBackend
from agentexec.task import Entry, Lease, Priority, new_agent_id
from agentexec.testing.backend_suite.operations import (
    LONG_LEASE,
    SHORT_LEASE,
    claim,
    ids,
    push,
    wait_until,
)


class LeaseTests:
    """Tests of renew, expired_leases, finish, release, restore and remove."""

    def test_a_renewed_lease_does_not_expire(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 2)
        kept, left = claim(backend, queue, 2, seconds=LONG_LEASE)
        assert backend.expired_leases(queue, 10) == []
        assert backend.renew(queue, "worker", [kept, left], SHORT_LEASE) == LostLeases([], [])
        assert backend.renew(queue, "worker", [kept], LONG_LEASE) == LostLeases([], [])
        assert wait_until(lambda: backend.expired_leases(queue, 10)) == [left]
        assert backend.expired_leases(queue, 10) == [left], "looking at expired leases must change nothing"

    def test_expired_leases_come_oldest_first(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 3)
        second, third, first = claim(backend, queue, 3)
        # The order is certain however long a call takes.
        for lease, seconds in ((first, 0.05), (second, 0.1), (third, 0.15)):
            assert backend.renew(queue, "worker", [lease], seconds) == LostLeases([], [])
        wait_until(lambda: len(backend.expired_leases(queue, 10)) == 3)
        assert backend.expired_leases(queue, 10) == [first, second, third]
        assert backend.expired_leases(queue, 2) == [first, second]

    def test_an_inspection_tells_what_the_single_calls_tell(self, backend: StateBackend, queue: str) -> None:
        inspect = getattr(backend, "inspect", None)  # a backend need not have it
        push(backend, queue, 2)
        leases = claim(backend, queue, 2)
        if inspect is not None:
            assert inspect(queue, 10) == (False, [])
        for lease, seconds in zip(leases, (0.05, 0.1), strict=True):
            assert backend.renew(queue, "worker", [lease], seconds) == LostLeases([], [])
        wait_until(lambda: len(backend.expired_leases(queue, 10)) == 2)
        backend.mark_intact(queue)
        if inspect is not None:
            assert (inspect(queue, 10), inspect(queue, 1)) == ((True, leases), (True, leases[:1]))

    def test_an_expired_task_is_not_claimed_before_it_is_released(
        self, backend: StateBackend, queue: str
    ) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue, seconds=SHORT_LEASE)
        wait_until(lambda: backend.expired_leases(queue, 10))
        assert claim(backend, queue) == []
        assert backend.release(queue, lease)
        assert backend.expired_leases(queue, 10) == []
        assert claim(backend, queue) == [Lease(lease.agent_id, 2)]

    def test_an_expired_lease_can_be_renewed(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        leases = claim(backend, queue, seconds=SHORT_LEASE)
        wait_until(lambda: backend.expired_leases(queue, 10))
        assert backend.renew(queue, "worker", leases, LONG_LEASE) == LostLeases([], [])
        assert backend.expired_leases(queue, 10) == []
        assert backend.worker_leases(queue, "worker") == leases

    @pytest.mark.parametrize("delay", [0.0, LONG_LEASE])
    def test_a_lease_that_was_given_back_but_not_claimed_can_be_renewed(
        self, backend: StateBackend, queue: str, delay: float
    ) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue, seconds=SHORT_LEASE)
        wait_until(lambda: backend.expired_leases(queue, 10))
        assert backend.release(queue, lease, delay=delay)
        assert backend.renew(queue, "worker", [lease], LONG_LEASE) == LostLeases([], [])
        assert claim(backend, queue) == [], "a task with a live lease must not be claimed"
        assert backend.depth(queue) == Depth(ready=0, delayed=0, leased=1)
        assert backend.worker_leases(queue, "worker") == [lease]
        assert backend.release(queue, lease)
        assert claim(backend, queue) == [Lease(lease.agent_id, 2)]

    def test_a_renewal_reports_lost_leases(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 4)
        kept, taken, finished, removed = claim(backend, queue, 4)
        assert backend.release(queue, taken)
        assert claim(backend, queue, worker="other") == [Lease(taken.agent_id, 2)]
        backend.finish(queue, [finished])
        backend.remove(queue, [removed.agent_id])
        lost = backend.renew(queue, "worker", [kept, taken, finished, removed], LONG_LEASE)
        assert lost.taken == [taken.agent_id]
        assert sorted(lost.missing) == sorted([finished.agent_id, removed.agent_id])

    def test_a_zombie_can_do_nothing(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        [old] = claim(backend, queue, worker="zombie", seconds=SHORT_LEASE)
        wait_until(lambda: backend.expired_leases(queue, 10))
        assert backend.release(queue, old)
        [new] = claim(backend, queue, worker="successor")
        assert backend.renew(queue, "zombie", [old], LONG_LEASE) == LostLeases([old.agent_id], [])
        assert not backend.release(queue, old)
        backend.finish(queue, [old])
        assert backend.worker_leases(queue, "successor") == [new]
        assert backend.worker_leases(queue, "zombie") == []
        assert backend.renew(queue, "successor", [new], LONG_LEASE) == LostLeases([], [])

    def test_leases_are_listed_by_worker(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 5)
        mine = claim(backend, queue, 3, worker="mine")
        other = claim(backend, queue, 1, worker="mine-not")
        assert sorted(backend.worker_leases(queue, "mine")) == sorted(mine)
        assert backend.worker_leases(queue, "mine-not") == other
        assert backend.worker_leases(queue, "nobody") == []
        backend.finish(queue, mine[:1])
        assert sorted(backend.worker_leases(queue, "mine")) == sorted(mine[1:])

    def test_a_finished_task_is_forgotten(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 2)
        done, other = claim(backend, queue, 2)
        backend.finish(queue, [done])
        assert backend.unknown_tasks(queue, [done.agent_id, other.agent_id]) == [done.agent_id]
        assert backend.depth(queue) == Depth(ready=0, delayed=0, leased=1)
        backend.finish(queue, [done])
        assert not backend.release(queue, done)

    def test_a_task_that_was_given_back_but_not_claimed_can_be_finished(
        self, backend: StateBackend, queue: str
    ) -> None:
        push(backend, queue, 2)
        ready, delayed = claim(backend, queue, 2)
        assert backend.release(queue, ready)
        assert backend.release(queue, delayed, delay=LONG_LEASE)
        backend.finish(queue, [ready, delayed])
        assert claim(backend, queue, 10) == []
        assert backend.depth(queue) == Depth(0, 0, 0)

    def test_released_tasks_go_to_the_front(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 4)
        first, second = claim(backend, queue, 2)
        assert backend.release(queue, second)
        assert backend.release(queue, first)
        assert ids(claim(backend, queue, 10)) == pushed

    def test_a_released_task_keeps_its_priority(self, backend: StateBackend, queue: str) -> None:
        [low] = push(backend, queue, 1, Priority.LOW)
        [lease] = claim(backend, queue)
        [high] = push(backend, queue, 1, Priority.HIGH)
        assert backend.release(queue, lease)
        assert ids(claim(backend, queue, 2)) == [high, low]

    def test_a_task_is_released_once(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue)
        assert backend.release(queue, lease)
        assert not backend.release(queue, lease)
        assert not backend.release(queue, lease, delay=LONG_LEASE)
        assert backend.depth(queue) == Depth(ready=1, delayed=0, leased=0)
        assert not backend.release(queue, Lease(new_agent_id(), 1))

    def test_a_task_can_be_released_for_later(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue)
        assert backend.release(queue, lease, delay=LONG_LEASE)
        assert backend.depth(queue) == Depth(ready=0, delayed=1, leased=0)
        claimed = backend.claim(queue, "worker", limit=1, low_quota=0, lease_seconds=LONG_LEASE)
        assert claimed.leases == []
        assert claimed.next_due is not None
        assert claimed.next_due <= LONG_LEASE + 0.05
        push(backend, queue, 1)
        [other] = claim(backend, queue)
        assert backend.release(queue, other, delay=SHORT_LEASE)
        assert wait_until(lambda: claim(backend, queue)) == [Lease(other.agent_id, 2)]

    def test_a_restored_task_waits_for_its_worker(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.restore(queue, [Entry(agent_id, epoch=3)], LONG_LEASE)
        assert claim(backend, queue) == []
        assert backend.depth(queue) == Depth(ready=0, delayed=0, leased=1)
        assert backend.renew(queue, "worker", [Lease(agent_id, 2)], LONG_LEASE) == LostLeases([agent_id], [])
        assert backend.renew(queue, "worker", [Lease(agent_id, 3)], LONG_LEASE) == LostLeases([], [])
        assert backend.worker_leases(queue, "worker") == [Lease(agent_id, 3)]
        backend.finish(queue, [Lease(agent_id, 3)])
        assert backend.unknown_tasks(queue, [agent_id]) == [agent_id]

    def test_a_restored_task_whose_worker_is_dead_expires(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.restore(queue, [Entry(agent_id, epoch=3)], SHORT_LEASE)
        assert wait_until(lambda: backend.expired_leases(queue, 10)) == [Lease(agent_id, 3)]
        assert backend.release(queue, Lease(agent_id, 3))
        assert claim(backend, queue) == [Lease(agent_id, 4)]

    def test_restoring_leaves_known_tasks_as_they_are(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 2)
        leases = claim(backend, queue, 1)
        backend.restore(queue, [Entry(agent_id) for agent_id in pushed], SHORT_LEASE)
        assert backend.worker_leases(queue, "worker") == leases
        assert claim(backend, queue, 10) == [Lease(pushed[1], 1)]

    def test_removing_returns_the_holders_of_leases(self, backend: StateBackend, queue: str) -> None:
        ready, delayed, restored, unknown = (new_agent_id() for _ in range(4))
        push(backend, queue, 2)
        mine, given_back = claim(backend, queue, 2, worker="holder")
        assert backend.release(queue, given_back)
        backend.push(queue, [Entry(ready), Entry(delayed, run_at=time.time() + LONG_LEASE)])
        backend.restore(queue, [Entry(restored, epoch=1)], LONG_LEASE)
        everything = [mine.agent_id, given_back.agent_id, ready, delayed, restored, unknown]
        assert backend.remove(queue, everything) == {mine.agent_id: "holder"}
        assert backend.unknown_tasks(queue, everything) == everything
        assert backend.depth(queue) == Depth(0, 0, 0)
        assert claim(backend, queue, 10) == []
        assert backend.worker_leases(queue, "holder") == []

    def test_a_removed_task_leaves_the_others_in_order(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 5)
        backend.remove(queue, [pushed[0], pushed[3]])
        assert ids(claim(backend, queue, 2)) == [pushed[1], pushed[2]]
        assert ids(claim(backend, queue, 2)) == [pushed[4]]

    @pytest.mark.parametrize("was", ["ready", "delayed", "leased"])
    def test_a_removed_task_can_be_pushed_again(self, backend: StateBackend, queue: str, was: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id, run_at=time.time() + LONG_LEASE if was == "delayed" else 0.0)])
        if was == "leased":
            claim(backend, queue)
        backend.remove(queue, [agent_id])
        backend.push(queue, [Entry(agent_id, Priority.HIGH, epoch=5)])
        assert claim(backend, queue, 10) == [Lease(agent_id, 6)]
        assert claim(backend, queue, 10) == []
