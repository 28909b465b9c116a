"""Shares of the queues that a worker serves: in order, or in proportion to their weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from agentexec.arguments.served_queues import ServedQueue


class QueueShares:
    """Number of tasks that are claimed from each queue.

    Without weights, the first queue that has tasks gives them. With weights, each claim goes to the queue that has had
    the least by its weight. So whatever the size of the claims, the numbers differ from the exact proportion by at most one
    task for each queue, counted from when all of them have had tasks. A queue without tasks takes no part, and
    does not catch up later.

    Threads: the thread that claims calls everything.
    """

    def __init__(self, served: Sequence[ServedQueue]) -> None:
        self._weighted = served[0].weight is not None
        common = math.lcm(*(queue.weight or 1 for queue in served))
        self._cost = {queue.name: common // (queue.weight or 1) for queue in served}
        self._had = dict.fromkeys(self._cost, 0)
        """Costs of the tasks that each queue has given."""

    def fill(self, queues: Sequence[str], limit: int, claim: Callable[[str, int], int]) -> None:
        """Claim up to `limit` tasks from these queues.

        Args:
            queues: Names of the queues, in the order in which they are served.
            limit: Maximum number of tasks.
            claim: Claims up to a number of tasks from a queue, and returns how many it got.
        """
        if not self._weighted:
            for queue in queues:
                if limit < 1:
                    return
                limit -= claim(queue, limit)
            return
        left = list(queues)
        while limit > 0 and left:
            for queue, quota in self._quotas(left, limit).items():
                got = claim(queue, quota)
                limit -= got
                self._had[queue] += got * self._cost[queue]
                if got < quota:
                    left.remove(queue)
        self._forgive(queues, left)

    def _quotas(self, queues: Sequence[str], limit: int) -> dict[str, int]:
        had = {queue: self._had[queue] for queue in queues}
        quotas: dict[str, int] = {}
        for _ in range(limit):
            queue = min(queues, key=had.__getitem__)
            had[queue] += self._cost[queue]
            quotas[queue] = quotas.get(queue, 0) + 1
        return quotas

    def _forgive(self, queues: Sequence[str], busy: Sequence[str]) -> None:
        """Let the queues that have no more tasks stand where the others are, so that they do not catch up later."""
        level = min((self._had[queue] for queue in busy), default=0)
        for queue in queues:
            if queue not in busy:
                self._had[queue] = max(self._had[queue], level) if busy else 0
