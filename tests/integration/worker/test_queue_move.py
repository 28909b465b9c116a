"""Moves of a queue between real servers, while a producer runs, also when the command is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, WorkerProcess
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.runtime import RUNTIME
from agentexec.state import dynamodb_backend, redis_backend, sql_backend
from agentexec.state.backend import StateBackend
from agentexec.task import Entry
from agentexec.worker import queue_move, worker_process
from agentexec.worker.queue_move import QueueMove
from agentexec.worker.worker_process import Worker
from tests.deployment import Deploy, Deployment, on_targets, run_in_process
from tests.servers import Valkey
from tests.waiting import patient, wait_until, wait_until_async

T = TypeVar("T")

QUEUE = "moving"


def known(backend: StateBackend) -> set[Any]:
    found, cursor = set(), ""
    while True:
        agent_ids, cursor = backend.list_tasks(QUEUE, cursor)
        found.update(agent_ids)
        if not cursor:
            return found


THOROUGH = [("sql", "dynamodb"), ("dynamodb", "sql"), ("valkey", "dynamodb"), ("dynamodb", "valkey")]

DIRECTIONS = [
    pytest.param((source, target), id=f"{source} to {target}", marks=marks)
    for source, target, *marks in [
        ("sql", "valkey"),
        ("valkey", "sql"),
        *((*pair, pytest.mark.thorough) for pair in THOROUGH),
    ]
]


@pytest.fixture
def backends(
    request: pytest.FixtureRequest, sqlite_tables: str
) -> Iterator[tuple[StateBackend, StateBackend]]:
    """The backend that has the queue, and the one that gets it, by the names of the parameter."""
    ax.configure(database_url=sqlite_tables)

    def make(name: str) -> StateBackend:
        if name == "sql":
            return sql_backend.create(ax.CONF, RUNTIME.engine)
        if name == "valkey":
            url = request.getfixturevalue("valkey").url
            return redis_backend.create(ax.CONF.model_copy(update={"redis_url": url}), RUNTIME.engine)
        request.getfixturevalue("dynamodb")
        settings = ax.CONF.model_copy(update={"dynamodb_table": f"moves-{uuid4().hex}"})
        dynamodb_backend.create_storage(settings)
        return dynamodb_backend.create(settings, RUNTIME.engine)

    source, target = map(make, getattr(request, "param", ("sql", "valkey")))
    for backend in (source, target):
        backend.ping()
    yield source, target
    for backend in (source, target):
        backend.close()
    RUNTIME.close()


@pytest.mark.parametrize("backends", DIRECTIONS, indirect=True)
def test_a_queue_moves_and_keeps_its_order_delays_and_locks(
    backends: tuple[StateBackend, StateBackend],
) -> None:
    source, target = backends
    with RUNTIME.replaced(RUNTIME.engine, source, ax.Pool().registry):
        tasks = {
            ax.enqueue_sync("work", {}, queue_name=QUEUE, priority=ax.Priority.HIGH).agent_id
            for _ in range(30)
        }
        tasks.add(ax.enqueue_sync("work", {}, queue_name=QUEUE, delay=3600, lock_key="a").agent_id)
        move = QueueMove(RUNTIME.engine, source, target, QUEUE, ax.CONF)
        assert move.look() == (31, 0) and known(target) == tasks and not known(source)
        late = ax.enqueue_sync("work", {}, queue_name=QUEUE).agent_id
        # As after a kill between the two writes: both have it.
        target.push(QUEUE, [Entry(late)])
        canceled = ax.enqueue_sync("work", {}, queue_name=QUEUE).agent_id
        ax.cancel_sync(canceled)
        assert move.look().moved >= 1 and known(target) == {*tasks, late} and not known(source)
        # As the reconciler of an old worker does, which was left running.
        source.push(QUEUE, [Entry(late)])
        assert move.look() == (0, 0) and not known(source), "no task counts twice"
        depth = target.depth(QUEUE)
        assert (depth.ready, depth.delayed, depth.leased) == (31, 1, 0)


@on_targets("valkey+sqlite")
def test_the_command_refuses_the_same_place_under_another_name_and_unknown_queues(deploy: Deploy) -> None:
    deployment = deploy()
    ax.enqueue_sync("work", {})
    url = str(ax.CONF.redis_url)
    same = url.replace("127.0.0.1", "localhost")
    assert same != url
    for arguments, complaint in (
        (["--to", same], "--to names the state backend that the settings have"),
        (["--to", "database", "-q", ""], "--queue must not be empty"),
        (["--to", "database", "-q", "nosuch"], "Queue nosuch has no tasks and no workers"),
    ):
        code, out, err = run_in_process(deployment, "move-queue", *arguments)
        assert (code, out) == (2, "") and complaint in err, err
    _, out, _ = run_in_process(deployment, "queues")
    assert "nosuch" not in out and "paused" not in out
    assert RUNTIME.backend.depth(ax.CONF.queue_name).ready == 1


def start(source: StateBackend, worker: str, lease_seconds: float) -> UUID:
    """Start a task, as a worker with this name does."""
    task = ax.enqueue_sync("work", {}, queue_name=QUEUE).agent_id
    leases, _ = source.claim(QUEUE, worker, limit=100, low_quota=0, lease_seconds=lease_seconds)
    [lease] = [lease for lease in leases if lease.agent_id == task]
    for other in leases:
        if other is not lease:
            source.release(QUEUE, other)
    record(task, status=ax.Status.RUNNING, epoch=lease.epoch)
    return task


def record(task: UUID, **values: Any) -> None:
    with RUNTIME.engine.begin() as connection:
        connection.execute(update(Activity).where(Activity.agent_id == task).values(**values))


@pytest.mark.parametrize("backends", DIRECTIONS[:3], indirect=True)
@pytest.mark.parametrize("knows", [True, False], ids=["leased", "forgotten"])
def test_tasks_of_workers_that_are_all_dead_move_too(
    backends: tuple[StateBackend, StateBackend], knows: bool
) -> None:
    source, target = backends
    settings = ax.CONF.model_copy(update={"lease_seconds": 0.1})
    with RUNTIME.replaced(RUNTIME.engine, source, ax.Pool().registry):
        task = start(source, "dead", 0.05)
        if not knows:
            source.remove(QUEUE, [task])
        move = QueueMove(RUNTIME.engine, source, target, QUEUE, settings)
        wait_until(lambda: not move.look().running)
        move.look()
        assert known(target) == {task} and not known(source)
        depth = target.depth(QUEUE)
        assert (depth.ready, depth.leased) == (1, 0)


def test_a_move_waits_for_a_claim_of_a_live_worker_and_ends_in_time(
    backends: tuple[StateBackend, StateBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has claimed a task, which waits for the database, and does not answer."""
    monkeypatch.setattr(queue_move, "INTERVAL", 0.02)
    source, target = backends
    with RUNTIME.replaced(RUNTIME.engine, source, ax.Pool().registry):
        report(RUNTIME.engine, "live")
        task = ax.enqueue_sync("work", {}, queue_name=QUEUE).agent_id
        [lease], _ = source.claim(QUEUE, "live", limit=1, low_quota=0, lease_seconds=60)
        move = QueueMove(RUNTIME.engine, source, target, QUEUE, ax.CONF)
        said: list[str] = []
        with pytest.raises(TimeoutError, match="It stays paused"):
            move.run(0.2, said.append)
        assert known(source) == known(target) == {task}
        assert said == ["waiting for 1 task(s) that run and the answer of 1 worker process(es)"]
        source.release(QUEUE, lease)
        [address] = {message.split()[2] for message in source.receive("live", 0)}
        source.send(address, ["left live"])
        assert move.run(30) == 1 and not known(source)


def report(engine: Engine, worker_id: str) -> None:
    """Report a worker process that serves the queue."""
    values: dict[str, Any] = {
        "worker_id": worker_id,
        "queue": QUEUE,
        "host": "here",
        "pid": 1,
        "concurrency": 1,
    }
    use = {"running": 0, "draining": False, "cpu_percent": 0.0, "rss_bytes": 0}
    with Session(engine) as db:
        db.add(WorkerProcess(**values, **use, started_at=utc_now(), seen_at=utc_now()))
        db.commit()


async def test_a_move_ends_although_tasks_wait_for_others_of_the_queue(
    backends: tuple[StateBackend, StateBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go back to the queue, move with those for which they wait, and get their results on the new server."""
    monkeypatch.setattr(worker_process, "MOVE_PATIENCE", 0.1)
    monkeypatch.setattr(queue_move, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(queue_move, "INTERVAL", 0.05)
    monkeypatch.setattr(ax.CONF, "queue_name", QUEUE)
    source, target = backends
    pool, paused, starts = ax.Pool(queue_name=QUEUE), asyncio.Event(), Counter[str]()

    @pool.task("parent")
    async def parent(agent_id: UUID, context: dict[str, Any]) -> int:
        starts["parent"] += 1
        await paused.wait()
        children = [await ax.enqueue("child", {"number": number}) for number in range(2)]
        return sum(await ax.gather(*children, timeout=None))

    @pool.task("child")
    async def child(agent_id: UUID, context: dict[str, Any]) -> int:
        starts["child"] += 1
        return 1 + context["number"]

    async def work(backend: StateBackend, then: Callable[[Worker], Awaitable[T]]) -> T:
        with RUNTIME.replaced(RUNTIME.engine, backend, pool.registry):
            settings = Settings(queue_name=QUEUE, worker_concurrency=4)
            worker = Worker(pool.registry, RUNTIME, settings, f"worker-{uuid4().hex[:8]}")
            working = asyncio.create_task(worker.run())
            try:
                return await then(worker)
            finally:
                worker.drain()
                await working

    async def move(worker: Worker) -> ax.Task:
        task = await ax.enqueue("parent", {})
        await wait_until_async(lambda: starts["parent"])
        await ax.queues.pause(QUEUE)
        await wait_until_async(lambda: QUEUE in worker._pauses.paused())
        paused.set()
        moves = QueueMove(RUNTIME.engine, source, target, QUEUE, ax.CONF)
        assert await asyncio.to_thread(moves.run, patient(20)) >= 1
        assert len(known(target)) == 3 and not known(source)
        return task

    async def resume(_worker: Worker) -> int:
        await ax.queues.resume(QUEUE)
        return await ax.get_result(task, patient(20))

    task = await work(source, move)
    assert await work(target, resume) == 3
    assert starts == {"parent": 2, "child": 2}
    with Session(RUNTIME.engine) as db:
        assert ax.activity.detail(db, task.agent_id).attempt == 1


class Dies(BaseException):
    """The end of a process, at one of its calls of a backend."""


class Mortal:
    """A backend whose process dies right before, or right after, the nth call of both backends."""

    def __init__(self, backend: StateBackend, fuse: list[float]) -> None:
        self._backend = backend
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._backend, name)

        def call(*args: Any, **options: Any) -> Any:
            for happens in (False, True):
                self._fuse[0] -= 0.5
                if self._fuse[0] == 0:
                    raise Dies
                if not happens:
                    result = method(*args, **options)
            return result

        return call if callable(method) else method


@pytest.mark.parametrize(
    ("backends", "step"),
    [
        (("sql", "valkey"), 1),
        *(pytest.param(pair, 16, marks=pytest.mark.thorough) for pair in THOROUGH[:2]),
    ],
    indirect=["backends"],
)
def test_a_move_that_dies_at_any_call_has_lost_nothing(
    backends: tuple[StateBackend, StateBackend], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its tasks ran on a worker that is dead."""
    monkeypatch.setattr(queue_move, "INTERVAL", 0.0)
    source, target = backends
    settings = ax.CONF.model_copy(update={"lease_seconds": 0.5})
    instants = 0
    while True:
        tasks = {ax.enqueue_sync("work", {}, queue_name=QUEUE).agent_id for _ in range(3)}
        with RUNTIME.replaced(RUNTIME.engine, source, ax.Pool().registry):
            ran = start(source, "dead", 0.0)
            tasks |= {ran, *(ax.enqueue_sync("work", {}, queue_name=QUEUE).agent_id for _ in range(3))}
        mortal: Any = (Mortal(source, fuse := [(instants + 1) / 2]), Mortal(target, fuse))
        try:
            QueueMove(RUNTIME.engine, *mortal, QUEUE, settings).run(30)
            died = False
        except Dies:
            died = True
        assert known(source) | known(target) >= tasks
        QueueMove(RUNTIME.engine, source, target, QUEUE, settings).run(30)
        assert known(target) >= tasks and not known(source)
        with Session(RUNTIME.engine) as db:
            row = db.execute(select(Activity.status, Activity.crashes).where(Activity.agent_id == ran)).one()
        assert tuple(row) == (ax.Status.QUEUED, 1)
        if not died:
            break
        instants += step
        target.remove(QUEUE, sorted(tasks))
        for task in tasks:
            ax.cancel_sync(task)
    assert instants > 20


def command(deployment: Deployment, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agentexec", *arguments],
        cwd=deployment.folder,
        env=deployment.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.thorough
def test_a_killed_move_goes_on_and_every_task_runs_once(
    tmp_path: Path, sqlite_tables: str, valkey: Valkey
) -> None:
    """Its tasks run on the old workers until they are paused, and on the new ones after the move."""
    deployment = Deployment(tmp_path, sqlite_tables)
    try:
        deployment.start()
        first = [deployment.enqueue("work", f"a{number}") for number in range(20)]
        stop = threading.Event()
        late: list[ax.Task] = []

        def produce() -> None:
            while not stop.is_set():
                late.append(deployment.enqueue("work", f"b{len(late)}"))
                stop.wait(0.02)

        producer = threading.Thread(target=produce)
        producer.start()
        try:
            killed = command(deployment, "move-queue", "--to", valkey.url)
            assert killed.stdout is not None and "is paused" in killed.stdout.readline()
            count = len(late)
            wait_until(lambda: len(late) > count + 5)
            killed.kill()
            killed.communicate()
            out, err = command(deployment, "move-queue", "--to", valkey.url).communicate(timeout=patient(60))
            assert "has moved" in out, err
            deployment.stop()
            deployment.environment["AGENTEXEC_REDIS_URL"] = valkey.url
            out, err = command(deployment, "queues", "resume", ax.CONF.queue_name).communicate(
                timeout=patient(60)
            )
            assert "is resumed" in out, err
            deployment.start()
        finally:
            stop.set()
            producer.join()
        tasks = [task.agent_id for task in [*first, *late]]
        wait_until(lambda: deployment.ledger_file.read_text().count("end ") >= len(tasks), timeout=60)
        wait_until(lambda: not active(), timeout=60)
        starts = [
            line.split()[1] for line in deployment.ledger_file.read_text().splitlines() if "start" in line
        ]
        assert len(starts) == len(set(starts)) == len(tasks)
    finally:
        deployment.close()


def active() -> int:
    with Session(RUNTIME.engine) as db:
        return ax.activity.active_count(db)
