"""Tests of claims: the tasks that they take, and their order."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from agentexec.state.backend import Depth, LostLeases, StateBackend
from agentexec.task import Entry, Lease, Priority, new_agent_id
from agentexec.testing.backend_suite.operations import (
    LONG_LEASE,
    SHORT_LEASE,
    WAIT_TIMEOUT,
    claim,
    claim_all,
    ids,
    push,
    running_in_thread,
    wait_until,
)


class ClaimTests:
    """Tests of push, claim, order, delays and depth."""

    def test_a_task_is_claimed_once(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id)])
        assert claim(backend, queue) == [Lease(agent_id, 1)]
        assert claim(backend, queue) == []

    def test_an_empty_queue_gives_nothing(self, backend: StateBackend, queue: str) -> None:
        claimed = backend.claim(queue, "worker", limit=10, low_quota=2, lease_seconds=LONG_LEASE)
        assert claimed.leases == []
        assert claimed.next_due is None

    def test_tasks_come_first_in_first_out(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 5) + push(backend, queue, 5)
        assert ids(claim(backend, queue, 10)) == pushed

    def test_a_claim_takes_no_more_than_asked(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 5)
        assert claim(backend, queue, 0) == []
        assert ids(claim(backend, queue, 2)) == pushed[:2]
        assert ids(claim(backend, queue, 10)) == pushed[2:]

    def test_high_comes_before_low(self, backend: StateBackend, queue: str) -> None:
        low = push(backend, queue, 2, Priority.LOW)
        high = push(backend, queue, 2, Priority.HIGH)
        assert ids(claim(backend, queue, 3)) == [*high, low[0]]

    def test_the_quota_of_low_is_taken_from_low_first(self, backend: StateBackend, queue: str) -> None:
        high = push(backend, queue, 5, Priority.HIGH)
        low = push(backend, queue, 5, Priority.LOW)
        assert set(ids(claim(backend, queue, 4, low_quota=1))) == {*high[:3], low[0]}
        assert set(ids(claim(backend, queue, 4, low_quota=3))) == {high[3], *low[1:4]}

    def test_a_quota_that_low_cannot_fill_goes_to_high(self, backend: StateBackend, queue: str) -> None:
        high = push(backend, queue, 5, Priority.HIGH)
        low = push(backend, queue, 1, Priority.LOW)
        assert set(ids(claim(backend, queue, 4, low_quota=3))) == {*low, *high[:3]}
        assert ids(claim(backend, queue, 4, low_quota=3)) == high[3:]

    def test_a_quota_above_the_limit_takes_no_more_than_the_limit(
        self, backend: StateBackend, queue: str
    ) -> None:
        push(backend, queue, 2, Priority.HIGH)
        low = push(backend, queue, 3, Priority.LOW)
        assert ids(claim(backend, queue, 1, low_quota=3)) == low[:1]

    @pytest.mark.parametrize("state", ["ready", "delayed", "leased", "expired"])
    def test_a_task_that_the_index_knows_is_not_pushed_again(
        self, backend: StateBackend, queue: str, state: str
    ) -> None:
        agent_id = new_agent_id()
        run_at = time.time() + LONG_LEASE if state == "delayed" else 0.0
        backend.push(queue, [Entry(agent_id, run_at=run_at)])
        if state in ("leased", "expired"):
            claim(backend, queue, seconds=LONG_LEASE if state == "leased" else SHORT_LEASE)
        if state == "expired":
            wait_until(lambda: backend.expired_leases(queue, 10))
        before = backend.depth(queue)
        backend.push(queue, [Entry(agent_id, Priority.HIGH), Entry(agent_id, Priority.HIGH)])
        assert backend.depth(queue) == before
        assert len(claim(backend, queue, 10)) == (1 if state == "ready" else 0)

    def test_a_task_that_is_named_twice_in_a_push_is_claimed_once(
        self, backend: StateBackend, queue: str
    ) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id), Entry(agent_id)])
        assert ids(claim(backend, queue, 10)) == [agent_id]

    def test_many_tasks_are_handled_in_one_call(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 2500)
        claimed = claim_all(backend, queue)
        assert ids(claimed) == pushed
        assert backend.renew(queue, "worker", claimed, LONG_LEASE) == LostLeases([], [])
        assert backend.unknown_tasks(queue, pushed) == []
        backend.finish(queue, claimed)
        assert backend.unknown_tasks(queue, pushed) == pushed
        assert backend.depth(queue) == Depth(0, 0, 0)

    def test_empty_calls_change_nothing(self, backend: StateBackend, queue: str) -> None:
        backend.push(queue, [])
        backend.restore(queue, [], LONG_LEASE)
        backend.finish(queue, [])
        assert backend.renew(queue, "worker", [], LONG_LEASE) == LostLeases([], [])
        assert backend.remove(queue, []) == {}
        assert backend.unknown_tasks(queue, []) == []
        assert backend.depth(queue) == Depth(0, 0, 0)

    def test_queues_are_separate(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id)])
        other = f"{queue}-other"
        assert claim(backend, other) == []
        assert backend.unknown_tasks(other, [agent_id]) == [agent_id]
        assert backend.depth(other) == Depth(0, 0, 0)

    def test_threads_never_claim_the_same_task(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 200, Priority.LOW) + push(backend, queue, 200, Priority.HIGH)

        def take(number: int) -> list[Lease]:
            mine: list[Lease] = []
            while leases := claim(backend, queue, 7, worker=f"worker-{number}", low_quota=2):
                mine += leases
            return mine

        with ThreadPoolExecutor(8) as threads:
            claimed = [lease for leases in threads.map(take, range(8)) for lease in leases]
        assert sorted(ids(claimed)) == sorted(pushed)
        assert {lease.epoch for lease in claimed} == {1}

    def test_pushes_from_many_threads_all_arrive(self, backend: StateBackend, queue: str) -> None:
        shared = [Entry(new_agent_id()) for _ in range(20)]

        def add(_number: int) -> list[UUID]:
            backend.push(queue, shared)
            return push(backend, queue, 10)

        with ThreadPoolExecutor(8) as threads:
            pushed = [agent_id for some in threads.map(add, range(8)) for agent_id in some]
        claimed = ids(claim_all(backend, queue))
        assert sorted(claimed) == sorted([*pushed, *(entry.agent_id for entry in shared)])

    def test_each_claim_raises_the_epoch(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        for epoch in (1, 2, 3):
            [lease] = claim(backend, queue)
            assert lease.epoch == epoch
            assert backend.release(queue, lease)

    def test_epochs_continue_from_that_of_the_record(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id, epoch=41)])
        assert claim(backend, queue) == [Lease(agent_id, 42)]

    def test_a_delayed_task_is_claimed_when_it_is_due(self, backend: StateBackend, queue: str) -> None:
        late, soon = new_agent_id(), new_agent_id()
        backend.push(queue, [Entry(late, run_at=time.time() + LONG_LEASE)])
        assert backend.depth(queue) == Depth(ready=0, delayed=1, leased=0)
        first = backend.claim(queue, "worker", limit=1, low_quota=0, lease_seconds=LONG_LEASE)
        assert first.leases == []
        assert first.next_due is not None
        assert 0 < first.next_due <= LONG_LEASE + 0.05
        due = time.time() + SHORT_LEASE
        backend.push(queue, [Entry(soon, run_at=due)])
        assert ids(wait_until(lambda: claim(backend, queue))) == [soon]
        assert time.time() >= due - 0.05

    def test_delayed_tasks_come_in_the_order_in_which_they_are_due(
        self, backend: StateBackend, queue: str
    ) -> None:
        now = time.time()
        late, early, later = (new_agent_id() for _ in range(3))
        backend.push(queue, [Entry(late, run_at=now + 0.2), Entry(early, run_at=now + 0.1)])
        backend.push(queue, [Entry(later, run_at=now + LONG_LEASE)])
        wait_until(lambda: backend.depth(queue).ready == 2)
        claimed = backend.claim(queue, "worker", limit=10, low_quota=0, lease_seconds=LONG_LEASE)
        assert ids(claimed.leases) == [early, late]
        assert claimed.next_due is not None
        assert LONG_LEASE - WAIT_TIMEOUT < claimed.next_due <= LONG_LEASE

    def test_a_moment_in_the_past_is_not_a_delay(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id, run_at=time.time() - LONG_LEASE)])
        assert backend.depth(queue) == Depth(ready=1, delayed=0, leased=0)
        assert ids(claim(backend, queue)) == [agent_id]

    def test_delayed_tasks_keep_their_priority(self, backend: StateBackend, queue: str) -> None:
        low, high = new_agent_id(), new_agent_id()
        due = time.time() + 0.1
        backend.push(queue, [Entry(low, Priority.LOW, due), Entry(high, Priority.HIGH, due)])
        wait_until(lambda: backend.depth(queue).ready == 2)
        assert ids(claim(backend, queue, 2)) == [high, low]

    def test_a_delayed_task_can_be_made_ready(self, backend: StateBackend, queue: str) -> None:
        made_ready, other, ready = (new_agent_id() for _ in range(3))
        far = time.time() + 100 * LONG_LEASE
        backend.push(queue, [Entry(made_ready, run_at=far, epoch=3), Entry(other, run_at=far)])
        backend.push(queue, [Entry(ready)])
        backend.make_ready(queue, [made_ready, ready, new_agent_id()])
        assert backend.depth(queue) == Depth(ready=2, delayed=1, leased=0)
        assert sorted(claim(backend, queue, 3)) == sorted([Lease(made_ready, 4), Lease(ready, 1)])

    def test_a_leased_task_is_not_made_ready(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue)
        backend.make_ready(queue, [lease.agent_id])
        assert backend.worker_leases(queue, "worker") == [lease]
        assert backend.depth(queue) == Depth(ready=0, delayed=0, leased=1)

    def test_a_task_made_ready_wakes_a_waiting_worker(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id, run_at=time.time() + LONG_LEASE)])
        assert claim(backend, queue) == []
        with running_in_thread(lambda: backend.wait(queue, WAIT_TIMEOUT)) as ended:
            backend.make_ready(queue, [agent_id])
            assert ended() < WAIT_TIMEOUT / 2
        assert ids(claim(backend, queue)) == [agent_id]

    def test_depth_counts_each_task_once(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 3, Priority.HIGH)
        push(backend, queue, 3, Priority.LOW)
        backend.push(queue, [Entry(new_agent_id(), run_at=time.time() + LONG_LEASE)])
        claim(backend, queue, 2, low_quota=1)
        assert backend.depth(queue) == Depth(ready=4, delayed=1, leased=2)
