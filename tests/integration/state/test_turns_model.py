"""The bound of fairness keys, over random pushes and claims on every backend.

A task whose key has nothing else waiting is claimed after at most as many tasks of another key as that key's weight by its own,
rounded up. Every task is claimed once, so no key starves.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.db.engine import open_engine
from agentexec.schema.migrate import upgrade
from agentexec.state import memory_backend, redis_backend, sql_backend
from agentexec.state.backend import StateBackend
from agentexec.task import Entry, Priority, new_agent_id
from tests.conftest import SERVER_DATABASES

WEIGHTS: dict[str | None, float] = {None: 1.0, "one": 1.0, "other": 1.0, "half": 0.5, "double": 2.0}

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from(list(WEIGHTS)), st.integers(1, 6)),
        st.tuples(st.just("claim"), st.none(), st.integers(1, 7)),
    ),
    max_size=25,
)

BOUNDED = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def memory(_request: pytest.FixtureRequest) -> StateBackend:
    return memory_backend.create(Settings(), create_engine("sqlite://"))


def redis(request: pytest.FixtureRequest) -> StateBackend:
    url = request.getfixturevalue("valkey_url")
    return redis_backend.create(Settings(redis_url=url), create_engine("sqlite://"))


def sql(request: pytest.FixtureRequest, url: str) -> StateBackend:
    engine = open_engine(request.getfixturevalue(url))
    upgrade(engine)
    return sql_backend.create(Settings(), engine)


def sqlite(request: pytest.FixtureRequest) -> StateBackend:
    return sql(request, "sqlite_url")


def postgres(request: pytest.FixtureRequest) -> StateBackend:
    return sql(request, "postgres_url")


def mariadb(request: pytest.FixtureRequest) -> StateBackend:
    return sql(request, "mariadb_url")


BACKENDS: list[Any] = [
    memory,
    redis,
    sqlite,
    *(
        pytest.param({"postgres": postgres, "mariadb": mariadb}[name], marks=pytest.mark.thorough)
        for name in SERVER_DATABASES
    ),
]


@pytest.fixture(params=BACKENDS, ids=lambda make: make.__name__)
def backend(request: pytest.FixtureRequest) -> Iterator[StateBackend]:
    make: Callable[[pytest.FixtureRequest], StateBackend] = request.param
    backend = make(request)
    yield backend
    backend.close()


class Waiting:
    """Tasks that were pushed and not claimed yet, with what was claimed since each key's first task came."""

    def __init__(self) -> None:
        self.tasks: dict[str | None, deque[UUID]] = {key: deque() for key in WEIGHTS}
        self.claimed_since: dict[str | None, Counter[str | None]] = {}
        """For each key that had nothing waiting when a task came, which is not claimed yet."""

    def push(self, key: str | None, ids: list[UUID]) -> None:
        if not self.tasks[key]:
            self.claimed_since[key] = Counter()
        self.tasks[key].extend(ids)

    def claim(self, agent_id: UUID) -> None:
        [key] = [key for key, ids in self.tasks.items() if agent_id in ids]
        assert self.tasks[key].popleft() == agent_id, f"{key} is first in, first out"
        for other, number in self.claimed_since.pop(key, Counter()).items():
            assert number <= math.ceil(WEIGHTS[other] / WEIGHTS[key]), f"{key} waited for {number} of {other}"
        for counter in self.claimed_since.values():
            counter[key] += 1


@given(steps=STEPS)
@BOUNDED
def test_a_task_waits_for_one_turn_of_the_other_keys(
    backend: StateBackend, steps: list[tuple[str, str | None, int]]
) -> None:
    queue, waiting = f"turns-{uuid4().hex}", Waiting()

    def claim(number: int) -> int:
        claimed = backend.claim(queue, "worker", limit=number, low_quota=0, lease_seconds=60).leases
        for lease in claimed:
            waiting.claim(lease.agent_id)
        return len(claimed)

    for step, key, number in steps:
        if step == "claim":
            ready = sum(map(len, waiting.tasks.values()))
            assert claim(number) == min(number, ready)
            continue
        entries = [
            Entry(new_agent_id(), Priority.LOW, fairness_key=key, fairness_weight=WEIGHTS[key])
            for _ in range(number)
        ]
        waiting.push(key, [entry.agent_id for entry in entries])
        backend.push(queue, entries)
    while claim(5):
        pass
    assert not any(waiting.tasks.values())
