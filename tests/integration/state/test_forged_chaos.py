"""Somebody writes anything to the queue while tasks run, and then stops: soon every task is complete."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from sqlalchemy import Uuid, bindparam, text

from agentexec.db.transactions import writing
from agentexec.state.backend import Depth
from agentexec.state.sql_models import QueueEntry
from agentexec.task import Status
from tests.integration.state.test_forgeries import (
    FAR,
    INF,
    WRONG,
    Site,
    redis_site,  # noqa: F401 - a fixture
    sql_site,  # noqa: F401 - a fixture
)

Deed = Callable[[Site, random.Random, Sequence[UUID]], None]

SECONDS = 4.0
"""Seconds of the forger's work."""

MARKS = (
    *(b"0l", b"0h", b"5h", b"1l stranger", b"5l x", b"2147483646l", b"2147483645h w", b"9007199254740993l"),
    *(b"-1l", b"\xff", b"", b"0l." + b"z" * 400, b"10000l", b"9999l x"),
)
SCORES = (INF, -INF, 9e15, -9e15, 0.0, 1e300)
SETS = ("high", "low", "delayed", "leases")


def write_to_redis(site: Site, chance: random.Random, tasks: Sequence[UUID]) -> None:
    client, keys = site.redis, site.keys
    some_set = getattr(keys, chance.choice(SETS))
    any_key = getattr(keys, chance.choice([*SETS, "entry", "wake", "intact"]))
    stray = chance.choice([b"\xff", uuid4().hex, b"", b"x" * 5_000])
    member = chance.choice(tasks).hex if chance.random() < 0.85 else stray
    deeds: list[Callable[[], object]] = [
        *[lambda: client.zadd(some_set, {member: chance.choice(SCORES)})] * 4,
        *[lambda: client.hset(keys.entry, member, chance.choice(MARKS))] * 3,
        lambda: client.zrem(some_set, member),
        lambda: client.hdel(keys.entry, member),
        lambda: client.delete(any_key),
        lambda: (client.delete(any_key), chance.choice([*WRONG.values()])(client, any_key)),
        lambda: client.set(f"agentexec:leader:reconciler:{site.queue}", "x", ex=chance.choice([3, 10**9])),
    ]
    try:
        chance.choice(deeds)()
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error), "of a key that was forged before"


def write_to_tables(site: Site, chance: random.Random, tasks: Sequence[UUID]) -> None:
    column, value = chance.choice(
        [
            *(("at", at) for at in (FAR, -FAR, 0, time.time_ns() // 1000 + 10**9)),
            *(("lane", lane) for lane in (0, 1, 2, 3, -1, 7)),
            *(("priority", priority) for priority in (0, 2, 9, -1)),
            *(("epoch", epoch) for epoch in (0, 1, 5, 2**31 - 1, 2**31 - 2, -5, 10_000)),
            *(("queue", queue) for queue in (site.queue, "nobody's")),
            *(("worker", worker) for worker in ("stranger", None)),
        ]
    )
    statement = f"UPDATE {QueueEntry.__tablename__} SET {column} = :value WHERE agent_id = :id"
    if chance.random() < 0.15:
        statement = f"DELETE FROM {QueueEntry.__tablename__} WHERE agent_id = :id AND epoch <> :value"
        value = -1
    with writing(site.engine) as connection:
        task = bindparam("id", chance.choice(tasks), Uuid())
        connection.execute(text(statement).bindparams(task), {"value": value})


def assert_all_complete(site: Site, deed: Deed, seed: int) -> None:
    chance, tasks = random.Random(seed), list[UUID]()
    site.settings.max_crashes = 100  # a task that is moved to another worker counts as crashed

    @site.pool.task("slow")
    async def slow(agent_id: UUID, context: dict[str, Any]) -> str:
        await asyncio.sleep(chance.random() / 2)
        return "done"

    def forge() -> None:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            if not tasks or (chance.random() < 0.2 and len(tasks) < 100):
                tasks.extend(site.enqueue(2))
                site.record(tasks[-1], agent_type="slow")
            for _ in range(5):
                deed(site, chance, tasks[-20:])
            time.sleep(0.01)  # the pace of the forger

    site.run_until(
        lambda: (
            all(status.final for status in site.statuses(tasks))
            and site.backend.depth(site.queue) == Depth(0, 0, 0)
            and not site.backend.list_tasks(site.queue, "").agent_ids
        ),
        forge,
    )
    assert site.statuses(tasks) == [Status.COMPLETE] * len(tasks)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [1, 2])
def test_after_a_forger_stops_every_task_completes_on_redis(redis_site: Site, seed: int) -> None:  # noqa: F811
    assert_all_complete(redis_site, write_to_redis, seed)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [3, 4])
def test_after_a_forger_stops_every_task_completes_in_sql(sql_site: Site, seed: int) -> None:  # noqa: F811
    assert_all_complete(sql_site, write_to_tables, seed)
