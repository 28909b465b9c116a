"""Locks and limits of tasks, from their enqueue to their end: one at a time and in order, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text, update

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.config import Settings
from agentexec.db.engine import open_engine
from agentexec.db.transactions import reading, writing
from agentexec.errors import UnavailableError
from agentexec.runtime import RUNTIME
from agentexec.state import redis_backend, sql_backend
from agentexec.state.backend import Depth
from agentexec.state.redis_backend import RedisBackend
from agentexec.state.sql_models import QueueEntry, QueueMember
from agentexec.task import LOCK
from agentexec.worker import lease_renewal
from agentexec.worker.reconciler import Reconciler
from agentexec.worker.worker_process import Worker
from tests.conftest import DATABASES
from tests.waiting import wait_until

LEASE = 600.0
"""Lease in seconds: no stall of a slow machine outlasts it, and what waits for its half, the next sweep, is too late."""

RENEWALS = 1000
"""Renewals within one lease: a worker learns of a cancellation by the next one."""

LATEST = 30.0
"""Seconds within which everything must have ended."""


class Site:
    """A record, a queue, and workers with a reconciler in this process, whose tasks note when they run."""

    def __init__(self, engine: Any, backend: Any) -> None:
        self.queue = f"locks-{uuid4().hex[:12]}"
        self.engine, self.backend = engine, backend
        self.runtime = RUNTIME
        self.settings = Settings(queue_name=self.queue, lease_seconds=LEASE, worker_concurrency=8)
        self.pool = ax.Pool(queue_name=self.queue)
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.order: dict[str, list[int]] = defaultdict(list)
        self.may_end = asyncio.Event()
        self.may_end.set()

        @self.pool.task("step", lock_key="user:{user}", retries=1, backoff=0)
        async def step(agent_id: UUID, context: dict[str, Any]) -> None:
            await self._run(context["user"], context["number"])
            if context.get("fails") == len(
                [n for n in self.order[context["user"]] if n == context["number"]]
            ):
                raise ValueError("once")

        @self.pool.task("call", concurrency=2, concurrency_key="{user}")
        async def call(agent_id: UUID, context: dict[str, Any]) -> None:
            await self._run(context["user"], context["number"])

    async def _run(self, key: str, number: int) -> None:
        self.running[key] += 1
        self.most[key] = max(self.most[key], self.running[key])
        self.order[key].append(number)
        try:
            await asyncio.sleep(0.002)
            await self.may_end.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)  # a handler that cleans up
            raise
        finally:
            self.running[key] -= 1

    @asynccontextmanager
    async def working(self, workers: int = 2, *, reconciles: bool = True) -> AsyncGenerator[None]:
        """Let workers work, and a reconciler."""
        self.reconciler = reconciler = Reconciler(self.runtime, self.settings, "me")
        made = [
            Worker(self.pool.registry, self.runtime, self.settings, f"worker-{uuid4().hex[:8]}")
            for _ in range(workers)
        ]
        tasks = [asyncio.create_task(worker.run()) for worker in made]
        stop = asyncio.Event()

        async def reconcile() -> None:
            while not stop.is_set():
                with suppress(UnavailableError):  # a deadlock of MariaDB: a worker's loop tries again, too
                    await asyncio.to_thread(reconciler.run_once)
                await asyncio.sleep(0.05)

        if not reconciles:
            stop.set()
        reconciling = asyncio.create_task(reconcile())
        try:
            yield
        finally:
            self.may_end.set()
            stop.set()
            await reconciling
            for worker in made:
                worker.drain()
            await asyncio.gather(*tasks)

    async def until(self, condition: Any) -> None:
        await asyncio.to_thread(wait_until, condition, timeout=LATEST)

    async def until_ended(self, tasks: list[ax.Task], *, empty: bool = True) -> list[ax.Status]:
        await self.until(lambda: all(status.final for status in self.statuses(tasks)))
        if empty:
            await self.until(lambda: self.backend.depth(self.queue) == Depth(0, 0, 0))
        return self.statuses(tasks)

    def statuses(self, tasks: list[ax.Task]) -> list[ax.Status]:
        with reading(self.engine) as connection:
            found = dict(map(tuple, connection.execute(select(Activity.agent_id, Activity.status))))
        return [found[task.agent_id] for task in tasks]

    def restored(self, waiting: int) -> Callable[[], bool]:
        """Let the reconciler look at every task, as it does about every half lease; true when so many wait."""

        def condition() -> bool:
            # Again and again: a turn that is under way forgets the first request when it ends.
            self.reconciler._queues[self.queue]._index.reset()
            return self.backend.depth(self.queue).waiting == waiting

        return condition

    def forget_queue(self) -> None:
        """Empty the queue as a server that lost its data."""
        if isinstance(self.backend, RedisBackend):
            self.backend._single_try_client.flushall()
            return
        with writing(self.engine) as connection:
            for model in (QueueEntry, QueueMember):
                connection.execute(text(f"DELETE FROM {model.__tablename__}"))
            connection.execute(text("DELETE FROM agentexec_counter"))


@pytest.fixture(params=["valkey", *DATABASES])
def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(lease_renewal, "RENEWALS_PER_LEASE", RENEWALS)
    with ExitStack() as stack:
        if request.param == "valkey":
            engine = open_engine(request.getfixturevalue("sqlite_tables"))
            url = request.getfixturevalue("valkey_url")
            backend: Any = redis_backend.create(Settings(redis_url=url), engine)
        else:
            engine = open_engine(request.getfixturevalue(f"{request.param}_tables"))
            backend = sql_backend.create(Settings(), engine)
        stack.callback(engine.dispose)
        stack.callback(backend.close)
        site = Site(engine, backend)
        stack.enter_context(site.runtime.replaced(engine, backend, site.pool.registry))
        yield site


def contexts(users: str, count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"user": user, "number": number, **more} for number in range(count) for user in users]


async def test_tasks_of_one_key_run_one_at_a_time_in_order(site: Site) -> None:
    async with site.working():
        tasks = await ax.enqueue_many("step", contexts("ab", 8, fails=1))
        assert await site.until_ended(tasks) == [ax.Status.COMPLETE] * 16
    # Each was retried once, before the next one started.
    assert site.order == {user: [number for number in range(8) for _ in range(2)] for user in "ab"}
    assert site.most == {"a": 1, "b": 1}


async def test_a_limit_counts_for_all_workers(site: Site) -> None:
    async with site.working():
        tasks = await ax.enqueue_many("call", contexts("ab", 10))
        assert await site.until_ended(tasks) == [ax.Status.COMPLETE] * 20
    assert max(site.most.values()) <= 2


async def test_a_canceled_task_makes_way(site: Site) -> None:
    async with site.working():
        site.may_end.clear()
        tasks = await ax.enqueue_many("step", contexts("a", 5))
        await site.until(lambda: site.running["a"] == 1 and site.backend.depth(site.queue).waiting == 4)
        assert await ax.cancel(tasks[1])  # it waits
        assert await ax.cancel(tasks[0])  # it has the lock
        await site.until(lambda: site.order["a"] == [0, 2])
        site.may_end.set()
        statuses = await site.until_ended(tasks)
    assert statuses == [ax.Status.CANCELED] * 2 + [ax.Status.COMPLETE] * 3
    assert site.order["a"] == [0, 2, 3, 4]
    assert site.most["a"] == 1, "the next one starts when the canceled handler has stopped"


async def test_a_lost_queue_is_rebuilt_with_its_lines(site: Site) -> None:
    async with site.working():
        site.may_end.clear()
        tasks = await ax.enqueue_many("step", contexts("ab", 6))
        await site.until(lambda: site.running.total() == 2 and site.backend.depth(site.queue).waiting == 10)
        site.forget_queue()
        # Accepted before the reconciler knows of the loss: the record has the lock still.
        tasks += await ax.enqueue_many("step", contexts("c", 2))
        await site.until(lambda: site.backend.depth(site.queue).waiting == 11)
        site.may_end.set()
        assert await site.until_ended(tasks) == [ax.Status.COMPLETE] * 14
    assert site.order == {"a": [*range(6)], "b": [*range(6)], "c": [0, 1]}
    assert set(site.most.values()) == {1}


async def test_what_comes_after_a_loss_does_not_overtake_what_was_lost(site: Site) -> None:
    tasks = await ax.enqueue_many("step", contexts("ab", 3))
    site.forget_queue()
    tasks += [await ax.enqueue("step", {"user": user, "number": 3}) for user in "ab"]
    async with site.working(reconciles=False):
        free = await ax.enqueue("call", {"user": "c", "number": 0})
        assert await site.until_ended([free], empty=False) == [ax.Status.COMPLETE]
        assert not site.order["a"] and not site.order["b"], "nobody knows who comes first"
    async with site.working():
        tasks += [await ax.enqueue("step", {"user": user, "number": 4}) for user in "ab"]
        assert await site.until_ended(tasks) == [ax.Status.COMPLETE] * 10
    assert {user: site.order[user] for user in "ab"} == {"a": [*range(5)], "b": [*range(5)]}


async def test_a_task_whose_push_was_lost_takes_its_place(site: Site) -> None:
    async with site.working():
        site.may_end.clear()
        tasks = [await ax.enqueue("step", context) for context in contexts("a", 5)]
        await site.until(lambda: site.running["a"] == 1 and site.backend.depth(site.queue).waiting == 4)
        await asyncio.to_thread(site.backend.remove, site.queue, [tasks[2].agent_id])
        await site.until(site.restored(4))
        site.may_end.set()
        assert await site.until_ended(tasks) == [ax.Status.COMPLETE] * 5
    assert site.order["a"] == [*range(5)]


async def test_a_lock_that_only_the_record_knows_is_respected(site: Site) -> None:
    async with site.working():
        site.may_end.clear()
        tasks = [await ax.enqueue("step", context) for context in contexts("a", 2)]
        await site.until(lambda: site.running["a"] == 1)
        # As if the queue had lost the holder alone: the next one is claimed, and refused by the record.
        await asyncio.to_thread(site.backend.remove, site.queue, [tasks[0].agent_id])
        await asyncio.sleep(0.3)
        assert site.order["a"] == [0]
        site.may_end.set()
        await site.until(lambda: all(status.final for status in site.statuses(tasks)))
    assert site.order["a"] == [0, 1]


async def test_tasks_enqueued_where_the_handler_is_unknown_are_locked(site: Site) -> None:
    with site.runtime.replaced(site.engine, site.backend, ax.Pool(queue_name=site.queue).registry):
        tasks = await ax.enqueue_many("step", contexts("ab", 6), queue_name=site.queue)
        tasks += await ax.enqueue_many("call", contexts("xy", 6), queue_name=site.queue)
        no_user = await ax.enqueue("step", {"number": 1}, queue_name=site.queue)
    async with site.working():
        assert await site.until_ended(tasks) == [ax.Status.COMPLETE] * 24
        assert await site.until_ended([no_user]) == [ax.Status.ERROR]
    assert {key: site.most[key] for key in "ab"} == {"a": 1, "b": 1}
    assert all(site.most[key] <= 2 for key in "xy")


async def test_the_lock_key_of_the_call_wins_and_a_retry_joins_the_line_again(site: Site) -> None:
    tasks = [await ax.enqueue("step", {"user": f"u{n}", "number": n}, lock_key="all") for n in range(2)]
    with reading(site.engine) as connection:
        assert set(connection.execute(select(Activity.lock_key)).scalars()) == {"all"}
    assert await ax.cancel(tasks[0])
    assert await ax.retry(tasks[0])
    async with site.working():
        assert await site.until_ended(tasks) == [ax.Status.COMPLETE] * 2
    with reading(site.engine) as connection:
        assert set(connection.execute(select(Activity.held_lock)).scalars()) == {None}


async def test_a_leaked_holder_does_not_block_a_key(site: Site) -> None:
    tasks = await ax.enqueue_many("step", contexts("a", 3))
    leaked = uuid4()
    if isinstance(site.backend, RedisBackend):
        keys = site.backend._keys(site.queue)
        site.backend._single_try_client.zadd(keys.held, {f"{LOCK}user:a\0{leaked.hex}": 0})
    else:
        with writing(site.engine) as connection:
            values = {"agent_id": leaked, "name": f"{LOCK}user:a", "queue": site.queue}
            connection.execute(
                QueueMember.__table__.insert(), values | {"state": 1, "priority": 1, "place": 0}
            )
    async with site.working():
        assert await site.until_ended(tasks) == [ax.Status.COMPLETE] * 3
    assert site.order["a"] == [0, 1, 2]


async def test_a_task_of_another_queue_has_the_lock_too(site: Site) -> None:
    tasks = await ax.enqueue_many("step", contexts("a", 2))
    other = await ax.enqueue("step", {"user": "a", "number": 9}, queue_name=f"{site.queue}-other")
    with writing(site.engine) as connection:
        changed = {"held_lock": "user:a", "status": ax.Status.RUNNING}
        connection.execute(update(Activity).where(Activity.agent_id == other.agent_id).values(**changed))
    async with site.working():
        await site.until(lambda: site.backend.depth(site.queue).delayed == 1)
        assert site.order["a"] == []
        assert await ax.cancel(other)
        assert await site.until_ended(tasks) == [ax.Status.COMPLETE] * 2
    assert site.order["a"] == [0, 1]
