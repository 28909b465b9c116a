"""The schedule of faults: what is done to which host or server, and when, drawn from a seed.

The same seed, length and target give the same schedule. What a fault hits at its moment depends on timing: `pick` chooses
among the processes that then live.
"""

from __future__ import annotations

import dataclasses
import random

HOSTS = ("near", "far", "skewed")
"""Hosts of a deployment: two seem to share a machine, and `far` to have one of its own. The clock of `skewed` is wrong."""

PAUSE = 2.5
"""Seconds from one fault to the next, on average."""

LONGEST = 9.0
"""Longest outage in seconds, which is longer than a lease and than the time after which a host counts as dead."""

HOST_FAULTS = {
    "kill-worker": 12,
    "kill-template": 2,
    "kill-maintenance": 2,
    "kill-supervisor": 2,
    "kill-host": 3,
    "stop-worker": 4,
    "stop-maintenance": 2,
    "stop-supervisor": 1,
    "freeze-host": 2,
    "deploy": 2,
    "reload": 2,
}
"""Faults of one host, each with its weight. `deploy` ends a host in order and starts it again; `reload` is SIGHUP."""

NETWORK_FAULTS = {"cut-redis": 3, "cut-database": 3, "stall-redis": 2, "stall-database": 2, "partition": 2}
"""Faults between a host and the servers: connections reset and refused, or silent."""

SERVER_FAULTS = {
    "empty-redis": 2,
    "restart-redis": 2,
    "freeze-redis": 1,
    "fill-redis": 2,
    "failover-redis": 2,
    "restart-database": 2,
    "freeze-database": 1,
}
DYNAMODB_FAULTS = {
    "cut-dynamodb": 3,
    "stall-dynamodb": 2,
    "restart-dynamodb": 2,
    "lose-dynamodb": 2,
    "freeze-dynamodb": 1,
    "throttle-dynamodb": 3,
    "drop-dynamodb": 3,
    "delay-dynamodb": 2,
}
"""`lose` kills the server and its table; the others keep it. `drop` and `delay` are about answers to requests that took effect."""

LONG = 300.0
"""Seconds of a run from which on it has these faults too, which take half a minute each."""

LONG_FAULTS = {"move-queue": 1}
"""`move-queue` moves all queues from the queue's server to the database or back, with the command killed on the way."""

EMBEDDED_FAULTS = {"lock-database": 4}
PRODUCER_FAULTS = {"kill-producer": 3}

WITH_REDIS, WITH_DATABASE, EMBEDDED = "valkey+postgres", "postgres", "embedded"
WITH_DYNAMODB = "dynamodb+postgres"
TARGETS = (EMBEDDED, WITH_DATABASE, WITH_REDIS, WITH_DYNAMODB)


@dataclasses.dataclass(frozen=True)
class Action:
    """A fault. `at` is in seconds after the start; `host` and `pick` tell what it hits; `seconds` is its length."""

    at: float
    kind: str
    host: str
    pick: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.kind} {self.host} for {self.seconds:.1f} s (pick {self.pick:.2f})"


def draw_plan(seed: int, seconds: float, target: str, pause: float = PAUSE) -> list[Action]:
    """Return the faults of a run in order. The first comes at once, and the last one ends before `seconds`."""
    chance = random.Random(seed)
    weights = _weights(target, seconds)
    plan: list[Action] = []
    at = chance.expovariate(1 / pause)
    while at < seconds:
        [kind] = chance.choices(list(weights), list(weights.values()))
        plan.append(Action(at, kind, chance.choice(HOSTS), chance.random(), chance.uniform(0.3, LONGEST)))
        at += chance.expovariate(1 / pause)
    return plan


def clock_offset(seed: int, target: str) -> float:
    """Return the seconds by which the clock of the host `skewed` is ahead.

    SQLite has no clock but those of its users, and AWS refuses requests that are signed minutes away from its own.
    """
    if target == EMBEDDED:
        return 0.0
    offsets = [-120.0, 120.0] if target == WITH_DYNAMODB else [-3600.0, -120.0, 120.0, 3600.0]
    return random.Random(f"clock {seed}").choice(offsets)


def _weights(target: str, seconds: float) -> dict[str, int]:
    if target == EMBEDDED:
        return {**HOST_FAULTS, **PRODUCER_FAULTS, **EMBEDDED_FAULTS}
    weights = {**HOST_FAULTS, **PRODUCER_FAULTS, **NETWORK_FAULTS, **SERVER_FAULTS}
    long_faults = LONG_FAULTS if seconds >= LONG else {}
    if target == WITH_REDIS:
        return weights | long_faults
    weights = {kind: weight for kind, weight in weights.items() if "redis" not in kind}
    return weights | DYNAMODB_FAULTS | long_faults if target == WITH_DYNAMODB else weights
