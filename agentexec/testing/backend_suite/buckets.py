"""Tests of token buckets, which all processes share."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from agentexec.llm.rate_limits import Demand
from agentexec.state.backend import StateBackend
from agentexec.testing.backend_suite.operations import wait_until

SLOW = 1 / 3600
"""Units per second: too few for a refill within a test."""


class BucketTests:
    """Tests of reserve and settle."""

    def test_a_bucket_gives_what_it_holds(self, backend: StateBackend, name: str) -> None:
        demand = [Demand(name, 1, 3, SLOW)]
        assert [backend.reserve(demand, 0) for _ in range(3)] == [0, 0, 0]
        wait = backend.reserve(demand, 0)
        assert 3590 < wait <= 3600
        assert backend.reserve(demand, 0) <= wait  # a refused reservation takes nothing
        assert backend.reserve([Demand(f"{name}-other", 1, 3, SLOW)], 0) == 0
        assert backend.reserve([], 0) == 0

    def test_a_bucket_is_refilled(self, backend: StateBackend, name: str) -> None:
        demand = [Demand(name, 1, 1, 20)]
        assert backend.reserve(demand, 0) == 0
        wait = wait_until(lambda: backend.reserve(demand, 0))  # 0 if it was refilled in between
        assert 0 < wait <= 0.05
        time.sleep(wait)
        assert backend.reserve(demand, 0) == 0

    def test_reservations_that_may_wait_are_served_in_turn(self, backend: StateBackend, name: str) -> None:
        demand = [Demand(name, 1, 1, 0.01)]
        waits = [backend.reserve(demand, 350) for _ in range(5)]
        assert waits[0] == 0
        assert all(
            expected - 5 < wait <= expected
            for wait, expected in zip(waits[1:4], (100, 200, 300), strict=True)
        )
        assert 395 < waits[4] <= 400  # longer than max_wait: nothing is taken
        assert 395 < backend.reserve(demand, 400) <= 400

    def test_several_buckets_give_all_or_nothing(self, backend: StateBackend, name: str) -> None:
        requests, tokens = Demand(f"{name}-b", 1, 10, SLOW), Demand(f"{name}-a", 80, 100, SLOW)
        assert backend.reserve([requests, tokens], 0) == 0
        assert backend.reserve([requests, tokens], 0) > 3600
        nine = requests._replace(amount=9)
        assert backend.reserve([nine], 0) == 0
        assert backend.reserve([requests], 0) > 0

    def test_more_than_a_bucket_holds_is_given_when_it_is_full(
        self, backend: StateBackend, name: str
    ) -> None:
        assert backend.reserve([Demand(name, 50, 10, SLOW)], 0) == 0
        assert 49 * 3600 - 5 < backend.reserve([Demand(name, 9, 10, SLOW)], 0) <= 49 * 3600

    def test_a_reservation_is_corrected(self, backend: StateBackend, name: str) -> None:
        ten = Demand(name, 10, 10, SLOW)
        assert backend.reserve([ten], 0) == 0
        backend.settle([ten._replace(amount=-4)])
        assert backend.reserve([ten._replace(amount=5)], 0) > 0
        assert backend.reserve([ten._replace(amount=4)], 0) == 0
        backend.settle([ten._replace(amount=100)])
        assert backend.reserve([ten._replace(amount=1)], 0) > 100 * 3600
        backend.settle([])

    def test_many_threads_together_take_no_more_than_the_bucket_holds(
        self, backend: StateBackend, name: str
    ) -> None:
        demand = [Demand(f"{name}-b", 1, 25, SLOW), Demand(f"{name}-a", 1, 1000, SLOW)]
        with ThreadPoolExecutor(8) as threads:
            waits = list(threads.map(lambda _: backend.reserve(demand, 0), range(60)))
        assert waits.count(0) == 25
