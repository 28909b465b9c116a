"""The promises of a state backend as tests. Subclass `BackendSuite`, say how to make yours, and run pytest:

    class TestMyBackend(BackendSuite):
        @pytest.fixture
        def backend(self):
            backend = MyBackend(...)
            backend.ping()
            yield backend
            backend.close()

        def empty(self, backend):
            ...  # what a server does that loses everything

Nothing is assumed about what else the server holds: each test has a queue, mailboxes and roles of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID, uuid4

import pytest

from agentexec.state.backend import Depth, Lost, StateBackend, required_names
from agentexec.task import Entry, Lease, Priority, new_agent_id

T = TypeVar("T")

SHORT = 0.3
"""Seconds of a lease that a test lets expire."""

LONG = 60.0
"""Seconds of a lease that no test lives to see the end of."""

PATIENCE = 10.0
"""Seconds after which a test gives up on something that must happen."""


class BackendSuite:
    """See the module. The tests need the fixture `backend` and the method `empty`."""

    pick_up_seconds = 0.5
    """Within what time a waiting worker notices a push. A server that tells is far below it."""

    def empty(self, backend: StateBackend) -> None:
        """Make the backend forget everything, as a lost server would."""
        raise NotImplementedError("a subclass of BackendSuite says how its backend is emptied")

    @pytest.fixture
    def queue(self) -> str:
        return f"suite-{uuid4().hex}"

    @pytest.fixture
    def name(self) -> str:
        """For a mailbox, a counter or a role."""
        return f"suite-{uuid4().hex}"

    # ---- the protocol ------------------------------------------------------------------------------------

    def test_it_has_every_name_of_the_protocol(self, backend: StateBackend) -> None:
        assert [one for one in required_names() if not hasattr(backend, one)] == []

    def test_it_can_be_used_again_after_close(self, backend: StateBackend, queue: str) -> None:
        backend.ping()
        backend.close()
        backend.push(queue, [Entry(new_agent_id())])
        assert len(claim(backend, queue)) == 1

    # ---- push and claim ----------------------------------------------------------------------------------

    def test_a_task_is_claimed_once(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id)])
        assert claim(backend, queue) == [Lease(agent_id, 1)]
        assert claim(backend, queue) == []

    def test_an_empty_queue_gives_nothing(self, backend: StateBackend, queue: str) -> None:
        claimed = backend.claim(queue, "worker", limit=10, low=2, lease_seconds=LONG)
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

    def test_a_share_for_low_is_taken_from_low_first(self, backend: StateBackend, queue: str) -> None:
        high = push(backend, queue, 5, Priority.HIGH)
        low = push(backend, queue, 5, Priority.LOW)
        assert set(ids(claim(backend, queue, 4, low=1))) == {*high[:3], low[0]}
        assert set(ids(claim(backend, queue, 4, low=3))) == {high[3], *low[1:4]}

    def test_a_share_that_low_cannot_fill_goes_to_high(self, backend: StateBackend, queue: str) -> None:
        high = push(backend, queue, 5, Priority.HIGH)
        low = push(backend, queue, 1, Priority.LOW)
        assert set(ids(claim(backend, queue, 4, low=3))) == {*low, *high[:3]}
        assert ids(claim(backend, queue, 4, low=3)) == high[3:]

    def test_a_share_above_the_limit_takes_no_more_than_the_limit(
        self, backend: StateBackend, queue: str
    ) -> None:
        push(backend, queue, 2, Priority.HIGH)
        low = push(backend, queue, 3, Priority.LOW)
        assert ids(claim(backend, queue, 1, low=3)) == low[:1]

    @pytest.mark.parametrize("state", ["ready", "delayed", "leased", "expired"])
    def test_a_task_that_is_there_is_not_pushed_again(
        self, backend: StateBackend, queue: str, state: str
    ) -> None:
        agent_id = new_agent_id()
        run_at = time.time() + LONG if state == "delayed" else 0.0
        backend.push(queue, [Entry(agent_id, run_at=run_at)])
        if state in ("leased", "expired"):
            claim(backend, queue, seconds=LONG if state == "leased" else SHORT)
        if state == "expired":
            eventually(lambda: backend.expired(queue, 10))
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

    def test_many_tasks_at_once(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 2500)
        claimed = claim_all(backend, queue)
        assert ids(claimed) == pushed
        assert backend.renew(queue, "worker", claimed, LONG) == Lost([], [])
        assert backend.unknown(queue, pushed) == []
        backend.finish(queue, claimed)
        assert backend.unknown(queue, pushed) == pushed
        assert backend.depth(queue) == Depth(0, 0, 0)

    def test_pushing_nothing_is_nothing(self, backend: StateBackend, queue: str) -> None:
        backend.push(queue, [])
        backend.restore(queue, [], LONG)
        backend.finish(queue, [])
        assert backend.renew(queue, "worker", [], LONG) == Lost([], [])
        assert backend.remove(queue, []) == {}
        assert backend.unknown(queue, []) == []
        assert backend.depth(queue) == Depth(0, 0, 0)

    def test_queues_are_apart(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id)])
        other = f"{queue}-other"
        assert claim(backend, other) == []
        assert backend.unknown(other, [agent_id]) == [agent_id]
        assert backend.depth(other) == Depth(0, 0, 0)

    def test_threads_never_claim_the_same_task(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 200, Priority.LOW) + push(backend, queue, 200, Priority.HIGH)

        def take(number: int) -> list[Lease]:
            mine: list[Lease] = []
            while leases := claim(backend, queue, 7, worker=f"worker-{number}", low=2):
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

    # ---- epochs ------------------------------------------------------------------------------------------

    def test_each_claim_raises_the_epoch(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        for epoch in (1, 2, 3):
            [lease] = claim(backend, queue)
            assert lease.epoch == epoch
            assert backend.release(queue, lease)

    def test_epochs_go_on_from_the_one_of_the_record(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id, epoch=41)])
        assert claim(backend, queue) == [Lease(agent_id, 42)]

    # ---- delayed tasks -----------------------------------------------------------------------------------

    def test_a_delayed_task_is_claimed_when_it_is_due(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        due = time.time() + SHORT
        backend.push(queue, [Entry(agent_id, run_at=due)])
        assert backend.depth(queue) == Depth(ready=0, delayed=1, leased=0)
        first = backend.claim(queue, "worker", limit=1, low=0, lease_seconds=LONG)
        assert first.leases == []
        assert first.next_due is not None
        assert 0 < first.next_due <= SHORT + 0.05
        assert ids(eventually(lambda: claim(backend, queue))) == [agent_id]
        assert time.time() >= due - 0.05

    def test_delayed_tasks_come_in_the_order_in_which_they_are_due(
        self, backend: StateBackend, queue: str
    ) -> None:
        now = time.time()
        late, early, later = (new_agent_id() for _ in range(3))
        backend.push(queue, [Entry(late, run_at=now + 0.2), Entry(early, run_at=now + 0.1)])
        backend.push(queue, [Entry(later, run_at=now + LONG)])
        eventually(lambda: backend.depth(queue).ready == 2)
        claimed = backend.claim(queue, "worker", limit=10, low=0, lease_seconds=LONG)
        assert ids(claimed.leases) == [early, late]
        assert claimed.next_due is not None
        assert LONG - PATIENCE < claimed.next_due <= LONG

    def test_a_moment_that_has_passed_is_no_delay(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id, run_at=time.time() - LONG)])
        assert backend.depth(queue) == Depth(ready=1, delayed=0, leased=0)
        assert ids(claim(backend, queue)) == [agent_id]

    def test_delayed_tasks_keep_their_priority(self, backend: StateBackend, queue: str) -> None:
        low, high = new_agent_id(), new_agent_id()
        due = time.time() + 0.1
        backend.push(queue, [Entry(low, Priority.LOW, due), Entry(high, Priority.HIGH, due)])
        eventually(lambda: backend.depth(queue).ready == 2)
        assert ids(claim(backend, queue, 2)) == [high, low]

    # ---- leases ------------------------------------------------------------------------------------------

    def test_a_renewed_lease_does_not_expire(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 2)
        kept, left = claim(backend, queue, 2, seconds=SHORT)
        assert backend.expired(queue, 10) == []
        assert backend.renew(queue, "worker", [kept], LONG) == Lost([], [])
        assert eventually(lambda: backend.expired(queue, 10)) == [left]
        assert backend.expired(queue, 10) == [left], "looking at expired leases must change nothing"

    def test_expired_leases_come_oldest_first(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 3)
        second = claim(backend, queue, seconds=0.2)
        third = claim(backend, queue, seconds=0.3)
        first = claim(backend, queue, seconds=0.1)
        eventually(lambda: len(backend.expired(queue, 10)) == 3)
        assert backend.expired(queue, 10) == first + second + third
        assert backend.expired(queue, 2) == first + second

    def test_an_expired_task_is_not_claimed_before_it_is_released(
        self, backend: StateBackend, queue: str
    ) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue, seconds=SHORT)
        eventually(lambda: backend.expired(queue, 10))
        assert claim(backend, queue) == []
        assert backend.release(queue, lease)
        assert backend.expired(queue, 10) == []
        assert claim(backend, queue) == [Lease(lease.agent_id, 2)]

    def test_an_expired_lease_can_be_renewed(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        leases = claim(backend, queue, seconds=SHORT)
        eventually(lambda: backend.expired(queue, 10))
        assert backend.renew(queue, "worker", leases, LONG) == Lost([], [])
        assert backend.expired(queue, 10) == []
        assert backend.leases_of(queue, "worker") == leases

    @pytest.mark.parametrize("delay", [0.0, LONG])
    def test_a_lease_that_was_given_back_but_not_claimed_can_be_renewed(
        self, backend: StateBackend, queue: str, delay: float
    ) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue, seconds=SHORT)
        eventually(lambda: backend.expired(queue, 10))
        assert backend.release(queue, lease, delay=delay)
        assert backend.renew(queue, "worker", [lease], LONG) == Lost([], [])
        assert claim(backend, queue) == [], "a task with a live lease must not be claimed"
        assert backend.depth(queue) == Depth(ready=0, delayed=0, leased=1)
        assert backend.leases_of(queue, "worker") == [lease]
        assert backend.release(queue, lease)
        assert claim(backend, queue) == [Lease(lease.agent_id, 2)]

    def test_a_renewal_tells_what_is_lost(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 4)
        kept, taken, finished, removed = claim(backend, queue, 4)
        assert backend.release(queue, taken)
        assert claim(backend, queue, worker="other") == [Lease(taken.agent_id, 2)]
        backend.finish(queue, [finished])
        backend.remove(queue, [removed.agent_id])
        lost = backend.renew(queue, "worker", [kept, taken, finished, removed], LONG)
        assert lost.taken == [taken.agent_id]
        assert sorted(lost.missing) == sorted([finished.agent_id, removed.agent_id])

    def test_a_zombie_can_do_nothing(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        [old] = claim(backend, queue, worker="zombie", seconds=SHORT)
        eventually(lambda: backend.expired(queue, 10))
        assert backend.release(queue, old)
        [new] = claim(backend, queue, worker="successor")
        assert backend.renew(queue, "zombie", [old], LONG) == Lost([old.agent_id], [])
        assert not backend.release(queue, old)
        backend.finish(queue, [old])
        assert backend.leases_of(queue, "successor") == [new]
        assert backend.leases_of(queue, "zombie") == []
        assert backend.renew(queue, "successor", [new], LONG) == Lost([], [])

    def test_leases_are_listed_by_worker(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 5)
        mine = claim(backend, queue, 3, worker="mine")
        other = claim(backend, queue, 1, worker="mine-not")
        assert sorted(backend.leases_of(queue, "mine")) == sorted(mine)
        assert backend.leases_of(queue, "mine-not") == other
        assert backend.leases_of(queue, "nobody") == []
        backend.finish(queue, mine[:1])
        assert sorted(backend.leases_of(queue, "mine")) == sorted(mine[1:])

    # ---- finish and release ------------------------------------------------------------------------------

    def test_a_finished_task_is_forgotten(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 2)
        done, other = claim(backend, queue, 2)
        backend.finish(queue, [done])
        assert backend.unknown(queue, [done.agent_id, other.agent_id]) == [done.agent_id]
        assert backend.depth(queue) == Depth(ready=0, delayed=0, leased=1)
        backend.finish(queue, [done])
        assert not backend.release(queue, done)

    def test_a_task_that_was_given_back_but_not_claimed_can_be_finished(
        self, backend: StateBackend, queue: str
    ) -> None:
        push(backend, queue, 2)
        ready, delayed = claim(backend, queue, 2)
        assert backend.release(queue, ready)
        assert backend.release(queue, delayed, delay=LONG)
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
        assert not backend.release(queue, lease, delay=LONG)
        assert backend.depth(queue) == Depth(ready=1, delayed=0, leased=0)
        assert not backend.release(queue, Lease(new_agent_id(), 1))

    def test_a_task_can_be_released_for_later(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue)
        assert backend.release(queue, lease, delay=SHORT)
        assert backend.depth(queue) == Depth(ready=0, delayed=1, leased=0)
        claimed = backend.claim(queue, "worker", limit=1, low=0, lease_seconds=LONG)
        assert claimed.leases == []
        assert claimed.next_due is not None
        assert claimed.next_due <= SHORT + 0.05
        assert eventually(lambda: claim(backend, queue)) == [Lease(lease.agent_id, 2)]

    # ---- restore and remove ------------------------------------------------------------------------------

    def test_a_restored_task_waits_for_its_worker(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.restore(queue, [Entry(agent_id, epoch=3)], LONG)
        assert claim(backend, queue) == []
        assert backend.depth(queue) == Depth(ready=0, delayed=0, leased=1)
        assert backend.renew(queue, "worker", [Lease(agent_id, 2)], LONG) == Lost([agent_id], [])
        assert backend.renew(queue, "worker", [Lease(agent_id, 3)], LONG) == Lost([], [])
        assert backend.leases_of(queue, "worker") == [Lease(agent_id, 3)]
        backend.finish(queue, [Lease(agent_id, 3)])
        assert backend.unknown(queue, [agent_id]) == [agent_id]

    def test_a_restored_task_whose_worker_is_dead_expires(self, backend: StateBackend, queue: str) -> None:
        agent_id = new_agent_id()
        backend.restore(queue, [Entry(agent_id, epoch=3)], SHORT)
        assert eventually(lambda: backend.expired(queue, 10)) == [Lease(agent_id, 3)]
        assert backend.release(queue, Lease(agent_id, 3))
        assert claim(backend, queue) == [Lease(agent_id, 4)]

    def test_restoring_leaves_known_tasks_as_they_are(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 2)
        leases = claim(backend, queue, 1)
        backend.restore(queue, [Entry(agent_id) for agent_id in pushed], SHORT)
        assert backend.leases_of(queue, "worker") == leases
        assert claim(backend, queue, 10) == [Lease(pushed[1], 1)]

    def test_removing_tells_who_held_a_lease(self, backend: StateBackend, queue: str) -> None:
        ready, delayed, restored, unknown = (new_agent_id() for _ in range(4))
        push(backend, queue, 2)
        mine, given_back = claim(backend, queue, 2, worker="holder")
        assert backend.release(queue, given_back)
        backend.push(queue, [Entry(ready), Entry(delayed, run_at=time.time() + LONG)])
        backend.restore(queue, [Entry(restored, epoch=1)], LONG)
        everything = [mine.agent_id, given_back.agent_id, ready, delayed, restored, unknown]
        assert backend.remove(queue, everything) == {mine.agent_id: "holder"}
        assert backend.unknown(queue, everything) == everything
        assert backend.depth(queue) == Depth(0, 0, 0)
        assert claim(backend, queue, 10) == []
        assert backend.leases_of(queue, "holder") == []

    def test_a_removed_task_leaves_the_others_in_order(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 5)
        backend.remove(queue, [pushed[0], pushed[3]])
        assert ids(claim(backend, queue, 2)) == [pushed[1], pushed[2]]
        assert ids(claim(backend, queue, 2)) == [pushed[4]]

    @pytest.mark.parametrize("was", ["ready", "delayed", "leased"])
    def test_a_removed_task_can_be_pushed_again(self, backend: StateBackend, queue: str, was: str) -> None:
        agent_id = new_agent_id()
        backend.push(queue, [Entry(agent_id, run_at=time.time() + LONG if was == "delayed" else 0.0)])
        if was == "leased":
            claim(backend, queue)
        backend.remove(queue, [agent_id])
        backend.push(queue, [Entry(agent_id, Priority.HIGH, epoch=5)])
        assert claim(backend, queue, 10) == [Lease(agent_id, 6)]
        assert claim(backend, queue, 10) == []

    # ---- the whole index ---------------------------------------------------------------------------------

    def test_depth_counts_each_task_once(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 3, Priority.HIGH)
        push(backend, queue, 3, Priority.LOW)
        backend.push(queue, [Entry(new_agent_id(), run_at=time.time() + LONG)])
        claim(backend, queue, 2, low=1)
        assert backend.depth(queue) == Depth(ready=4, delayed=1, leased=2)

    def test_an_emptied_index_is_noticed(self, backend: StateBackend, queue: str) -> None:
        pushed = push(backend, queue, 2)
        assert not backend.intact(queue)
        backend.mark_intact(queue)
        assert backend.intact(queue)
        assert not backend.intact(f"{queue}-other")
        self.empty(backend)
        assert not backend.intact(queue)
        assert backend.unknown(queue, pushed) == pushed
        assert backend.renew(queue, "worker", [Lease(pushed[0], 1)], LONG) == Lost([], [pushed[0]])
        backend.push(queue, [Entry(pushed[0], epoch=1)])
        assert claim(backend, queue) == [Lease(pushed[0], 2)]
        backend.mark_intact(queue)
        assert backend.intact(queue)

    # ---- waiting -----------------------------------------------------------------------------------------

    def test_waiting_ends_in_time(self, backend: StateBackend, queue: str) -> None:
        started = time.monotonic()
        backend.wait(queue, 0)
        backend.wait(queue, 0.2)
        assert time.monotonic() - started < 2

    def test_a_push_wakes_a_waiting_worker(self, backend: StateBackend, queue: str) -> None:
        with waiting(lambda: backend.wait(queue, PATIENCE)) as ended:
            push(backend, queue, 1)
            assert ended() < self.pick_up_seconds
        assert len(claim(backend, queue)) == 1

    def test_a_push_just_before_waiting_is_not_missed(self, backend: StateBackend, queue: str) -> None:
        assert claim(backend, queue) == []
        push(backend, queue, 1)
        started = time.monotonic()
        backend.wait(queue, PATIENCE)
        assert time.monotonic() - started < self.pick_up_seconds

    def test_as_many_workers_wake_as_tasks_are_pushed(self, backend: StateBackend, queue: str) -> None:
        def work(number: int) -> list[Lease]:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                if leases := claim(backend, queue, worker=f"worker-{number}"):
                    return leases
                backend.wait(queue, PATIENCE)
            return []

        with ThreadPoolExecutor(3) as threads:
            workers = [threads.submit(work, number) for number in range(3)]
            time.sleep(0.2)  # nothing tells from outside that a worker waits
            started = time.monotonic()
            pushed = push(backend, queue, 3)
            claimed = [lease for worker in workers for lease in worker.result(2 * PATIENCE)]
        assert time.monotonic() - started < 3 * self.pick_up_seconds
        assert sorted(ids(claimed)) == sorted(pushed)

    def test_a_released_task_wakes_a_waiting_worker(self, backend: StateBackend, queue: str) -> None:
        push(backend, queue, 1)
        [lease] = claim(backend, queue)
        assert claim(backend, queue) == []
        with waiting(lambda: backend.wait(queue, PATIENCE)) as ended:
            assert backend.release(queue, lease)
            assert ended() < self.pick_up_seconds

    def test_workers_can_be_woken_without_a_task(self, backend: StateBackend, queue: str) -> None:
        with waiting(lambda: backend.wait(queue, PATIENCE)) as ended:
            backend.wake(queue, 1)
            assert ended() < self.pick_up_seconds

    # ---- watches and mailboxes ---------------------------------------------------------------------------

    def test_watchers_are_told_once(self, backend: StateBackend, queue: str, name: str) -> None:
        watched, other = new_agent_id(), new_agent_id()
        backend.watch(queue, [watched, other], f"{name}-a")
        backend.watch(queue, [watched], f"{name}-a")
        backend.watch(queue, [watched], f"{name}-b")
        backend.notify_done(queue, [new_agent_id(), watched])
        assert backend.receive(f"{name}-a", 1) == [f"done {watched}"]
        assert backend.receive(f"{name}-b", 1) == [f"done {watched}"]
        backend.notify_done(queue, [watched])
        backend.notify_done(queue, [other])
        assert backend.receive(f"{name}-a", 1) == [f"done {other}"]
        assert backend.receive(f"{name}-b", 0.05) == []

    def test_a_watch_outlives_the_task(self, backend: StateBackend, queue: str, name: str) -> None:
        push(backend, queue, 1)
        leases = claim(backend, queue)
        backend.watch(queue, ids(leases), name)
        backend.finish(queue, leases)
        backend.notify_done(queue, ids(leases))
        assert backend.receive(name, 1) == [f"done {leases[0].agent_id}"]

    def test_messages_come_in_order_and_all_at_once(self, backend: StateBackend, name: str) -> None:
        texts = [f"message {number} \N{SNOWMAN}" for number in range(2500)]
        backend.send(name, texts[:2000])
        backend.send(name, texts[2000:])
        backend.send(name, [])
        assert backend.receive(name, 1) == texts
        assert backend.receive(name, 0) == []

    def test_mailboxes_are_apart(self, backend: StateBackend, name: str) -> None:
        backend.send(name, ["for me"])
        assert backend.receive(f"{name}-other", 0.05) == []
        assert backend.receive(name, 1) == ["for me"]

    def test_a_message_ends_the_wait_for_it(self, backend: StateBackend, name: str) -> None:
        received: list[str] = []
        with waiting(lambda: received.extend(backend.receive(name, PATIENCE))) as ended:
            backend.send(name, ["hello"])
            assert ended() < self.pick_up_seconds
        assert received == ["hello"]

    def test_waiting_for_messages_ends_in_time(self, backend: StateBackend, name: str) -> None:
        started = time.monotonic()
        assert backend.receive(name, 0.2) == []
        assert 0.15 < time.monotonic() - started < 2

    # ---- counters and leadership -------------------------------------------------------------------------

    def test_counters_count(self, backend: StateBackend, name: str) -> None:
        assert backend.add(name, 0) == 0
        assert backend.add(name, 5) == 5
        assert backend.add(name, -7) == -2
        assert backend.add(f"{name}-other", 1) == 1

    def test_counters_lose_nothing_between_threads(self, backend: StateBackend, name: str) -> None:
        with ThreadPoolExecutor(8) as threads:
            seen = list(threads.map(lambda _: backend.add(name, 1), range(200)))
        assert sorted(seen) == list(range(1, 201))

    def test_one_leads(self, backend: StateBackend, name: str) -> None:
        assert backend.lead(name, "first", LONG)
        assert not backend.lead(name, "second", LONG)
        assert backend.lead(name, "first", LONG)
        assert backend.lead(f"{name}-other", "second", LONG)

    def test_a_leadership_ends(self, backend: StateBackend, name: str) -> None:
        assert backend.lead(name, "first", SHORT)
        assert eventually(lambda: backend.lead(name, "second", LONG))
        assert not backend.lead(name, "first", LONG)

    def test_a_leadership_is_kept_by_renewing_it(self, backend: StateBackend, name: str) -> None:
        assert backend.lead(name, "first", SHORT)
        assert backend.lead(name, "first", LONG)
        time.sleep(1.5 * SHORT)
        assert not backend.lead(name, "second", LONG)

    def test_only_the_leader_can_resign(self, backend: StateBackend, name: str) -> None:
        assert backend.lead(name, "first", LONG)
        backend.resign(name, "second")
        assert not backend.lead(name, "second", LONG)
        backend.resign(name, "first")
        assert backend.lead(name, "second", LONG)

    def test_one_of_many_threads_leads(self, backend: StateBackend, name: str) -> None:
        with ThreadPoolExecutor(8) as threads:
            leads = list(threads.map(lambda number: backend.lead(name, f"owner-{number}", LONG), range(8)))
        assert sum(leads) == 1


def push(backend: StateBackend, queue: str, count: int, priority: Priority = Priority.LOW) -> list[UUID]:
    """Push new tasks in one call; returns their ids."""
    entries = [Entry(new_agent_id(), priority) for _ in range(count)]
    backend.push(queue, entries)
    return [entry.agent_id for entry in entries]


def claim(
    backend: StateBackend,
    queue: str,
    limit: int = 1,
    *,
    worker: str = "worker",
    low: int = 0,
    seconds: float = LONG,
) -> list[Lease]:
    """The leases of one claim."""
    return backend.claim(queue, worker, limit=limit, low=low, lease_seconds=seconds).leases


def claim_all(backend: StateBackend, queue: str) -> list[Lease]:
    """Claim until nothing is left."""
    claimed: list[Lease] = []
    while leases := claim(backend, queue, 1000):
        claimed += leases
    return claimed


def ids(leases: Sequence[Lease]) -> list[UUID]:
    """The ids of leases, in order."""
    return [lease.agent_id for lease in leases]


def eventually(condition: Callable[[], T]) -> T:
    """Call `condition` until it returns something true, and return that."""
    deadline = time.monotonic() + PATIENCE
    while not (outcome := condition()):
        assert time.monotonic() < deadline, f"still not true after {PATIENCE:g} s"
        time.sleep(0.01)
    return outcome


@contextmanager
def waiting(call: Callable[[], object]) -> Generator[Callable[[], float]]:
    """Run a blocking call in a thread. What is yielded waits for its end and returns the seconds that took."""
    ready = threading.Event()

    def run() -> None:
        ready.set()
        call()

    with ThreadPoolExecutor(1) as threads:
        thread = threads.submit(run)
        ready.wait()
        time.sleep(0.1)  # nothing tells from outside that the call has begun to block
        assert not thread.done(), "the call returned though nothing happened"
        started = time.monotonic()

        def ended() -> float:
            thread.result(2 * PATIENCE)
            return time.monotonic() - started

        yield ended
