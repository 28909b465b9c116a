"""Shares of queues: strict order, or exactly by weight, whatever the claims' sizes."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from agentexec.arguments.served_queues import parse_queues
from agentexec.worker.queue_shares import QueueShares


class Claiming:
    """Claims from queues that hold so many tasks."""

    def __init__(self, queues: str, **tasks: int) -> None:
        self.names = [queue.name for queue in parse_queues(queues)]
        self.shares = QueueShares(parse_queues(queues))
        self.tasks = Counter(tasks)
        self.claimed: Counter[str] = Counter()
        self.calls = 0

    def claim(self, limit: int) -> Counter[str]:
        """Claim up to `limit` tasks, and return how many came from each queue."""
        before = Counter(self.claimed)
        self.shares.fill(self.names, limit, self._claim)
        return self.claimed - before

    def _claim(self, queue: str, number: int) -> int:
        got = min(number, self.tasks[queue])
        self.tasks[queue] -= got
        self.claimed[queue] += got
        self.calls += 1
        return got


def test_in_order_the_first_queue_comes_first() -> None:
    claiming = Claiming("high,default,low", high=3, default=2, low=9)
    assert claiming.claim(2) == {"high": 2}
    assert claiming.calls == 1, "nobody asks the others"
    assert claiming.claim(4) == {"high": 1, "default": 2, "low": 1}
    claiming.tasks["high"] += 1
    assert claiming.claim(1) == {"high": 1}


@pytest.mark.parametrize("largest", [1, 2, 7, 50])
@pytest.mark.parametrize("weights", [(3, 1), (1, 1), (5, 3, 2), (1, 10, 100)])
def test_by_weight_the_proportion_is_exact_after_every_claim(weights: tuple[int, ...], largest: int) -> None:
    sizes = random.Random(1)
    names = [f"q{number}" for number in range(len(weights))]
    text = ",".join(f"{name}:{weight}" for name, weight in zip(names, weights, strict=True))
    claiming = Claiming(text, **dict.fromkeys(names, 100_000))
    for _ in range(300):
        claiming.claim(sizes.randint(1, largest))
        total = sum(claiming.claimed.values())
        for name, weight in zip(names, weights, strict=True):
            assert abs(claiming.claimed[name] - total * weight / sum(weights)) <= len(weights) - 1


def test_what_a_queue_leaves_goes_to_the_others_at_once() -> None:
    claiming = Claiming("high:3,default:1", high=1, default=100)
    assert claiming.claim(20) == {"high": 1, "default": 19}
    assert claiming.claim(20) == {"default": 20}
    claiming = Claiming("a:1,b:1,c:1", a=1, b=2, c=100)
    assert claiming.claim(30) == {"a": 1, "b": 2, "c": 27}


def test_a_queue_that_had_no_tasks_does_not_catch_up() -> None:
    claiming = Claiming("high:1,default:1", default=100)
    for _ in range(10):
        claiming.claim(5)
    claiming.tasks["high"] = 100
    assert claiming.claim(10) == {"high": 5, "default": 5}


def test_a_queue_that_is_not_asked_takes_no_part() -> None:
    claiming = Claiming("high:9,default:1", high=100, default=100)
    claiming.names = ["default"]
    assert claiming.claim(8) == {"default": 8}
    assert claiming.calls == 1
