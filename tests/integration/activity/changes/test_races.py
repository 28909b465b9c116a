"""Two processes change one task at the same time: whatever their order, the task ends one way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, select, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.changes.admissions import StartTerms
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.store import RecordStore
from agentexec.activity.changes.stores import record_store
from agentexec.activity.models import Activity
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading, writing
from agentexec.runtime import RUNTIME
from agentexec.state.backend import Depth
from agentexec.task import Lease, Status, new_agent_id
from agentexec.worker.reconciler import Reconciler
from tests.deployment import Deploy, Deployment, on_targets
from tests.waiting import patient

everywhere = on_targets("embedded", "postgres", "valkey+sqlite")


def start(worker: str) -> Lease:
    """Claim and admit the one task that is ready, as a worker process does."""
    [lease] = RUNTIME.backend.claim(ax.CONF.queue_name, worker, limit=1, low_quota=0, lease_seconds=30).leases
    terms = StartTerms(utc_now(), "Task started.", max_crashes=3)
    admissions = record_store().admit([lease], terms, suspect_running=False)
    assert [admitted.lease for admitted in admissions.started] == [lease]
    return lease


def end(lease: Lease, status: Status = Status.COMPLETE) -> bool:
    """End a task as the writer of its process does; return False if that is refused."""
    ending = Ending(lease, status, "ended")
    return not record_store().record([], [ending], now=utc_now(), result_ttl=60).refused


def sweep(worker: str) -> None:
    """Recover the tasks of a worker process, as the maintenance process does when it learns of its crash."""
    Reconciler(RUNTIME, ax.CONF, "test").recover(worker, "did not answer")


def crashes(agent_id: UUID) -> int:
    with reading(RUNTIME.engine) as connection:
        return connection.execute(select(Activity.crashes).where(Activity.agent_id == agent_id)).scalar_one()


@contextmanager
def no_statements(engine: Engine) -> Iterator[None]:
    """Fail if a statement goes through SQLAlchemy: those that take one round trip go to the driver directly."""

    def fail(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        raise AssertionError(f"a separate statement: {statement}")

    event.listen(engine, "before_cursor_execute", fail)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", fail)


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    return deploy()


def returns(deployment: Deployment, task: ax.Task) -> int:
    """Count the log lines that say that the task went back to the queue."""
    return sum("goes back to the queue" in line.message for line in deployment.detail(task).logs)


@everywhere
def test_a_sweep_after_the_end_only_acknowledges(deployment: Deployment) -> None:
    task = deployment.enqueue("work", "a")
    lease = start("slow")
    assert end(lease)
    sweep("slow")
    assert deployment.endings([task]) == [["complete"]]
    assert returns(deployment, task) == 0
    assert RUNTIME.backend.depth(ax.CONF.queue_name) == Depth(0, 0, 0)


@everywhere
def test_an_end_after_the_sweep_is_refused_once_another_worker_has_the_task(deployment: Deployment) -> None:
    task = deployment.enqueue("work", "a")
    zombie = start("slow")
    sweep("slow")
    successor = start("next")
    assert not end(zombie, Status.ERROR)
    assert end(successor)
    assert deployment.endings([task]) == [["complete"]]


@everywhere
def test_only_one_of_many_concurrent_sweeps_returns_the_task(deployment: Deployment) -> None:
    task = deployment.enqueue("work", "a")
    start("dead")
    ready = threading.Barrier(4)

    def sweep_together() -> None:
        ready.wait()
        sweep("dead")

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(sweep_together) for _ in range(4)]:
            future.result()
    assert (returns(deployment, task), crashes(task.agent_id)) == (1, 1)
    assert RUNTIME.backend.depth(ax.CONF.queue_name) == Depth(1, 0, 0)
    assert start("next").epoch == 2


@everywhere
def test_an_interrupted_sweep_is_finished_by_the_next_one(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [deployment.enqueue("work", key) for key in "abc"]
    for _ in tasks:
        start("dead")
    backend, released = RUNTIME.backend, []

    def release(queue: str, lease: Lease) -> bool:
        if released:
            raise ax.UnavailableError("The database is away.")
        released.append(lease)
        return type(backend).release(backend, queue, lease)

    with monkeypatch.context() as patch:
        patch.setattr(backend, "release", release)
        with pytest.raises(ax.UnavailableError):
            sweep("dead")
    sweep("dead")
    assert RUNTIME.backend.depth(ax.CONF.queue_name) == Depth(3, 0, 0)
    assert [(returns(deployment, task), crashes(task.agent_id)) for task in tasks] == [(1, 1)] * 3


@everywhere
def test_a_retry_and_a_redelivery_of_one_task_make_one_attempt(deployment: Deployment) -> None:
    task = deployment.enqueue("work", "a")
    lease = start("slow")
    record_store().record([], [Ending(lease, Status.QUEUED, "once more")], now=utc_now(), result_ttl=60)
    # The worker crashes before it has told the queue about the retry; its crash is swept twice.
    sweep("slow")
    sweep("slow")
    assert RUNTIME.backend.depth(ax.CONF.queue_name) == Depth(1, 0, 0)
    assert end(start("next"))
    assert (deployment.detail(task).attempt, crashes(task.agent_id)) == (2, 0)
    assert deployment.endings([task]) == [["complete"]]


@on_targets("postgres")
def test_fresh_tasks_start_in_one_round_trip_with_the_usual_rows(deployment: Deployment) -> None:
    first, second, canceled, crashed, overtaken = (deployment.enqueue("work", text) for text in "abcde")
    asyncio.run(ax.cancel(canceled.agent_id))
    claims = [Lease(task.agent_id, 1) for task in (second, canceled, crashed, overtaken, first)]
    with writing(RUNTIME.engine) as connection:
        for task, values in ((crashed, {"crashes": 1}), (overtaken, {"epoch": 1})):
            connection.execute(update(Activity).where(Activity.agent_id == task.agent_id).values(**values))
    unknown = Lease(new_agent_id(), 1)

    store, terms = record_store(), StartTerms(utc_now(), "Task started.", max_crashes=3)
    with no_statements(RUNTIME.engine):
        started = store.start_fresh([*claims, unknown], terms)
    assert [admitted.lease for admitted in started] == [claims[0], claims[4]], "in the order of the claims"
    assert not store.start_fresh(claims, terms)

    third = deployment.enqueue("work", "f")
    admissions = store.admit([Lease(third.agent_id, 1)], terms, suspect_running=False)
    [usual] = admissions.started
    same = {"lease": usual.lease, "context": usual.context, "queued_at": usual.queued_at}
    assert started[1]._replace(**same) == usual
    assert abs((started[1].queued_at - usual.queued_at).total_seconds()) < 60
    details = [deployment.detail(task) for task in (first, third)]
    shown = [
        (detail.status, detail.attempt, detail.percentage, [line.message for line in detail.logs])
        for detail in details
    ]
    assert shown[0] == shown[1]
    assert all(detail.started_at and detail.started_at == detail.updated_at for detail in details)


@on_targets("postgres")
def test_tasks_complete_in_one_round_trip_with_the_usual_rows(deployment: Deployment) -> None:
    tasks = [deployment.enqueue("work", text) for text in "abcd"]
    leases = [start("worker") for _ in tasks]
    results = ['{"answer": 1}', None, "2", '{"answer": 1}']
    endings = [
        Ending(lease, Status.COMPLETE, "Done.", result=result)
        for lease, result in zip(leases, results, strict=True)
    ]
    endings[2] = endings[2]._replace(lease=Lease(leases[2].agent_id, 7))
    quick, usual = endings[:3], endings[3:]

    store = record_store()
    with no_statements(RUNTIME.engine):
        recorded = store.record([], quick, now=utc_now(), result_ttl=60)
        assert recorded.refused == [endings[2].lease]
        again = store.record([], quick, now=utc_now(), result_ttl=60)
        assert again.refused == [ending.lease for ending in quick]
    mixed = [quick[0], usual[0]._replace(status=Status.ERROR, lease=Lease(new_agent_id(), 1))]
    with pytest.raises(AssertionError, match="a separate statement"), no_statements(RUNTIME.engine):
        store.record([], mixed, now=utc_now(), result_ttl=60)
    general = RecordStore(RUNTIME.engine)
    assert not general.record([], usual, now=utc_now(), result_ttl=60).refused

    by_id = {task.agent_id: task for task in tasks}
    first, second, running, last = (deployment.detail(by_id[lease.agent_id]) for lease in leases)
    shown = [
        (detail.status, detail.percentage, detail.finished_at == detail.updated_at, detail.logs[-1].message)
        for detail in (first, second, last)
    ]
    assert shown == [(Status.COMPLETE, 100, True, "Done.")] * 3
    assert running.status is Status.RUNNING
    kept = [asyncio.run(ax.get_result(by_id[lease.agent_id], timeout=patient(5))) for lease in leases[:2]]
    assert kept == [{"answer": 1}, None]


@everywhere
def test_a_retry_beside_a_prune_is_refused_or_keeps_its_task(deployment: Deployment) -> None:
    task = deployment.enqueue("work", "a")
    end(start("w"), Status.ERROR)
    retried: list[Future[bool]] = []

    def retry(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        """Retry the task as another process does, once the prune has chosen what it removes."""
        if not retried and "held_lock IS NULL" in statement:
            retried.append(processes.submit(ax.retry_sync, task.agent_id))
            wait(retried, timeout=1)  # of no use if it waits for the prune, as it should

    with ThreadPoolExecutor(1) as processes, Session(RUNTIME.engine) as db:
        event.listen(RUNTIME.engine, "after_cursor_execute", retry)
        removed = ax.activity.prune(db, timedelta())
        event.remove(RUNTIME.engine, "after_cursor_execute", retry)
    assert removed == 1
    assert not retried[0].result()
