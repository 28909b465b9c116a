"""Moves of a queue between real servers, while a producer runs, also when the command is killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.runtime import RUNTIME
from agentexec.state import redis_backend, sql_backend
from agentexec.state.backend import StateBackend
from agentexec.task import Entry
from agentexec.worker.queue_move import QueueMove
from tests.deployment import Deployment
from tests.servers import Valkey
from tests.waiting import patient, wait_until

QUEUE = "moving"


def known(backend: StateBackend) -> set[Any]:
    found, cursor = set(), ""
    while True:
        agent_ids, cursor = backend.list_tasks(QUEUE, cursor)
        found.update(agent_ids)
        if not cursor:
            return found


@pytest.fixture
def backends(sqlite_tables: str, valkey: Valkey) -> Iterator[tuple[StateBackend, StateBackend]]:
    ax.configure(database_url=sqlite_tables)
    settings = ax.CONF.model_copy(update={"redis_url": valkey.url})
    pair = (sql_backend.create(settings, RUNTIME.engine), redis_backend.create(settings, RUNTIME.engine))
    for backend in pair:
        backend.ping()
    yield pair
    pair[1].close()
    RUNTIME.close()


@pytest.mark.parametrize("back", [False, True], ids=["sql to valkey", "valkey to sql"])
def test_a_queue_moves_and_keeps_its_order_delays_and_locks(
    backends: tuple[StateBackend, StateBackend], back: bool
) -> None:
    source, target = reversed(backends) if back else backends
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
        assert move.look() == (0, 0)
        depth = target.depth(QUEUE)
        assert (depth.ready, depth.delayed, depth.leased) == (31, 1, 0)


@pytest.mark.parametrize("back", [False, True], ids=["sql to valkey", "valkey to sql"])
def test_tasks_of_workers_that_are_all_dead_move_too(
    backends: tuple[StateBackend, StateBackend], back: bool
) -> None:
    source, target = reversed(backends) if back else backends
    with RUNTIME.replaced(RUNTIME.engine, source, ax.Pool().registry):
        task = ax.enqueue_sync("work", {}, queue_name=QUEUE).agent_id
        [lease], _ = source.claim(QUEUE, "dead", limit=1, low_quota=0, lease_seconds=0.05)
        values = {"status": ax.Status.RUNNING, "epoch": lease.epoch}
        with RUNTIME.engine.begin() as connection:
            connection.execute(update(Activity).where(Activity.agent_id == task).values(**values))
        move = QueueMove(RUNTIME.engine, source, target, QUEUE, ax.CONF)
        wait_until(lambda: not move.look().running)
        move.look()
        assert known(target) == {task} and not known(source)


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
    "back", [False, pytest.param(True, marks=pytest.mark.thorough)], ids=["sql to valkey", "valkey to sql"]
)
def test_a_move_that_dies_at_any_call_has_lost_nothing(
    backends: tuple[StateBackend, StateBackend], back: bool
) -> None:
    source, target = reversed(backends) if back else backends
    instants = 0
    while True:
        tasks = {ax.enqueue_sync("work", {}, queue_name=QUEUE).agent_id for _ in range(3)}
        with RUNTIME.replaced(RUNTIME.engine, source, ax.Pool().registry):
            tasks |= {ax.enqueue_sync("work", {}, queue_name=QUEUE).agent_id for _ in range(3)}
        fuse = [(instants + 1) / 2]
        mortal: Any = (Mortal(source, fuse), Mortal(target, fuse))
        try:
            QueueMove(RUNTIME.engine, *mortal, QUEUE, ax.CONF).look()
            died = False
        except Dies:
            died = True
        assert known(source) | known(target) >= tasks
        again = QueueMove(RUNTIME.engine, source, target, QUEUE, ax.CONF)
        again.look()
        assert known(target) >= tasks and not known(source)
        if not died:
            break
        instants += 1
    assert instants > 8


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
