"""Processes that are frozen inside a transaction, as a paused host or SIGSTOP does: what they have locked, others go without.

A frozen process is a second engine here, whose transaction says nothing more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.changes.admissions import BUSY_SECONDS, StartTerms
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.served_tasks import report_served
from agentexec.activity.changes.stores import record_store
from agentexec.activity.changes.writer import Writer
from agentexec.activity.models import Activity, FollowUp
from agentexec.db import lock_limits
from agentexec.db.clock import utc_now
from agentexec.db.engine import open_engine
from agentexec.db.transactions import inserting, reading, writing
from agentexec.errors import UnavailableError
from agentexec.journal import store
from agentexec.runtime import RUNTIME
from agentexec.state.sql_models import QueueEntry
from agentexec.task import Lease
from agentexec.worker.follow_ups import FollowUps
from agentexec.worker.lease_recovery import BUSY_WAITS
from agentexec.worker.reconciler import Reconciler
from tests.attempts import ReplayableTask
from tests.deployment import Deploy, Deployment, on_targets
from tests.waiting import wait_until

on_servers = on_targets("postgres", "mariadb", "valkey+postgres")
on_databases = on_targets("postgres", "mariadb")

LEASE = 0.2
"""Length in seconds of leases that nobody renews."""


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    return deploy()


@pytest.fixture
def other(deployment: Deployment) -> Iterator[Engine]:
    """Engine of another process."""
    engine = open_engine(RUNTIME.engine.url)
    yield engine
    engine.dispose()


@contextmanager
def frozen(other: Engine, statement: Any, values: dict[str, Any] | None = None) -> Iterator[Connection]:
    """Freeze a process after a statement of its transaction; at the end it is killed."""
    with writing(other) as connection:
        connection.execute(statement, values or {})
        yield connection
        connection.rollback()


def lock_task(task: ax.Task) -> Any:
    return select(Activity.status).where(Activity.agent_id == task.agent_id).with_for_update()


def lock_entry(task: ax.Task) -> Any:
    return select(QueueEntry.epoch).where(QueueEntry.agent_id == task.agent_id).with_for_update()


def start(*workers: str) -> list[Lease]:
    """Claim and start one task for each worker, under leases that soon expire."""
    leases = []
    for worker in workers:
        claim = RUNTIME.backend.claim(ax.CONF.queue_name, worker, limit=1, low_quota=0, lease_seconds=LEASE)
        leases += claim.leases
    terms = StartTerms(utc_now(), "Started.", max_crashes=3)
    admissions = record_store().admit(leases, terms, suspect_running=False)
    assert len(admissions.started) == len(workers)
    return leases


def crashes(task: ax.Task) -> int:
    with reading(RUNTIME.engine) as connection:
        return connection.execute(
            select(Activity.crashes).where(Activity.agent_id == task.agent_id)
        ).scalar_one()


def reconcile_until(condition: Callable[[], object]) -> None:
    reconciler = Reconciler(RUNTIME, ax.CONF, "test")

    def turn() -> object:
        reconciler.run_once()
        return condition()

    wait_until(turn, timeout=20)


def limits(connection: Connection) -> list[str]:
    """Return the limits of a connection: of its silence in a transaction, and of its waits for locks."""
    names = {
        "postgresql": (
            "current_setting('idle_in_transaction_session_timeout')",
            "current_setting('lock_timeout')",
        ),
        "mysql": ("@@idle_transaction_timeout", "@@innodb_lock_wait_timeout"),
    }[connection.dialect.name]
    return [str(connection.execute(text(f"SELECT {name}")).scalar()) for name in names]


class TestLimits:
    @on_databases
    def test_the_server_ends_the_transaction_of_a_frozen_process_which_then_notices(
        self, deployment: Deployment, other: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lock_limits, "IDLE_SECONDS", 1)
        task = deployment.enqueue("work", "a")
        with pytest.raises(UnavailableError), frozen(other, lock_task(task)) as connection:
            assert ax.cancel_sync(task), "waits for the lock"
            connection.execute(lock_task(task))  # the process goes on, and is told to try again
        with writing(other) as connection:
            assert connection.execute(lock_task(task)).scalar() == ax.Status.CANCELED

    @on_targets("postgres")
    def test_so_it_does_for_one_that_is_frozen_within_a_round_trip(
        self, deployment: Deployment, other: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lock_limits, "WHOLE_SECONDS", 1)
        task = deployment.enqueue("work", "a")
        with pytest.raises(UnavailableError), inserting(other) as connection:
            connection.execute(update(Activity).values(message="frozen"))
            wait_until(lambda: ax.cancel_sync(task))
        assert deployment.detail(task).logs[-1].message != "frozen"

    @on_databases
    def test_a_statement_waits_for_a_lock_for_a_while_only(
        self, deployment: Deployment, other: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lock_limits, "LOCK_SECONDS", 1)
        task = deployment.enqueue("work", "a")
        with frozen(other, lock_task(task)), pytest.raises(UnavailableError) as failure:
            ax.cancel_sync(task)
        assert failure.value.contended
        assert ax.cancel_sync(task)

    @on_databases
    def test_transactions_of_users_have_no_limits_on_the_same_connections(
        self, deployment: Deployment
    ) -> None:
        with reading(RUNTIME.engine) as connection:
            unlimited = limits(connection)
        for _ in range(2):
            with writing(RUNTIME.engine) as connection:
                assert [value.removesuffix("s") for value in limits(connection)] == ["10", "10"]
            with Session(ax.get_engine()) as session:
                assert limits(session.connection()) == unlimited
            with ax.get_engine().begin() as connection:
                assert limits(connection) == unlimited
        assert RUNTIME.engine.pool.checkedin() == 1, "one connection served all"

    @on_databases
    async def test_a_transaction_of_a_call_is_limited_once_it_locks_its_task(
        self, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lock_limits, "IDLE_SECONDS", 1)
        before: list[str] = []
        after: list[str] = []
        lock = store._lock

        def pay() -> str:
            with ax.transaction() as session:
                before.extend(limits(session.connection()))
                time.sleep(1.5)  # a slow service
                session.execute(update(Activity).values(message="paid"))
            return "paid"

        def note_limits(connection: Connection, *arguments: Any) -> Any:
            row = lock(connection, *arguments)
            after[:] = limits(connection)
            return row

        monkeypatch.setattr(store, "_lock", note_limits)
        task = ReplayableTask()
        steps = ax.OpenAIRunner(task.agent_id)
        assert await task.attempt(lambda: steps.step("pay", pay, policy="transactional")) == "paid"
        with reading(RUNTIME.engine) as connection:
            assert connection.execute(select(Activity.message)).scalar() == "paid"
        assert before in (["0", "0"], ["0", "50"])
        assert [limit.removesuffix("s") for limit in after] == ["1", "10"]


class TestCalls:
    @pytest.mark.thorough
    @on_servers
    def test_each_ends_while_every_row_is_locked_that_there_is(
        self, deployment: Deployment, other: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lock_limits, "LOCK_SECONDS", 1)
        queue, backend = ax.CONF.queue_name, RUNTIME.backend
        task = deployment.enqueue("work", "a")
        for key in "bc":
            ax.enqueue_sync("work", {"key": key}, lock_key="door")
        [lease] = start("frozen")
        backend.acquire_leadership("reconciler:here", "frozen", 60)
        backend.compare(queue, [], 60)
        report_served(RUNTIME.engine, queue, ["work"], utc_now())
        taken = {"idempotency_key": "taken"}
        calls: dict[str, Callable[[], object]] = {
            "cancel": lambda: ax.cancel_sync(task),
            "claim": lambda: backend.claim(queue, "w", limit=5, low_quota=5, lease_seconds=60),
            "renew": lambda: backend.renew(queue, "frozen", [lease], 60),
            "release": lambda: backend.release(queue, lease),
            "lead": lambda: backend.acquire_leadership("reconciler:here", "other", 60),
            "served": lambda: report_served(RUNTIME.engine, queue, ["work", "more"], utc_now()),
            "enqueue the same": lambda: ax.enqueue_sync("work", {"key": "x"}, **taken),
            "reconcile": Reconciler(RUNTIME, ax.CONF, "test").run_once,
        }
        free: dict[str, Callable[[], object]] = {
            "enqueue": lambda: deployment.enqueue("work", "d"),
            "list": lambda: deployment.detail(task),
            "depth": deployment.depth,
        }
        with writing(other, limited=False) as connection:
            with Session(connection) as session:
                ax.enqueue_sync("work", {"key": "y"}, session=session, **taken)
                session.flush()
            for table in ax.Base.metadata.sorted_tables:
                connection.execute(select(table).with_for_update())
            for call in free.values():
                call()
            for call in calls.values():
                with suppress(UnavailableError):
                    call()
            connection.rollback()
        for call in calls.values():
            call()


class TestReconciler:
    @on_servers
    def test_a_task_that_a_frozen_process_has_locked_does_not_hold_up_the_others(
        self, deployment: Deployment, other: Engine
    ) -> None:
        stuck, free = deployment.enqueue("work", "a"), deployment.enqueue("work", "b")
        start("frozen", "killed")
        with frozen(other, lock_task(stuck)):
            reconcile_until(lambda: deployment.status(free) == "queued")
            assert deployment.status(stuck) == "running"
        reconcile_until(lambda: deployment.status(stuck) == "queued")
        assert [crashes(task) for task in (stuck, free)] == [1, 1]

    @on_databases
    def test_nor_does_an_entry_of_the_queue_that_it_has_locked(
        self, deployment: Deployment, other: Engine
    ) -> None:
        stuck, free = deployment.enqueue("work", "a"), deployment.enqueue("work", "b")
        start("frozen", "killed")
        with frozen(other, lock_entry(stuck)):
            reconcile_until(lambda: deployment.status(free) == "queued")
        reconcile_until(lambda: deployment.status(stuck) == "queued")

    @on_databases
    def test_what_a_killed_process_had_locked_is_recovered_once_the_server_notices(
        self, deployment: Deployment, other: Engine
    ) -> None:
        task = deployment.enqueue("work", "a")
        start("killed")
        with other.connect() as connection:
            connection.execute(lock_task(task))
            timer = threading.Timer(BUSY_WAITS[0], connection.invalidate)
            timer.start()
            Reconciler(RUNTIME, ax.CONF, "test").recover("killed", "was killed by SIGKILL")
            timer.join()
        assert deployment.status(task) == "queued"

    @on_databases
    def test_tasks_that_expire_and_failures_to_follow_are_left_out_while_they_are_locked(
        self, deployment: Deployment, other: Engine
    ) -> None:
        stuck, free = (ax.enqueue_sync("work", {"key": key}, expires=0.01) for key in "ab")
        with frozen(other, lock_task(stuck)):
            reconcile_until(lambda: deployment.status(free) == "canceled")
            assert deployment.status(stuck) == "queued"
        reconcile_until(lambda: deployment.status(stuck) == "canceled")
        followers = FollowUps(RUNTIME.engine, ax.Pool().registry)
        later = utc_now().replace(year=utc_now().year + 1)
        mine = select(FollowUp.id).where(FollowUp.agent_id == stuck.agent_id).with_for_update()
        with frozen(other, mine):
            followers.run_once(later)
            with reading(RUNTIME.engine) as connection:
                assert connection.execute(select(FollowUp.agent_id)).scalars().all() == [stuck.agent_id]


class TestWorkers:
    @on_databases
    def test_a_claimed_task_that_is_locked_is_given_back_and_the_others_start(
        self, deployment: Deployment, other: Engine
    ) -> None:
        stuck, free = deployment.enqueue("work", "a"), deployment.enqueue("work", "b")
        claim = RUNTIME.backend.claim(ax.CONF.queue_name, "w", limit=2, low_quota=2, lease_seconds=30)
        terms = StartTerms(utc_now(), "Started.", max_crashes=3)
        with frozen(other, lock_task(stuck)):
            started = record_store().start_fresh(claim.leases, terms)
            left = [lease for lease in claim.leases if lease not in {item.lease for item in started}]
            rest = record_store().admit(left, terms, suspect_running=False)
        assert [item.lease.agent_id for item in (*started, *rest.started)] == [free.agent_id]
        assert [(task.lease.agent_id, task.seconds) for task in rest.early] == [
            (stuck.agent_id, BUSY_SECONDS)
        ]
        assert not rest.ended

    @on_databases
    def test_endings_and_reports_are_written_while_one_of_their_tasks_is_locked(
        self, deployment: Deployment, other: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lock_limits, "LOCK_SECONDS", 1)
        stuck, free = deployment.enqueue("work", "a"), deployment.enqueue("work", "b")
        leases = start("one", "two")
        settled: list[Lease] = []
        writer = Writer(
            record_store(),
            result_ttl=60,
            acknowledge=None,
            settle=lambda written, refused: settled.extend(ending.lease for ending in (*written, *refused)),
            abandon=lambda _: None,
        )
        with frozen(other, lock_task(stuck)):
            writer.start()
            writer.report_progress(stuck.agent_id, leases[0].epoch, "halfway", None)
            for lease in leases:
                writer.end(Ending(lease, ax.Status.COMPLETE, "Done.", result="1"))
            deployment.wait_for_status(free, "complete")
            assert (settled, writer.backlog) == ([leases[1]], 1)
            assert not writer.flush(timeout=0)
        assert writer.flush(timeout=20) and writer.close(timeout=20)
        assert settled == leases[::-1]
        assert [line.message for line in deployment.detail(stuck).logs][-2:] == ["halfway", "Done."]
