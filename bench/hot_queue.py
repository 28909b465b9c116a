"""Processor time that one queue costs its Redis: what a single shard can do for it.

Run `python -m bench.hot_queue`: it starts a Valkey, and a task is pushed, claimed, renewed once and finished, in batches of several sizes.
"""

from __future__ import annotations

import time

from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.state.redis_backend import create
from agentexec.task import Entry, new_agent_id
from tests.servers import Valkey

ROUNDS = {1: 4_000, 10: 2_000, 100: 200}
"""Rounds for each size of a batch."""


def main() -> None:
    """Print the server's processor time for a task."""
    with Valkey() as server, server.client() as client:
        backend = create(Settings(redis_url=server.url), create_engine("sqlite://"))

        def used() -> float:
            facts = client.info("cpu")
            return facts["used_cpu_user"] + facts["used_cpu_sys"]

        for size, rounds in ROUNDS.items():
            before, started = used(), time.monotonic()
            for _ in range(rounds):
                backend.push("hot", [Entry(new_agent_id()) for _ in range(size)])
                leases = backend.claim("hot", "worker", limit=size, low_quota=size, lease_seconds=60).leases
                backend.renew("hot", "worker", leases, 60)
                backend.finish("hot", leases)
            tasks, seconds = size * rounds, used() - before
            rate = tasks / (time.monotonic() - started)
            print(
                f"{size} at once: {seconds / tasks * 1e6:.0f} µs of the server for a task, so {tasks / seconds:,.0f} tasks/s at most; "
                f"{rate:,.0f}/s by one client"
            )
        backend.close()


if __name__ == "__main__":
    main()
