"""Tests of fairness keys: the tasks of each key take turns with those of the others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from agentexec.state.backend import Comparison, Depth, StateBackend
from agentexec.task import Entry, Lease, Priority, new_agent_id
from agentexec.testing.backend_suite.operations import LONG_LEASE, SHORT_LEASE, claim, ids, wait_until

BACKLOG = 2500
"""Tasks of a key in whose backlog another key's task must not wait: more than a backend handles in one call."""


def push_keyed(
    backend: StateBackend,
    queue: str,
    key: str | None,
    count: int = 1,
    priority: Priority = Priority.LOW,
    *,
    weight: float = 1.0,
    run_at: float = 0.0,
) -> list[UUID]:
    """Push new tasks of a key in one call, and return their ids."""
    entries = [
        Entry(new_agent_id(), priority, run_at, fairness_key=key, fairness_weight=weight)
        for _ in range(count)
    ]
    backend.push(queue, entries)
    return [entry.agent_id for entry in entries]


def claim_singly(backend: StateBackend, queue: str, count: int) -> list[UUID]:
    """Claim one task at a time, `count` times."""
    return [agent_id for _ in range(count) for agent_id in ids(claim(backend, queue))]


def count_in(claimed: Sequence[UUID], **pushed: Sequence[UUID]) -> dict[str, int]:
    """Return how many of the claimed tasks are in each group."""
    groups = {agent_id: name for name, group in pushed.items() for agent_id in group}
    return dict(Counter(groups[agent_id] for agent_id in claimed))


class FairnessTests:
    """Tests of the order of tasks with fairness keys, and of everything else that must hold for them too."""

    @pytest.mark.parametrize("backlog", ["a", None])
    @pytest.mark.parametrize("late", ["b", None])
    def test_a_backlog_delays_the_task_of_another_key_by_one_turn(
        self, backend: StateBackend, queue: str, backlog: str | None, late: str | None
    ) -> None:
        many = push_keyed(backend, queue, backlog, BACKLOG)
        assert ids(claim(backend, queue, 5)) == many[:5]
        lone = push_keyed(backend, queue, late)
        if backlog == late:
            assert lone[0] not in ids(claim(backend, queue, 100))
        else:
            assert lone[0] in ids(claim(backend, queue, 3))
        assert backend.depth(queue).leased in (8, 105)

    def test_a_task_waits_for_one_turn_of_the_other_keys(self, backend: StateBackend, queue: str) -> None:
        keys = [f"tenant-{number}" for number in range(20)]
        for key in keys:
            push_keyed(backend, queue, key, 30)
        claim_singly(backend, queue, 33)
        lone = push_keyed(backend, queue, "late")
        before = claim_singly(backend, queue, len(keys) + 1)
        assert lone[0] in before

    def test_keys_take_turns_and_each_is_first_in_first_out(self, backend: StateBackend, queue: str) -> None:
        pushed = {key: push_keyed(backend, queue, key, 10) for key in "abc"}
        claimed = ids(claim(backend, queue, 12)) + claim_singly(backend, queue, 18)
        for start in range(0, 30, 3):
            assert count_in(claimed[start : start + 3], **pushed) == {"a": 1, "b": 1, "c": 1}
        for key, group in pushed.items():
            assert [agent_id for agent_id in claimed if agent_id in group] == group, key

    def test_a_key_gets_as_many_tasks_in_a_turn_as_its_weight(
        self, backend: StateBackend, queue: str
    ) -> None:
        heavy = push_keyed(backend, queue, "heavy", 60, weight=3.0)
        light = push_keyed(backend, queue, "light", 60)
        slow = push_keyed(backend, queue, "slow", 60, weight=0.5)
        found = count_in(ids(claim(backend, queue, 45)), heavy=heavy, light=light, slow=slow)
        assert abs(found["heavy"] - 30) <= 2
        assert abs(found["light"] - 10) <= 1
        assert abs(found["slow"] - 5) <= 1

    def test_tasks_without_a_key_are_those_of_one_more_key(self, backend: StateBackend, queue: str) -> None:
        plain = push_keyed(backend, queue, None, 20)
        pushed = {key: push_keyed(backend, queue, key, 20) for key in "ab"}
        claimed = claim_singly(backend, queue, 15) + ids(claim(backend, queue, 15))
        found = count_in(claimed, plain=plain, **pushed)
        assert all(9 <= found[name] <= 11 for name in ("plain", "a", "b"))
        assert [agent_id for agent_id in claimed if agent_id in plain] == plain[: found["plain"]]

    def test_a_key_is_not_behind_because_it_was_alone(self, backend: StateBackend, queue: str) -> None:
        push_keyed(backend, queue, None, 30)
        first = push_keyed(backend, queue, "a", 2)
        claim_singly(backend, queue, 32)
        plain, again = push_keyed(backend, queue, None, 10), push_keyed(backend, queue, "a", 10)
        found = count_in(claim_singly(backend, queue, 10), plain=plain, again=again)
        assert first and abs(found["plain"] - found["again"]) <= 2

    def test_a_key_whose_tasks_come_one_by_one_has_no_advantage(
        self, backend: StateBackend, queue: str
    ) -> None:
        backlog = push_keyed(backend, queue, "backlog", 40)
        single = push_keyed(backend, queue, "single", weight=2.0)
        claimed: list[UUID] = []
        for _ in range(30):
            claimed += ids(claim(backend, queue))
            if claimed[-1] in single:
                single += push_keyed(backend, queue, "single", weight=2.0)
        found = count_in(claimed, backlog=backlog, single=single)
        assert found["backlog"] >= 9

    def test_canceled_tasks_leave_no_gap(self, backend: StateBackend, queue: str) -> None:
        canceled = push_keyed(backend, queue, "a", 1500)
        others = push_keyed(backend, queue, "b", 20)
        claim_singly(backend, queue, 4)
        backend.remove(queue, canceled)
        lone = push_keyed(backend, queue, "a")
        assert lone[0] in claim_singly(backend, queue, 3)
        assert len(others) == 20

    def test_priority_is_above_turns(self, backend: StateBackend, queue: str) -> None:
        low = push_keyed(backend, queue, "b")
        high = push_keyed(backend, queue, "a", 20, Priority.HIGH)
        assert claim_singly(backend, queue, 21) == [*high, *low]

    def test_the_quota_of_low_is_taken_in_turns(self, backend: StateBackend, queue: str) -> None:
        high = push_keyed(backend, queue, "a", 20, Priority.HIGH)
        low = push_keyed(backend, queue, "a", 20) + push_keyed(backend, queue, "b", 1)
        claimed = ids(claim(backend, queue, 10, low_quota=2))
        assert count_in(claimed, high=high, low=low) == {"high": 8, "low": 2}
        assert low[-1] in claimed

    def test_delayed_tasks_take_turns_when_they_are_due(self, backend: StateBackend, queue: str) -> None:
        due = time.time() + 0.3
        many = push_keyed(backend, queue, "a", 20, run_at=due)
        few = push_keyed(backend, queue, "b", 3, run_at=due + 0.05)
        wait_until(lambda: backend.depth(queue).ready == 23)
        assert count_in(ids(claim(backend, queue, 6)), many=many, few=few) == {"many": 3, "few": 3}

    def test_a_delayed_task_with_a_key_is_made_ready(self, backend: StateBackend, queue: str) -> None:
        [agent_id] = push_keyed(backend, queue, "a", run_at=time.time() + LONG_LEASE)
        assert (backend.claim(queue, "w", limit=1, low_quota=0, lease_seconds=1).next_due or 0) > 1
        backend.make_ready(queue, [agent_id])
        assert backend.depth(queue) == Depth(1, 0, 0)
        assert claim(backend, queue) == [Lease(agent_id, 1)]

    def test_a_released_task_goes_to_the_front(self, backend: StateBackend, queue: str) -> None:
        pushed = push_keyed(backend, queue, "a", 3) + push_keyed(backend, queue, "b", 3)
        [first, *others] = claim(backend, queue, 3)
        assert backend.release(queue, first)
        assert claim(backend, queue) == [Lease(first.agent_id, 2)]
        assert backend.release(queue, others[0], delay=LONG_LEASE)
        assert backend.depth(queue) == Depth(3, 1, 2)
        backend.make_ready(queue, [others[0].agent_id])
        left = {*pushed} - {first.agent_id, others[1].agent_id}
        assert {*ids(claim(backend, queue, 10))} == left

    def test_a_released_task_keeps_its_key(self, backend: StateBackend, queue: str) -> None:
        push_keyed(backend, queue, "a")
        [lease] = claim(backend, queue)
        assert backend.release(queue, lease, delay=SHORT_LEASE)
        many = push_keyed(backend, queue, "a", 20)
        wait_until(lambda: backend.depth(queue).delayed == 0)
        claim_singly(backend, queue, 5)
        lone = push_keyed(backend, queue, "b")
        assert lone[0] in claim_singly(backend, queue, 2)
        assert len(many) == 20

    def test_an_expired_lease_is_taken_up_again(self, backend: StateBackend, queue: str) -> None:
        push_keyed(backend, queue, "a", 2)
        [lease] = claim(backend, queue, seconds=SHORT_LEASE)
        wait_until(lambda: backend.expired_leases(queue, 10))
        assert backend.release(queue, lease)
        assert backend.renew(queue, "worker", [lease], LONG_LEASE).taken == []
        assert backend.depth(queue) == Depth(1, 0, 1)
        assert lease.agent_id not in ids(claim(backend, queue, 10))

    def test_what_the_index_knows_agrees_with_the_record(self, backend: StateBackend, queue: str) -> None:
        later = time.time() + LONG_LEASE
        ready = push_keyed(backend, queue, "a", 3) + push_keyed(backend, queue, "b", 3, Priority.HIGH)
        [delayed] = push_keyed(backend, queue, "a", run_at=later)
        restored = Entry(new_agent_id(), epoch=1, fairness_key="a")
        backend.restore(queue, [restored], LONG_LEASE)
        entries = [*map(Entry, ready), Entry(delayed, run_at=later), restored]
        known = [entry.agent_id for entry in entries]
        for _ in range(2):
            assert backend.compare(queue, entries, LONG_LEASE) == Comparison([], [])
            assert backend.unknown_tasks(queue, known) == []
            page = backend.list_tasks(queue, "")
            found = [*page.agent_ids]
            while page.cursor:
                page = backend.list_tasks(queue, page.cursor)
                found += page.agent_ids
            assert {*found} == {*known}
            backend.push(queue, entries)
        assert backend.depth(queue) == Depth(6, 1, 1)
        assert {*ids(claim(backend, queue, 10))} == {*ready}
        backend.finish(queue, [Lease(agent_id, int(agent_id != delayed)) for agent_id in known])
        assert backend.depth(queue) == Depth(0, 0, 0)

    def test_finished_and_removed_tasks_are_gone_before_their_turn(
        self, backend: StateBackend, queue: str
    ) -> None:
        finished, removed, left = push_keyed(backend, queue, "a", 3)
        backend.finish(queue, [Lease(finished, 0)])
        assert backend.remove(queue, [removed]) == {}
        assert ids(claim(backend, queue, 10)) == [left]
        assert claim(backend, queue, 10) == []
        assert backend.depth(queue) == Depth(0, 0, 1)

    def test_threads_share_out_the_tasks_of_all_keys(self, backend: StateBackend, queue: str) -> None:
        pushed = [
            agent_id
            for number in range(40)
            for agent_id in push_keyed(backend, queue, f"k{number % 8}" if number % 9 else None, 5)
        ]

        def take(number: int) -> list[UUID]:
            mine: list[UUID] = []
            while leases := claim(backend, queue, 7, worker=f"worker-{number}"):
                mine += ids(leases)
            return mine

        with ThreadPoolExecutor(4) as threads:
            claimed = [agent_id for mine in threads.map(take, range(4)) for agent_id in mine]
        # A claim may have found all that was left locked by another one.
        claimed += take(4)
        assert sorted(claimed) == sorted(pushed)
