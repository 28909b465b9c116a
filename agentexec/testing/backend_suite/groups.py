"""Tests of locks and limits: who is let in, in which order, and who waits."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from agentexec.state.backend import Comparison, Depth, StateBackend
from agentexec.state.groups import SupportsGroups
from agentexec.task import Entry, Lease, Priority, groups_of, new_agent_id
from agentexec.testing.backend_suite.operations import (
    LONG_LEASE,
    SHORT_LEASE,
    WAIT_TIMEOUT,
    claim,
    ids,
    push,
    running_in_thread,
    wait_until,
)

LIMITED = "work"


def locked(key: str, priority: Priority = Priority.LOW, run_at: float = 0.0) -> Entry:
    """Return a new task with a lock."""
    return Entry(new_agent_id(), priority, run_at, groups=groups_of("work", key, None))


def limited(key: str = "", lock: str | None = None) -> Entry:
    """Return a new task with a limit."""
    return Entry(new_agent_id(), groups=groups_of(LIMITED, lock, key))


def push_new(backend: StateBackend, queue: str, entries: list[Entry]) -> list[UUID]:
    """Push tasks in one call, and return their ids."""
    backend.push(queue, entries)
    return [entry.agent_id for entry in entries]


def claim_limited(
    backend: StateBackend, queue: str, concurrency: int, limit: int = 100, worker: str = "worker"
) -> list[Lease]:
    """Claim as a worker that declares a limit, and return the leases."""
    limits = {LIMITED: concurrency}
    return backend.claim(
        queue, worker, limit=limit, low_quota=0, lease_seconds=LONG_LEASE, limits=limits
    ).leases


class GroupTests:
    """Tests of the groups of tasks."""

    @pytest.fixture(autouse=True)
    def complete_index(self, request: pytest.FixtureRequest) -> None:
        """Note that the index is complete: one that was emptied gives no lock away."""
        if request.function.__qualname__.startswith("GroupTests."):
            backend: StateBackend = request.getfixturevalue("backend")
            backend.mark_intact(request.getfixturevalue("queue"))

    def test_tasks_with_one_lock_run_one_at_a_time_in_order(self, backend: StateBackend, queue: str) -> None:
        pushed = push_new(backend, queue, [locked("a") for _ in range(4)])
        for agent_id in pushed:
            [lease] = claim(backend, queue, 10)
            assert lease.agent_id == agent_id
            assert claim(backend, queue, 10) == []
            backend.finish(queue, [lease])
        assert claim(backend, queue, 10) == []
        assert backend.depth(queue) == Depth(0, 0, 0)

    def test_a_lock_is_kept_until_the_task_ends(self, backend: StateBackend, queue: str) -> None:
        first, second = push_new(backend, queue, [locked("a"), locked("a")])
        [lease] = claim(backend, queue, 10)
        backend.release(queue, lease, delay=LONG_LEASE)
        assert claim(backend, queue, 10) == []
        backend.make_ready(queue, [first])
        [lease] = claim(backend, queue, 10)
        assert lease == Lease(first, 2)
        backend.release(queue, lease)
        [lease] = claim(backend, queue, 10)
        assert lease == Lease(first, 3)
        assert claim(backend, queue, 10) == []
        backend.finish(queue, [lease])
        assert ids(claim(backend, queue, 10)) == [second]

    def test_other_keys_and_tasks_without_a_lock_do_not_wait(self, backend: StateBackend, queue: str) -> None:
        waiting = push_new(backend, queue, [locked("a") for _ in range(50)])
        other = push_new(backend, queue, [locked("b")])
        free = push(backend, queue, 2)
        assert ids(claim(backend, queue, 4)) == [waiting[0], *other, *free]
        assert backend.depth(queue) == Depth(0, 0, 4, 49)

    def test_high_waits_before_low_of_the_same_key(self, backend: StateBackend, queue: str) -> None:
        holder, low = push_new(backend, queue, [locked("a"), locked("a")])
        [lease] = claim(backend, queue, 2)
        [high] = push_new(backend, queue, [locked("a", Priority.HIGH)])
        assert claim(backend, queue, 2) == []
        for expected in (holder, high, low):
            assert lease.agent_id == expected
            backend.finish(queue, [lease])
            lease = next(iter(claim(backend, queue, 2)), lease)

    def test_a_removed_task_lets_the_next_one_in(self, backend: StateBackend, queue: str) -> None:
        holder, first, second, third = push_new(backend, queue, [locked("a") for _ in range(4)])
        assert ids(claim(backend, queue, 10)) == [holder]
        backend.remove(queue, [first])
        assert claim(backend, queue, 10) == []
        backend.remove(queue, [holder])
        # The next one is ready now, and canceled before anybody claims it.
        backend.remove(queue, [second])
        assert ids(claim(backend, queue, 10)) == [third]

    def test_the_end_of_the_holder_wakes_a_waiting_worker(self, backend: StateBackend, queue: str) -> None:
        _, second = push_new(backend, queue, [locked("a"), locked("a")])
        [lease] = claim(backend, queue, 10)
        assert claim(backend, queue, 10) == []
        with running_in_thread(lambda: backend.wait(queue, WAIT_TIMEOUT)) as ended:
            backend.finish(queue, [lease])
            assert ended() < WAIT_TIMEOUT / 2
        assert ids(claim(backend, queue, 10)) == [second]

    def test_an_expired_holder_keeps_the_lock(self, backend: StateBackend, queue: str) -> None:
        first, second = push_new(backend, queue, [locked("a"), locked("a")])
        claim(backend, queue, 10, seconds=SHORT_LEASE)
        [lease] = wait_until(lambda: backend.expired_leases(queue, 10))
        assert claim(backend, queue, 10) == []
        backend.release(queue, lease)
        assert claim(backend, queue, 10) == [Lease(first, 2)]
        backend.finish(queue, [Lease(first, 2)])
        assert ids(claim(backend, queue, 10)) == [second]

    def test_a_delayed_task_joins_the_line_when_it_is_due(self, backend: StateBackend, queue: str) -> None:
        far = time.time() + LONG_LEASE
        _, early = push_new(backend, queue, [locked("a", run_at=far), locked("a")])
        [lease] = claim(backend, queue, 10)
        assert lease.agent_id == early
        [late] = push_new(backend, queue, [locked("a", run_at=time.time() + 0.2)])
        wait_until(lambda: backend.depth(queue).ready)
        assert claim(backend, queue, 10) == []
        backend.finish(queue, [lease])
        assert ids(claim(backend, queue, 10)) == [late]

    def test_a_key_with_many_tasks_does_not_stop_the_others(self, backend: StateBackend, queue: str) -> None:
        first = push_new(backend, queue, [locked("a") for _ in range(1_000)])[0]
        [other] = push_new(backend, queue, [locked("b")])
        claimed: list[UUID] = []
        turns = 0
        while other not in claimed:
            claimed += ids(claim(backend, queue, 10))
            turns += 1
            assert turns < 20
        assert claimed == [first, other]

    def test_a_lock_restored_from_the_record_is_held(self, backend: StateBackend, queue: str) -> None:
        running, delayed, waiting, other = locked("a"), locked("b"), locked("a"), locked("b")
        backend.restore(queue, [running._replace(epoch=3)], LONG_LEASE)
        far = time.time() + 100 * LONG_LEASE
        backend.push(queue, [delayed._replace(run_at=far, holds_lock=True)])
        backend.push(queue, [waiting, other])
        assert claim(backend, queue, 10) == []
        backend.finish(queue, [Lease(running.agent_id, 3)])
        assert ids(claim(backend, queue, 10)) == [waiting.agent_id]
        backend.make_ready(queue, [delayed.agent_id])
        assert ids(claim(backend, queue, 10)) == [delayed.agent_id]

    def test_what_a_task_waits_for_is_known(self, backend: StateBackend, queue: str) -> None:
        pushed = push_new(backend, queue, [locked("a") for _ in range(3)])
        free = push(backend, queue, 1)
        claim(backend, queue, 10)
        assert isinstance(backend, SupportsGroups)
        found = [backend.waiting_for(queue, agent_id) for agent_id in [*pushed, *free]]
        assert found[0] is None and found[3] is None
        assert found[1] == ("lock:a", 0, [pushed[0]])
        assert found[2] == ("lock:a", 1, [pushed[0]])

    def test_waiting_tasks_are_known_and_right(self, backend: StateBackend, queue: str) -> None:
        entries = [locked("a"), locked("a"), limited("x", lock="b")]
        backend.push(queue, entries)
        claim(backend, queue, 10)
        known = [entry.agent_id for entry in entries]
        assert backend.unknown_tasks(queue, known) == []
        assert backend.compare(queue, entries, LONG_LEASE) == Comparison([], [])
        assert {*backend.list_tasks(queue, "").agent_ids} == {*known}
        assert claim(backend, queue, 10) == []

    @pytest.mark.parametrize("recorded", ["lock", "none"])
    def test_a_lock_that_the_record_contradicts_is_wrong(
        self, backend: StateBackend, queue: str, recorded: str
    ) -> None:
        entry = locked("a")
        plain = entry._replace(groups=())
        backend.push(queue, [plain if recorded == "lock" else entry])
        by_record = entry if recorded == "lock" else plain
        assert backend.compare(queue, [by_record], LONG_LEASE) == Comparison([], [entry.agent_id])
        backend.remove(queue, [entry.agent_id])
        backend.push(queue, [by_record])
        assert backend.compare(queue, [by_record], LONG_LEASE) == Comparison([], [])

    def test_a_renewed_task_leaves_the_line(self, backend: StateBackend, queue: str) -> None:
        pushed = push_new(backend, queue, [limited() for _ in range(2)])
        [lease] = claim_limited(backend, queue, 1)
        # Its lease expires and it returns, the other one is let in, and it waits when its worker renews the lease.
        backend.release(queue, lease)
        [other] = claim_limited(backend, queue, 1, limit=1)
        if other.agent_id == lease.agent_id:
            return  # put in front, it was claimed again: nothing to renew
        claim_limited(backend, queue, 1)
        assert backend.renew(queue, "worker", [lease], LONG_LEASE).taken == []
        backend.finish(queue, [lease, other])
        assert claim_limited(backend, queue, 1) == []
        assert backend.unknown_tasks(queue, pushed) == pushed

    def test_a_limit_lets_so_many_in(self, backend: StateBackend, queue: str) -> None:
        pushed = push_new(backend, queue, [limited("x") for _ in range(5)])
        others = push_new(backend, queue, [limited("y") for _ in range(2)])
        assert ids(claim_limited(backend, queue, 2)) == [*pushed[:2], *others]
        assert claim_limited(backend, queue, 2) == []
        backend.finish(queue, [Lease(pushed[0], 1)])
        assert ids(claim_limited(backend, queue, 2)) == [pushed[2]]
        backend.finish(queue, [Lease(pushed[1], 1), Lease(pushed[2], 1)])
        assert ids(claim_limited(backend, queue, 2)) == pushed[3:]

    def test_a_released_task_leaves_its_limit(self, backend: StateBackend, queue: str) -> None:
        pushed = push_new(backend, queue, [limited() for _ in range(2)])
        [lease] = claim_limited(backend, queue, 1)
        assert claim_limited(backend, queue, 1) == []
        backend.release(queue, lease, delay=LONG_LEASE)
        assert ids(claim_limited(backend, queue, 1)) == pushed[1:]
        backend.make_ready(queue, pushed[:1])
        assert claim_limited(backend, queue, 1) == []
        backend.remove(queue, pushed[1:])
        assert claim_limited(backend, queue, 1) == [Lease(pushed[0], 2)]

    def test_the_limit_of_the_claim_counts(self, backend: StateBackend, queue: str) -> None:
        pushed = push_new(backend, queue, [limited() for _ in range(12)])
        claimed = claim_limited(backend, queue, 1)
        assert ids(claimed) == pushed[:1]
        backend.finish(queue, claimed)
        running: list[Lease] = []
        while leases := claim_limited(backend, queue, 4):
            running += leases
        assert ids(running) == pushed[1:5]
        backend.finish(queue, running[:2])
        assert claim_limited(backend, queue, 2) == []
        backend.finish(queue, running[2:])
        running = []
        while leases := claim(backend, queue, 100):  # by a worker that declares none
            running += leases
        assert ids(running) == pushed[5:]

    def test_a_lock_is_taken_in_order_also_by_a_task_that_waits_for_its_limit(
        self, backend: StateBackend, queue: str
    ) -> None:
        first, second, third = push_new(backend, queue, [limited("x"), limited("x", lock="a"), locked("a")])
        assert ids(claim_limited(backend, queue, 1)) == [first]
        assert claim_limited(backend, queue, 1) == []
        backend.finish(queue, [Lease(first, 1)])
        assert ids(claim_limited(backend, queue, 1)) == [second]
        backend.finish(queue, [Lease(second, 1)])
        assert ids(claim_limited(backend, queue, 1)) == [third]

    def test_a_thousand_keys(self, backend: StateBackend, queue: str) -> None:
        entries = [locked(f"user:{number % 1_000}") for number in range(3_000)]
        order: dict[tuple[str, ...], list[UUID]] = defaultdict(list)
        for start in range(0, len(entries), 500):
            backend.push(queue, entries[start : start + 500])
        for entry in entries:
            order[entry.groups].append(entry.agent_id)
        groups = {entry.agent_id: entry.groups for entry in entries}
        ran: dict[tuple[str, ...], list[UUID]] = defaultdict(list)
        done = 0
        while done < len(entries):
            leases = claim(backend, queue, 200)
            held = [groups[lease.agent_id] for lease in leases]
            assert leases and len(held) == len({*held})
            for lease in leases:
                ran[groups[lease.agent_id]].append(lease.agent_id)
            backend.finish(queue, leases)
            done += len(leases)
        assert ran == order
        assert backend.depth(queue) == Depth(0, 0, 0)

    def test_threads_never_have_one_lock_together(self, backend: StateBackend, queue: str) -> None:
        entries = [locked(f"{number % 7}") for number in range(210)]
        backend.push(queue, entries)
        groups = {entry.agent_id: entry.groups for entry in entries}
        order: dict[tuple[str, ...], list[UUID]] = defaultdict(list)
        busy: set[tuple[str, ...]] = set()
        ended: list[UUID] = []
        deadline = time.monotonic() + 3 * WAIT_TIMEOUT

        def work(number: int) -> None:
            while len(ended) < len(entries):
                assert time.monotonic() < deadline, f"{len(ended)} of {len(entries)} ended"
                leases = claim(backend, queue, 5, worker=f"worker-{number}")
                for lease in leases:
                    group = groups[lease.agent_id]
                    assert group not in busy
                    busy.add(group)
                    order[group].append(lease.agent_id)
                for lease in leases:
                    busy.discard(groups[lease.agent_id])
                    backend.finish(queue, [lease])
                    ended.append(lease.agent_id)
                if not leases:
                    time.sleep(0.002)

        with ThreadPoolExecutor(6) as threads:
            for outcome in [threads.submit(work, number) for number in range(6)]:
                outcome.result(4 * WAIT_TIMEOUT)
        for group, ran in order.items():
            assert ran == [entry.agent_id for entry in entries if entry.groups == group]

    @pytest.mark.parametrize("seed", range(4))
    def test_random_calls_keep_the_promises(self, backend: StateBackend, queue: str, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - no secret
        model = GroupModel(backend, queue, concurrency=2)
        for _ in range(120):
            action = chance.choice(["push", "push", "claim", "claim", "finish", "release", "remove"])
            if action == "push":
                model.push(chance.choice([None, "a", "b"]), chance.choice([None, "x", "y"]))
            elif action == "claim":
                model.claim(chance.randint(1, 4))
            elif action == "remove":
                model.remove(chance)
            elif model.leases:
                model.give_back(chance.choice([*model.leases]), ends=action == "finish")
        while model.entries:
            # Nobody is starved: whatever is left ends.
            assert model.claim(100) or model.leases, model.entries
            for agent_id in [*model.leases]:
                model.give_back(agent_id, ends=True)
        assert backend.depth(queue) == Depth(0, 0, 0)


class GroupModel:
    """Tasks of a queue as they must be: each call fails if a lock has two holders, or a limit too many tasks.

    The tasks of a lock start in the order in which they were pushed.
    """

    def __init__(self, backend: StateBackend, queue: str, concurrency: int) -> None:
        self._backend = backend
        self._queue = queue
        self._concurrency = concurrency
        self._holders: dict[str, UUID] = {}
        self.entries: dict[UUID, Entry] = {}
        self.leases: dict[UUID, Lease] = {}

    def push(self, lock: str | None, key: str | None) -> None:
        """Push a task."""
        entry = Entry(new_agent_id(), groups=groups_of(LIMITED, lock, key))
        self.entries[entry.agent_id] = entry
        self._backend.push(self._queue, [entry])

    def claim(self, limit: int) -> bool:
        """Claim tasks, and return True if there were any."""
        claimed = claim_limited(self._backend, self._queue, self._concurrency, limit=limit)
        for lease in claimed:
            self.leases[lease.agent_id] = lease
            for group in self.entries[lease.agent_id].groups:
                self._check(group, lease.agent_id)
        return bool(claimed)

    def _check(self, group: str, agent_id: UUID) -> None:
        if not group.startswith("lock:"):
            assert sum(group in self.entries[leased].groups for leased in self.leases) <= self._concurrency
        elif self._holders.get(group) is None:
            assert agent_id == next(known for known, entry in self.entries.items() if group in entry.groups)
            self._holders[group] = agent_id
        else:
            assert self._holders[group] == agent_id

    def remove(self, chance: random.Random) -> None:
        """Remove any task."""
        if self.entries:
            agent_id = chance.choice([*self.entries])
            self._backend.remove(self._queue, [agent_id])
            self._forget(agent_id)

    def give_back(self, agent_id: UUID, *, ends: bool) -> None:
        """Finish or release a leased task."""
        lease = self.leases.pop(agent_id)
        if ends:
            self._backend.finish(self._queue, [lease])
            self._forget(agent_id)
        else:
            assert self._backend.release(self._queue, lease)

    def _forget(self, agent_id: UUID) -> None:
        self.leases.pop(agent_id, None)
        for group in self.entries.pop(agent_id).groups:
            if self._holders.get(group) == agent_id:
                del self._holders[group]
