"""Every call of a handler waits while a server is away, and takes effect once."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, ActivityLog
from agentexec.journal.models import SentEvent
from agentexec.runtime import RUNTIME
from tests.conftest import ALL_SERVERS
from tests.deployment import Deploy, Deployment
from tests.faults.waits_module import ASYNC, BLOCKING, CHILDREN, PLAIN
from tests.servers import Postgres

MODULE = Path(__file__).with_name("waits_module.py")
CALLS = {**ASYNC, **PLAIN}

OUTAGE = 2.0
ENOUGH = 60.0
"""Seconds within which all calls go on after an outage, however slow the machine is."""


class Calls:
    """All calls of the module, each in a task of its own, at the gate."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.gate = deployment.folder / "gate"
        environment = {"AGENTEXEC_WORKER_CONCURRENCY": "100"}
        command = [sys.executable, "-m", "agentexec", "worker", str(MODULE)]
        deployment.spawn(command, **environment)
        gate = str(self.gate)
        done = ax.enqueue_sync("child", {"of": "done"})
        self.canceled = [ax.enqueue_sync("child", {"of": "never"}, delay=3600) for _ in range(2)]
        self.failed = [ax.enqueue_sync("flaky", {"name": "", "gate": gate}) for _ in range(2)]
        self.activity = ax.activity.create("by hand")
        self.completed = ax.activity.create("by hand")
        deployment.wait_for_ends([done, *self.failed], ENOUGH)
        self.tasks = {}
        for task_name, calls in (("call", ASYNC), ("call_plain", PLAIN)):
            for name in calls:
                is_first = task_name == "call"
                context = {
                    "name": name,
                    "gate": gate,
                    "queued": str(self.canceled[is_first].agent_id),
                    "failed": str(self.failed[is_first].agent_id),
                    "activity": str(self.completed if name == "complete" else self.activity),
                    "done": str(done.agent_id),
                }
                self.tasks[name] = ax.enqueue_sync(task_name, context)
        deployment.wait_for(lambda: len(deployment.ledger("start")) == len(CALLS), ENOUGH)
        deployment.wait_for(lambda: deployment.ledger("child")["map_in_flight"] == 3, ENOUGH)

    def begin(self) -> None:
        """Open the gate, and wait until every call is under way."""
        self.gate.touch()
        others = len(CALLS) - len(BLOCKING)
        self.deployment.wait_for(lambda: len(self.deployment.ledger("call")) == others, ENOUGH)
        self.gate.with_name("gate-for-blocking").touch()
        self.deployment.wait_for(lambda: len(self.deployment.ledger("call")) > others, ENOUGH)

    def check(self) -> None:
        """Wait for the ends of all tasks, and check that each call has its result and took effect once."""
        deployment = self.deployment
        deployment.wait_for_ends([*self.tasks.values(), *self.failed], ENOUGH)
        assert {name: deployment.status(task) for name, task in self.tasks.items()} == dict.fromkeys(
            CALLS, "complete"
        ), deployment.log
        results = {
            name: ax.get_result_sync(task) for name, task in self.tasks.items() if CALLS[name][1] is not None
        }
        assert results == {name: answer for name, (_, answer) in CALLS.items() if answer is not None}
        once = {name.replace(" ", "_"): 1 for name in CALLS}
        assert deployment.ledger("start") == once
        assert deployment.ledger("end") == once
        with Session(RUNTIME.engine) as db:
            children = db.scalars(select(Activity).where(Activity.parent_id.is_not(None))).all()
            by_id = {task.agent_id: name for name, task in self.tasks.items()}
            assert Counter(by_id[child.parent_id] for child in children) == CHILDREN
            deployment.wait_for_ends(
                [ax.Task(agent_id=child.agent_id, task_name="child", queue_name="") for child in children],
                ENOUGH,
            )
            assert Counter(db.scalars(select(SentEvent.name).where(SentEvent.name != "own"))) == {
                "send_event": 1,
                "send_event_sync": 1,
            }
            lines = Counter(db.scalars(select(ActivityLog.message)))
            assert {lines[line] for line in ("activity", "report", "update", "complete")} == {1}
            assert lines["Canceled."] == 2
            for name in ("create", "transaction"):
                assert db.scalar(select(func.count()).where(Activity.agent_type == name)) == 1
        assert {name: ax.Tracker(name).count for name in ("Tracker", "Tracker sync")} == {
            "Tracker": 1,
            "Tracker sync": 1,
        }
        assert {deployment.status(task) for task in self.failed} == {"complete"}
        assert {deployment.status(task) for task in self.canceled} == {"canceled"}


@contextmanager
def restarted(deployment: Deployment) -> Iterator[None]:
    """Stop the database as `pg_ctl restart` does, and start it at the end."""
    assert deployment.database is not None
    deployment.database.stop()
    yield
    deployment.database.start()


@contextmanager
def disconnecting(deployment: Deployment) -> Iterator[None]:
    """End every connection to the database, again and again."""
    over = threading.Event()

    def disconnect() -> None:
        with psycopg.connect(conninfo(deployment), autocommit=True) as connection:
            while not over.wait(0.02):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )

    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(disconnect)
        yield
        over.set()
        ended.result()


@contextmanager
def read_only(deployment: Deployment) -> Iterator[None]:
    """Let the database refuse every write, as a standby does."""
    server(deployment).set_read_only(True)
    yield
    server(deployment).set_read_only(False)


@contextmanager
def full(deployment: Deployment) -> Iterator[None]:
    """Take all connections of the database."""
    with ExitStack() as stack:
        with psycopg.connect(conninfo(deployment), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            )
        with suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(psycopg.connect(conninfo(deployment)))
        yield


@contextmanager
def locked(deployment: Deployment) -> Iterator[None]:
    """Hold SQLite's write lock."""
    engine = create_engine(RUNTIME.engine.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        yield
        other.exec_driver_sql("ROLLBACK")
    engine.dispose()


@contextmanager
def redis_restarted(deployment: Deployment) -> Iterator[None]:
    """Stop Redis, which loses its data."""
    assert deployment.broker is not None
    deployment.broker.stop()
    yield
    deployment.broker.start()


@contextmanager
def redis_paused(deployment: Deployment) -> Iterator[None]:
    """Let Redis answer nobody."""
    assert deployment.broker is not None
    with deployment.broker.client() as client:
        client.client_pause(int(OUTAGE * 1000))
    yield


def server(deployment: Deployment) -> Postgres:
    assert isinstance(deployment.database, Postgres)
    return deployment.database


def conninfo(deployment: Deployment) -> str:
    return server(deployment).url.replace("+psycopg", "")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("deploy", "outage"),
    [
        ("valkey+postgres", restarted),
        ("postgres", restarted),
        *([("valkey+mariadb", restarted)] if ALL_SERVERS else []),
        ("postgres", disconnecting),
        ("postgres", read_only),
        ("postgres", full),
        ("embedded", locked),
        ("valkey+postgres", redis_restarted),
        ("valkey+postgres", redis_paused),
    ],
    indirect=["deploy"],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_call_of_a_handler_waits_while_a_server_is_away(
    deploy: Deploy, outage: Callable[[Deployment], AbstractContextManager[None]]
) -> None:
    calls = Calls(deploy())
    with outage(calls.deployment):
        calls.begin()
        away = time.monotonic()
        calls.deployment.wait_for(lambda: time.monotonic() - away > OUTAGE)
    calls.check()
