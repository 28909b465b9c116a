"""Whoever can write to Redis cannot keep a fairness key from its turn, and no data there stops a claim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine

from agentexec.config import Settings
from agentexec.state import redis_backend
from agentexec.state.backend import Comparison, Depth, StateBackend
from agentexec.task import Entry, Lease, new_agent_id
from agentexec.testing.backend_suite.fairness import claim_singly, push_keyed
from agentexec.testing.backend_suite.operations import LONG_LEASE, claim, claim_all, ids

KEYS = ("a", "b", "c")


class Forgery:
    """A queue with three tasks of each of three keys, of which one has been claimed, and its keys in Redis."""

    def __init__(self, backend: redis_backend.RedisBackend) -> None:
        self.backend: StateBackend = backend
        self.redis: Any = backend._single_try_client
        self.queue = f"forged-{uuid4().hex}"
        self.keys = backend._keys(self.queue)
        self.pushed = {key: push_keyed(backend, self.queue, key, 3) for key in KEYS}
        self.claimed = ids(claim(backend, self.queue))

    @property
    def waiting(self) -> set[UUID]:
        return {agent_id for group in self.pushed.values() for agent_id in group} - {*self.claimed}

    def flows(self) -> list[bytes]:
        return list(self.redis.zrange(self.keys.turn_low, 0, -1))


@pytest.fixture
def forgery(valkey_url: str) -> Iterator[Forgery]:
    backend = redis_backend.create(Settings(redis_url=valkey_url), create_engine("sqlite://"))
    yield Forgery(backend)
    backend.close()


@pytest.mark.parametrize("turn", ["-inf", "+inf", "1e300", "-1e300", "9007199254740993", "-5"])
@pytest.mark.parametrize("last", ["1e300 1e300", "99999999999999999 0", "-1 -1", "none"])
def test_forged_turns_are_set_again(forgery: Forgery, turn: str, last: str) -> None:
    forgery.redis.zadd(forgery.keys.turn_low, {forgery.flows()[0]: turn})
    forgery.redis.hset(forgery.keys.flow, "l", last)
    push_keyed(forgery.backend, forgery.queue, "late")
    claimed = claim_singly(forgery.backend, forgery.queue, 8)
    for group in forgery.pushed.values():
        assert len({*group} & {*claimed[:4]}) >= 1, "no key waits for ever"
    assert forgery.waiting < {*claimed, *ids(claim_all(forgery.backend, forgery.queue))}


def test_a_key_without_a_turn_comes_back_by_the_record(forgery: Forgery) -> None:
    forgery.redis.delete(forgery.keys.turn_low)
    assert claim(forgery.backend, forgery.queue, 10) == []
    waiting = sorted(forgery.waiting)
    found = forgery.backend.compare(forgery.queue, [*map(Entry, waiting)], LONG_LEASE)
    assert found == Comparison(waiting, [])
    forgery.backend.push(forgery.queue, [Entry(agent_id, fairness_key="a") for agent_id in waiting])
    assert forgery.backend.depth(forgery.queue).ready == len(waiting)
    assert sorted(ids(claim_all(forgery.backend, forgery.queue))) == waiting
    assert forgery.backend.depth(forgery.queue) == Depth(0, 0, 9)


def test_what_belongs_to_no_task_stops_no_claim_and_goes(forgery: Forgery) -> None:
    flow = forgery.flows()[0].decode()
    stranger, leased = new_agent_id().hex, forgery.claimed[0].hex
    garbage = [
        f"l{flow}{'0' * 16}0001000000{stranger}",
        f"l{flow}!",
        "",
        "x" * 200,
        f"l{flow}{'0' * 16}x{leased}",
    ]
    again = f"l{flow}{'0' * 15}10001000000{leased}"
    forgery.redis.zadd(forgery.keys.fair, dict.fromkeys([*garbage, again], 0))
    forgery.redis.zadd(forgery.keys.turn_low, dict.fromkeys(["", "none", "f" * 16], 1_000_000))
    forgery.redis.hset(forgery.keys.flow, mapping={stranger: "x", "": "1", forgery.pushed["a"][2].hex: "?"})
    waiting = forgery.waiting
    page = forgery.backend.list_tasks(forgery.queue, "")
    while page.cursor:
        page = forgery.backend.list_tasks(forgery.queue, page.cursor)
    claimed = [lease for _ in range(20) for lease in claim(forgery.backend, forgery.queue, 3)]
    assert sorted(claimed) == sorted(Lease(agent_id, 1) for agent_id in waiting), (
        "a leased task is not claimed again"
    )
    assert forgery.redis.zcard(forgery.keys.fair) == 0
    assert forgery.redis.zcard(forgery.keys.turn_low) == 0
    forgery.backend.finish(forgery.queue, [*claimed, Lease(forgery.claimed[0], 1)])
    assert forgery.redis.hlen(forgery.keys.flow) == 0
    assert forgery.redis.hlen(forgery.keys.entry) == 0


@pytest.mark.parametrize("name", ["fair", "turn_high", "turn_low", "flow"])
def test_a_key_of_another_type_is_replaced(forgery: Forgery, name: str) -> None:
    forgery.backend.mark_intact(forgery.queue)
    forgery.redis.set(getattr(forgery.keys, name), "forged")
    claimed = ids(claim(forgery.backend, forgery.queue, 20))
    if name != "turn_high":  # which is looked at only when something is there
        assert not forgery.backend.is_intact(forgery.queue), "the reconciler restores what was lost"
    forgery.backend.push(
        forgery.queue, [Entry(agent_id, fairness_key="a") for agent_id in forgery.waiting - {*claimed}]
    )
    waiting = sorted(forgery.waiting - {*claimed})
    missing = forgery.backend.unknown_tasks(forgery.queue, waiting)
    forgery.backend.push(forgery.queue, [Entry(agent_id, fairness_key="a") for agent_id in missing])
    assert sorted(ids(claim_all(forgery.backend, forgery.queue))) == waiting


def test_a_task_that_an_earlier_release_pushed_again_is_claimed_once(forgery: Forgery) -> None:
    # Its reconciler finds no task in FAIR: it removes the mark and pushes the task without its key.
    waiting = forgery.waiting
    for agent_id in waiting:
        forgery.redis.hset(forgery.keys.entry, agent_id.hex, "0l")
        forgery.redis.zadd(forgery.keys.low, {agent_id.hex: 1})
    claimed = [
        *ids(claim(forgery.backend, forgery.queue, 3)),
        *ids(claim_all(forgery.backend, forgery.queue)),
    ]
    assert sorted(claimed) == sorted(waiting)
    assert forgery.backend.depth(forgery.queue) == Depth(0, 0, 9)
