"""Whoever can write to Redis or to the queue's tables does no lasting harm: every task runs, once, and the forgery goes."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Uuid, bindparam, select, text, update

import agentexec as ax
from agentexec.activity.changes.new_tasks import NewTask, insert_tasks
from agentexec.activity.mailbox import Mailbox
from agentexec.activity.models import Activity
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.engine import open_engine
from agentexec.db.transactions import reading, writing
from agentexec.errors import UnavailableError
from agentexec.llm.rate_limits import parse_rate_limits
from agentexec.runtime import Runtime
from agentexec.state import redis_backend, sql_backend
from agentexec.state.backend import Comparison, Depth, StateBackend
from agentexec.state.redis_backend import RedisBackend
from agentexec.state.sql_models import LEASED, EventRow, Follow, Message, QueueEntry, Watch
from agentexec.task import Entry, Priority, Status, new_agent_id
from agentexec.worker.index_repair import IndexRepair
from agentexec.worker.reconciler import Reconciler
from agentexec.worker.worker_process import Worker
from tests.conftest import DATABASES
from tests.waiting import patient

LEASE = patient(2.0)
"""Seconds of a lease. The reconciler looks at every task twice in this time."""

LATEST = patient(30.0)
"""Seconds within which everything must be right again."""


SQL = DATABASES


class Site:
    """A record, a queue, and a worker with a reconciler in this process."""

    def __init__(self, engine: Any, backend: StateBackend) -> None:
        self.queue = f"forged-{uuid4().hex[:12]}"
        self.engine, self.backend = engine, backend
        self.runtime = Runtime()
        self.settings = Settings(queue_name=self.queue, lease_seconds=LEASE, worker_concurrency=10)
        self.pool = ax.Pool(queue_name=self.queue)
        self.runs: Counter[UUID] = Counter()

        @self.pool.task("work")
        async def work(agent_id: UUID, context: dict[str, Any]) -> str:
            self.runs[agent_id] += 1
            return "done"

    @property
    def redis(self) -> Any:
        assert isinstance(self.backend, RedisBackend)
        return self.backend._single_try_client

    @property
    def keys(self) -> Any:
        assert isinstance(self.backend, RedisBackend)
        return self.backend._keys(self.queue)

    def enqueue(self, number: int = 1, *, queue: str | None = None) -> list[UUID]:
        """Record tasks and push them, long enough ago for the reconciler to look at them."""
        tasks = [
            NewTask(
                new_agent_id(), "work", "{}", queue or self.queue, Priority.LOW, None, None, None, "Queued."
            )
            for _ in range(number)
        ]
        with writing(self.engine) as connection:
            insert_tasks(connection, tasks, utc_now() - timedelta(minutes=5))
        ids = [task.agent_id for task in tasks]
        self.backend.push(queue or self.queue, [Entry(agent_id) for agent_id in ids])
        return ids

    def start(self, agent_id: UUID) -> None:
        """Make a task RUNNING on a worker that is dead."""
        self.record(agent_id, status=Status.RUNNING, epoch=1, attempt=1)
        self.backend.remove(self.queue, [agent_id])
        self.backend.restore(self.queue, [Entry(agent_id, epoch=1)], LEASE)

    def record(self, agent_id: UUID, **values: Any) -> None:
        with writing(self.engine) as connection:
            connection.execute(update(Activity).where(Activity.agent_id == agent_id).values(**values))

    def statuses(self, agent_ids: Sequence[UUID]) -> list[Status]:
        with reading(self.engine) as connection:
            rows = connection.execute(select(Activity.agent_id, Activity.status)).all()
        found = {row.agent_id: row.status for row in rows}
        return [found[agent_id] for agent_id in agent_ids]

    def run_until(self, condition: Callable[[], bool], meanwhile: Callable[[], object] | None = None) -> None:
        """Let the worker and the reconciler work until a condition is true and `meanwhile`, in another thread, ends."""

        async def run() -> None:
            reconciler = Reconciler(self.runtime, self.settings, "me")
            worker = Worker(self.pool.registry, self.runtime, self.settings, f"worker-{uuid4().hex[:8]}")
            working = asyncio.create_task(worker.run())
            forging = asyncio.create_task(asyncio.to_thread(meanwhile or time.monotonic))
            try:
                while not forging.done():
                    with suppress(UnavailableError):  # forged again at once: a worker's loop tries again, too
                        await asyncio.to_thread(reconciler.run_once)
                    await asyncio.sleep(0.05)
                await forging
                deadline = time.monotonic() + LATEST
                while not await asyncio.to_thread(condition):
                    assert time.monotonic() < deadline, "still not true"
                    await asyncio.to_thread(reconciler.run_once)
                    await asyncio.sleep(0.05)
            finally:
                worker.drain()
                await working

        with self.runtime.replaced(self.engine, self.backend, self.pool.registry):
            asyncio.run(run())

    def run_all(self, agent_ids: Sequence[UUID]) -> None:
        """Let all tasks end, and the index become empty."""
        self.run_until(
            lambda: (
                all(status.final for status in self.statuses(agent_ids))
                and self.backend.depth(self.queue) == Depth(0, 0, 0)
                and not self.backend.list_tasks(self.queue, "").agent_ids
            )
        )
        assert self.statuses(agent_ids) == [Status.COMPLETE] * len(agent_ids)
        assert {agent_id: self.runs[agent_id] for agent_id in agent_ids} == dict.fromkeys(agent_ids, 1)


@pytest.fixture(params=["unsigned", pytest.param("signed", marks=pytest.mark.thorough)])
def redis_site(request: pytest.FixtureRequest, valkey_url: str, sqlite_tables: str) -> Iterator[Site]:
    engine = open_engine(sqlite_tables)
    key = SecretStr("a key that the forger lacks") if request.param == "signed" else None
    backend = redis_backend.create(Settings(redis_url=valkey_url, signing_key=key), engine)
    yield Site(engine, backend)
    backend.close()
    engine.dispose()


@pytest.fixture(params=SQL)
def sql_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    engine = open_engine(request.getfixturevalue(f"{request.param}_tables"))
    backend = sql_backend.create(Settings(), engine)
    yield Site(engine, backend)
    backend.close()
    engine.dispose()


@pytest.fixture(params=["valkey", *SQL])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with ExitStack() as stack:
        if request.param == "valkey":
            engine = open_engine(request.getfixturevalue("sqlite_tables"))
            url = request.getfixturevalue("valkey_url")
            backend: StateBackend = redis_backend.create(Settings(redis_url=url), engine)
        else:
            engine = open_engine(request.getfixturevalue(f"{request.param}_tables"))
            backend = sql_backend.create(Settings(), engine)
        stack.callback(engine.dispose)
        stack.callback(backend.close)
        yield Site(engine, backend)


# ---- both ---------------------------------------------------------------------------------------------------------


def test_no_entry_moves_a_task_to_the_workers_of_another_queue(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    [foreign, lost] = site.enqueue(2, queue="elsewhere")
    site.backend.remove("elsewhere", [foreign, lost])
    site.backend.push(site.queue, [Entry(foreign)])
    site.backend.restore(site.queue, [Entry(lost, epoch=1)], LEASE / 2)
    site.record(lost, status=Status.RUNNING, epoch=1)
    site.run_all(site.enqueue(2))
    assert site.statuses([foreign, lost]) == [Status.QUEUED, Status.RUNNING]
    assert site.runs[foreign] == site.runs[lost] == 0
    with reading(site.engine) as connection:
        crashes = connection.execute(select(Activity.crashes).where(Activity.agent_id == lost)).scalar()
    assert crashes == 0
    assert "the database contradicts" in caplog.text or "no such task" in caplog.text
    with site.runtime.replaced(site.engine, site.backend, site.pool.registry):
        Reconciler(site.runtime, Settings(queue_name="elsewhere", lease_seconds=LEASE), "other").run_once()
    assert site.backend.depth("elsewhere") == Depth(1, 0, 1), "its own queue has it again"


def test_a_leadership_of_a_stranger_for_a_hundred_years_ends_at_once(site: Site) -> None:
    role = f"reconciler:{site.queue}"
    assert site.backend.acquire_leadership(role, "a stranger", 3.2e9)
    [lost] = site.enqueue()
    site.backend.remove(site.queue, [lost])
    site.run_all([lost])


def test_a_task_that_an_answer_made_ready_is_not_put_off_again(site: Site) -> None:
    """The record delays it until the deadline of its question, and only the index knew that it was answered."""
    [task, other] = site.enqueue(2)
    later = utc_now() + timedelta(days=1)
    for agent_id in (task, other):
        site.record(agent_id, run_at=later)
    approval = {
        "id": task,
        "path": "p",
        "call_id": "c",
        "tool": "t",
        "now": utc_now().replace(tzinfo=None),
    }
    with writing(site.engine) as connection:
        statement = (
            f"INSERT INTO {ax.CONF.table_prefix}approval (agent_id, path, seq, call_id, kind, tool, arguments, status, created_at) "
            "VALUES (:id, :path, 0, :call_id, 'approval', :tool, '{}', 'approved', :now)"
        )
        connection.execute(text(statement).bindparams(bindparam("id", type_=Uuid())), approval)
    site.backend.remove(site.queue, [task, other])
    site.run_until(
        lambda: (
            site.statuses([task]) == [Status.COMPLETE] and site.backend.depth(site.queue) == Depth(0, 1, 0)
        )
    )
    assert site.statuses([other]) == [Status.QUEUED]


# ---- Redis --------------------------------------------------------------------------------------------------------


def _mark(mark: bytes) -> Callable[[Site, UUID], None]:
    def forge(site: Site, agent_id: UUID) -> None:
        site.redis.hset(site.keys.entry, agent_id.hex, mark)

    return forge


def _place(name: str, score: float, mark: bytes | None = None) -> Callable[[Site, UUID], None]:
    def forge(site: Site, agent_id: UUID) -> None:
        for key in (site.keys.high, site.keys.low, site.keys.delayed, site.keys.leases):
            site.redis.zrem(key, agent_id.hex)
        site.redis.zadd(getattr(site.keys, name), {agent_id.hex: score})
        if mark is not None:
            site.redis.hset(site.keys.entry, agent_id.hex, mark)

    return forge


def _everywhere(site: Site, agent_id: UUID) -> None:
    for key in (site.keys.high, site.keys.delayed, site.keys.leases):
        site.redis.zadd(key, {agent_id.hex: float("inf")})


INF = float("inf")
QUEUED_IN_REDIS: dict[str, Callable[[Site, UUID], None]] = {
    "delayed for ever": _place("delayed", INF),
    "delayed for 230 years": _place("delayed", 9e15),
    "due before all times": _place("delayed", -INF),
    "leased for ever": _place("leases", INF, b"1l stranger"),
    "leased for 230 years": _place("leases", 9e15, b"1l \xff\xfe"),
    "leased without an owner": _place("leases", 9e15),
    "expired before all times": _place("leases", -INF, b"3l stranger"),
    "behind all others": _place("low", INF),
    "in a set that does not fit its mark": _place("low", 1.0, b"0h"),
    "in all sets": _everywhere,
    "last epoch": _mark(b"2147483646l"),
    "last epoch of the column": _mark(b"2147483647l"),
    "epoch beyond 53 bits": _mark(b"9007199254740993l"),
    "epoch beyond 64 bits": _mark(b"99999999999999999999h"),
    "no epoch": _mark(b"l"),
    "negative epoch": _mark(b"-5l"),
    "a text": _mark(b"\x00\xff"),
    "a megabyte": _mark(b"0l " + b"x" * 1_000_000),
    "a worker's name of a waiting task": _mark(b"0l stranger"),
    "nowhere": lambda site, agent_id: site.redis.zrem(site.keys.low, agent_id.hex),
    "unknown": lambda site, agent_id: site.redis.hdel(site.keys.entry, agent_id.hex),
}


def test_tasks_whose_entries_in_redis_were_forged_run_once(redis_site: Site) -> None:
    tasks = redis_site.enqueue(len(QUEUED_IN_REDIS) + 2)
    for forge, agent_id in zip(QUEUED_IN_REDIS.values(), tasks, strict=False):
        forge(redis_site, agent_id)
    redis_site.run_all(tasks)


def test_a_task_that_a_worker_has_is_not_claimed_again(redis_site: Site) -> None:
    [agent_id] = redis_site.enqueue()
    backend, queue = redis_site.backend, redis_site.queue
    assert backend.claim(queue, "worker-1", limit=1, low_quota=0, lease_seconds=LEASE).leases
    redis_site.redis.zadd(redis_site.keys.high, {agent_id.hex: 1})
    assert not backend.claim(queue, "worker-2", limit=1, low_quota=0, lease_seconds=LEASE).leases


def test_a_task_that_moves_on_while_it_is_compared_is_left_alone(
    redis_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    [agent_id] = redis_site.enqueue()
    epochs, removed = itertools.count(1), []

    def compare(queue: str, entries: Sequence[Entry], lease_seconds: float) -> Comparison:
        redis_site.record(agent_id, epoch=next(epochs))
        return Comparison([], [entry.agent_id for entry in entries])

    monkeypatch.setattr(redis_site.backend, "compare", compare)
    monkeypatch.setattr(redis_site.backend, "remove", lambda queue, agent_ids: removed.extend(agent_ids))
    with redis_site.runtime.replaced(redis_site.engine, redis_site.backend, redis_site.pool.registry):
        IndexRepair(redis_site.runtime, redis_site.settings).push_lost(1.0)
    assert next(epochs) == 3, "the task was compared twice"
    assert removed == []


def test_an_old_epoch_of_a_waiting_task_does_not_keep_it_from_starting(redis_site: Site) -> None:
    waiting, running = redis_site.enqueue(2)
    redis_site.start(running)
    for agent_id in (waiting, running):
        redis_site.record(agent_id, epoch=5_000)
    redis_site.run_all([waiting, running])


RUNNING_IN_REDIS: dict[str, Callable[[Site, UUID], None]] = {
    "leased for ever": _place("leases", INF, b"1l stranger"),
    "leased for 230 years": _place("leases", 9e15),
    "last epoch": _mark(b"2147483646l stranger"),
    "old epoch": _place("low", 1.0, b"0l"),
    "delayed for ever": _place("delayed", INF, b"1l"),
    "unknown": lambda site, agent_id: site.redis.hdel(site.keys.entry, agent_id.hex),
    "no lease": lambda site, agent_id: site.redis.zrem(site.keys.leases, agent_id.hex),
}


def test_tasks_of_dead_workers_whose_leases_were_forged_run_once(redis_site: Site) -> None:
    tasks = redis_site.enqueue(len(RUNNING_IN_REDIS))
    for forge, agent_id in zip(RUNNING_IN_REDIS.values(), tasks, strict=True):
        redis_site.start(agent_id)
        forge(redis_site, agent_id)
    redis_site.run_all(tasks)


def test_what_belongs_to_no_task_leaves_the_queue(redis_site: Site, caplog: pytest.LogCaptureFixture) -> None:
    redis, keys = redis_site.redis, redis_site.keys
    members = [
        b"",
        b"\xff\xfe\x00",
        b"x" * 1_000_000,
        uuid4().hex,
        str(uuid4()),
        uuid4().hex.upper(),
        b"F" * 32,
    ]
    for member in members:
        for number, name in enumerate(("high", "low", "delayed", "leases")):
            redis.zadd(getattr(keys, name), {member: (1.0, -INF, INF, 9e15)[number]})
        redis.hset(keys.entry, member, b"0l stranger")
    for number in range(2_500):
        redis.hset(keys.entry, f"field {number}", b"?")
    # They hide neither the tasks of dead workers nor each other.
    for name in ("delayed", "leases"):
        redis.zadd(getattr(keys, name), {f"junk {number}": -INF for number in range(2_500)})
    *tasks, running = redis_site.enqueue(4)
    redis_site.start(running)
    redis_site.run_all([*tasks, running])
    assert [redis.exists(key) for key in (keys.high, keys.low, keys.delayed, keys.leases, keys.entry)] == [
        0
    ] * 5
    assert "belong to no task" in caplog.text


WRONG: dict[str, Callable[[Any, str], object]] = {
    "string": lambda redis, key: redis.set(key, "x"),
    "list": lambda redis, key: redis.rpush(key, "x"),
    "hash": lambda redis, key: redis.hset(key, "x", "y"),
    "set": lambda redis, key: redis.sadd(key, "x"),
    "zset": lambda redis, key: redis.zadd(key, {"x": 1}),
    "stream": lambda redis, key: redis.xadd(key, {"x": "y"}),
}


def _forge_type(site: Site, key: str, kind: str) -> None:
    site.redis.delete(key)
    WRONG[kind](site.redis, key)


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(["string"], id="string"),
        pytest.param(["list", "hash", "set", "zset", "stream"], id="others", marks=pytest.mark.thorough),
    ],
)
def test_a_queue_whose_keys_have_other_types_is_rebuilt(
    redis_site: Site, kinds: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    names = ("high", "low", "delayed", "entry", "leases", "wake", "intact")
    for kind in kinds:
        tasks = redis_site.enqueue(3)
        running = redis_site.enqueue(2)
        for agent_id in running:
            redis_site.start(agent_id)
        for name in names:
            _forge_type(redis_site, getattr(redis_site.keys, name), kind)
        redis_site.run_all([*tasks, *running])
    lines = [line for line in caplog.messages if "of another type" in line]
    assert lines
    assert len(lines) <= 3 * len(kinds), lines


def test_keys_of_other_types_that_appear_while_a_worker_runs_stop_nothing(redis_site: Site) -> None:
    def forge_and_enqueue() -> None:
        for name in ("high", "low", "delayed", "entry", "leases", "wake", "intact"):
            _forge_type(redis_site, getattr(redis_site.keys, name), "string")
            tasks.extend(redis_site.enqueue())

    tasks: list[UUID] = []
    redis_site.run_until(
        lambda: all(status.final for status in redis_site.statuses(tasks)), forge_and_enqueue
    )
    assert redis_site.statuses(tasks) == [Status.COMPLETE] * 7


def test_keys_beside_a_queue_of_other_types_are_replaced(redis_site: Site) -> None:
    backend, queue, [task] = redis_site.backend, redis_site.queue, redis_site.enqueue()
    assert isinstance(backend, RedisBackend)
    for kind in ("string", "hash"):
        for key in (
            backend._mail_key("box"),
            backend._watch_key(queue, task),
            backend._follow_key(queue, task),
            backend._events_key(queue, task),
        ):
            _forge_type(redis_site, key, kind)
        assert backend.receive("box", 0.0) == []
        _forge_type(redis_site, backend._mail_key("box"), kind)
        backend.watch(queue, [task], "box")
        backend.notify_done(queue, [task])
        assert backend.receive("box", 0.0) == [f"done {task}"]
        backend.follow(queue, [task], "box")
        backend.publish(queue, {task: ["event"]})
        assert [event.text for event in backend.read_events(queue, {task: 0})[task]] == ["event"]
        _forge_type(redis_site, backend._watch_key(queue, task), kind)
        backend.notify_done(queue, [task])
    demands = parse_rate_limits("m=60rpm").demands("m", 0)
    for kind in ("list", "hash"):
        _forge_type(redis_site, backend._leader_key("role"), kind)
        assert backend.acquire_leadership("role", "me", LEASE)
        _forge_type(redis_site, backend._leader_key("role"), kind)
        backend.release_leadership("role", "me")
        [bucket] = backend._bucket_keys(demands)
        _forge_type(redis_site, bucket, kind)
        assert backend.reserve(demands, 1.0) == 0.0


# ---- tables -------------------------------------------------------------------------------------------------------

FAR = 2**62
QUEUED_ROWS: dict[str, dict[str, Any]] = {
    "on another queue": {"queue": "nobody's"},
    "delayed for ever": {"at": FAR},
    "due before all times": {"at": -FAR},
    "leased for ever": {"lane": LEASED, "at": FAR, "worker": "stranger", "epoch": 1},
    "leased, expired": {"lane": LEASED, "at": -FAR, "epoch": 3},
    "no lane": {"lane": 7},
    "a negative lane": {"lane": -1},
    "no priority": {"priority": 9},
    "no priority, leased": {"priority": 2, "lane": LEASED, "at": -FAR},
    "last epoch": {"epoch": 2**31 - 1},
    "last epoch but one": {"epoch": 2**31 - 2},
    "negative epoch": {"epoch": -5},
}
SQLITE_ROWS: dict[str, dict[str, Any]] = {
    "epoch beyond 53 bits": {"epoch": 2**53 + 1},
    "epoch beyond 62 bits": {"epoch": 2**63 - 1},
    "an epoch that is a text": {"epoch": "many"},
    "a time that is a text": {"at": "9999-12-31"},
    "a lease's end that is a text": {"lane": LEASED, "at": "9999-12-31"},
    "an epoch that is a fraction": {"epoch": 0.5},
    "a lane that is a text": {"lane": "low"},
}


def _spoil(site: Site, agent_id: UUID, values: dict[str, Any]) -> None:
    columns = ", ".join(f"{name} = :new_{name}" for name in values)
    statement = text(f"UPDATE {QueueEntry.__tablename__} SET {columns} WHERE agent_id = :id")
    parameters = {f"new_{name}": value for name, value in values.items()}
    with writing(site.engine) as connection:
        connection.execute(statement.bindparams(bindparam("id", agent_id, Uuid())), parameters)


def test_tasks_whose_rows_of_the_queue_were_forged_run_once(sql_site: Site) -> None:
    forgeries = [*QUEUED_ROWS.values()]
    if sql_site.engine.dialect.name == "sqlite":
        forgeries += SQLITE_ROWS.values()
    tasks = sql_site.enqueue(len(forgeries) + 2)
    for values, agent_id in zip(forgeries, tasks, strict=False):
        _spoil(sql_site, agent_id, values)
    sql_site.run_all(tasks)
    with reading(sql_site.engine) as connection:
        assert connection.execute(select(QueueEntry.agent_id)).all() == []


def test_tasks_of_dead_workers_whose_rows_were_forged_run_once(sql_site: Site) -> None:
    forgeries: list[dict[str, Any]] = [
        {"at": FAR},
        {"epoch": 2**31 - 1},
        {"epoch": 0},
        {"lane": 1, "at": FAR},
        {"lane": 1, "at": 0, "epoch": 0},
        {"queue": "nobody's"},
        {"worker": "stranger"},
    ]
    tasks = sql_site.enqueue(len(forgeries))
    for values, agent_id in zip(forgeries, tasks, strict=True):
        sql_site.start(agent_id)
        _spoil(sql_site, agent_id, values)
    sql_site.run_all(tasks)


def test_rows_that_belong_to_no_task_leave_the_table(sql_site: Site) -> None:
    table = QueueEntry.__tablename__
    places = [(0, -1), (1, FAR), (LEASED, FAR), (LEASED, -1), (7, 0)]
    rows: list[dict[str, Any]] = [
        {"id": new_agent_id(), "lane": lane, "at": at, "queue": sql_site.queue} for lane, at in places
    ]
    insert = f"INSERT INTO {table} (agent_id, queue, priority, lane, at, epoch) VALUES (:id, :queue, 1, :lane, :at, 0)"
    with writing(sql_site.engine) as connection:
        connection.execute(text(insert).bindparams(bindparam("id", type_=Uuid())), rows)
        if sql_site.engine.dialect.name == "sqlite":
            garbage = [b"\xff\x00", "x", "é" * 32, "F" * 32, str(uuid4()), -7]
            for number, (lane, at) in enumerate(
                [(0, -1), (LEASED, -1), (1, 5), (7, FAR), (LEASED, FAR), (0, 1)]
            ):
                values = {"id": garbage[number], "lane": lane, "at": at, "queue": sql_site.queue}
                connection.execute(text(insert), values)
    sql_site.run_all(sql_site.enqueue(3))
    with reading(sql_site.engine) as connection:
        assert connection.execute(text(f"SELECT lane, at FROM {table}")).all() == []


def test_rows_of_messages_that_would_stay_for_ever_are_swept(sql_site: Site) -> None:
    """Watches, followers, messages and events in the year 9999 and later, and an event with the last number."""
    backend, task, other, now = sql_site.backend, new_agent_id(), new_agent_id(), time.time_ns() // 1000
    backend.watch(sql_site.queue, [task], "box")
    backend.follow(sql_site.queue, [task], "box")
    backend.send("box", ["message"])
    backend.publish(sql_site.queue, {task: ["event"]})
    columns = {Watch: "lapses_at", Follow: "lapses_at", Message: "sent_at", EventRow: "at"}
    tables = [model.__tablename__ for model in columns]
    with writing(sql_site.engine) as connection:
        for model, column in columns.items():
            connection.execute(text(f"UPDATE {model.__tablename__} SET {column} = {FAR}"))
        values = {"id": other, "number": 2**63 - 1, "at": now}
        insert = f"INSERT INTO {EventRow.__tablename__} (agent_id, number, text, at) VALUES (:id, :number, 'x', :at)"
        connection.execute(text(insert).bindparams(bindparam("id", type_=Uuid())), values)
    backend.publish(sql_site.queue, {other: ["real"]})
    assert [event.text for event in backend.read_events(sql_site.queue, {other: 0})[other]] == ["real"]
    backend.expired_leases(sql_site.queue, 1)
    with reading(sql_site.engine) as connection:
        left = [connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar() for table in tables]
    assert left == [0, 0, 0, 1]


def test_forged_messages_end_nothing(site: Site) -> None:
    """The record says whether a task has ended or is canceled."""
    [task] = site.enqueue()
    started, free = threading.Event(), threading.Event()

    @site.pool.task("slow")
    def slow(agent_id: UUID, context: dict[str, Any]) -> str:
        started.set()
        assert free.wait(LATEST)
        return "done"

    site.record(task, agent_type="slow")

    def forge() -> None:
        assert started.wait(LATEST)
        mailbox = Mailbox(site.runtime, "waiter")
        [future] = mailbox.watch(site.queue, [task])
        with reading(site.engine) as connection:
            workers = connection.execute(select(QueueEntry.worker)).scalars().all()
        owners = [worker for worker in workers if worker] or [
            mark.decode().partition(" ")[2] for mark in site.redis.hvals(site.keys.entry)
        ]
        for worker in [*owners, "waiter"]:
            forged = [f"done {task}", f"cancel {task}", f"cancel {uuid4()}", "cancel x", "", "done " * 150]
            site.backend.send(worker, forged)
        time.sleep(0.3)  # nothing is to happen
        assert not future.done()
        assert site.statuses([task]) == [Status.RUNNING]
        free.set()
        assert future.result(LATEST).status is Status.COMPLETE
        mailbox.close()
        mailbox.join(LATEST)

    site.run_until(lambda: site.statuses([task]) == [Status.COMPLETE], forge)
