"""The database away for a while, under a deployment at work."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import create_engine

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.deployment import LEASE, Deploy, Deployment, on_targets, try_enqueue
from tests.servers import Postgres

OUTAGE = 10.0
SHORT_OUTAGE = 2 * LEASE
"""Seconds after which every lease has run out, where the queue is away together with the record."""


@on_targets("valkey+postgres", "postgres")
def test_the_database_away_while_tasks_run_and_are_enqueued(deploy: Deploy) -> None:
    deployment = deploy(worker_concurrency=2)
    deployment.start()
    tasks = {key: deployment.enqueue("work", key, seconds=1) for key in "abcd"}
    deployment.wait_for_start("a", "b")
    with Producer(deployment) as producer:
        deployment.wait_for(lambda: producer.accepted)
        deployment.database.stop()
        away = time.monotonic()
        deployment.wait_for(lambda: producer.refused)
        outage = OUTAGE if deployment.broker else SHORT_OUTAGE
        deployment.wait_for(lambda: time.monotonic() - away > outage)
        deployment.database.start()
        before = len(producer.accepted)
        deployment.wait_for(lambda: len(producer.accepted) > before)
    tasks |= producer.accepted
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * len(tasks)
    started = deployment.ledger("start")
    assert {key: started[key] for key in tasks} == dict.fromkeys(tasks, 1)
    assert deployment.log.count("cannot be used") + deployment.log.count("went away") < 10, (
        "an outage is told once by each loop, not once per turn"
    )


@pytest.mark.thorough
@on_targets("valkey+postgres", "postgres", alternates=False)
def test_a_database_that_is_read_only_for_seconds_loses_no_ending(deploy: Deploy) -> None:
    deployment = deploy(worker_concurrency=4)
    deployment.start()
    tasks = [deployment.enqueue("work", key, seconds=1) for key in "abcd"]
    deployment.wait_for_start(*"abcd")
    database = deployment.database
    assert isinstance(database, Postgres)
    try:
        database.set_read_only(True)
        deployment.wait_for(lambda: len(deployment.ledger("end")) == 4)
        deployment.wait_for(lambda: "read-only" in deployment.log)
    finally:
        database.set_read_only(False)
    deployment.wait_for_ends(tasks)
    assert deployment.endings(tasks) == [["complete"]] * 4
    assert set(deployment.ledger("start").values()) == {1}


@pytest.mark.thorough
@on_targets("valkey+postgres")
def test_a_deployment_that_has_served_waits_for_its_database_however_long(deploy: Deploy) -> None:
    """This holds even if the maintenance process, which checks the servers at its start, dies in the outage."""
    deployment = deploy(connect_timeout=0.5)
    supervisor = deployment.start()
    [worker] = deployment.wait_for(deployment.workers)
    deployment.database.stop()
    deployment.maintenance().kill()
    deployment.wait_for(lambda: "Waiting for it" in deployment.log)
    killed = time.monotonic()
    deployment.wait_for(lambda: time.monotonic() - killed > SHORT_OUTAGE)
    assert supervisor.poll() is None, deployment.log
    deployment.database.start()
    task = deployment.wait_for(lambda: try_enqueue(deployment))
    deployment.wait_for_ends([task])
    assert deployment.worker_pids("late") == [worker.pid]
    deployment.wait_for(lambda: "Connected to the database" in deployment.log)


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_the_sqlite_file_locked_for_ten_seconds_while_tasks_run(deploy: Deploy) -> None:
    deployment = deploy(worker_concurrency=2)
    deployment.start()
    tasks = {key: deployment.enqueue("work", key, seconds=1) for key in "abcd"}
    deployment.wait_for_start("a", "b")
    # With autocommit this connection holds the lock from BEGIN to ROLLBACK.
    engine = create_engine(RUNTIME.engine.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as other:
        other.exec_driver_sql("PRAGMA busy_timeout=10000")
        other.exec_driver_sql("BEGIN IMMEDIATE")
        locked = time.monotonic()
        deployment.wait_for(lambda: time.monotonic() - locked > OUTAGE)
        other.exec_driver_sql("ROLLBACK")
    engine.dispose()
    deployment.wait_for_ends(tasks.values())
    assert deployment.endings(tasks.values()) == [["complete"]] * 4
    assert deployment.ledger("start") == dict.fromkeys(tasks, 1)


class Producer:
    """Part of another process: enqueues without pause, and notes what was accepted and what was refused."""

    def __init__(self, deployment: Deployment) -> None:
        self.accepted: dict[str, ax.Task] = {}
        self.refused: list[str] = []
        self._deployment = deployment
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.1):
            number += 1
            key = f"produced-{number}"
            try:
                self.accepted[key] = self._deployment.enqueue("work", key)
            except ax.UnavailableError:
                self.refused.append(key)
