"""PostgreSQL at its limits while tasks run: it fails over to a standby, or has no connection left."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

import agentexec as ax
from agentexec.runtime import RUNTIME
from agentexec.schema.migrate import upgrade
from tests.deployment import Deployment, try_enqueue
from tests.servers import HOST, Postgres, ServerError
from tests.waiting import patient, wait_until

pytestmark = pytest.mark.thorough


class Standby(Postgres):
    """Streaming replica of a primary, which waits for it with each commit."""

    def __init__(self, primary: Postgres) -> None:
        self._primary = primary
        super().__init__()

    def promote(self) -> None:
        """Make it the primary, as a cluster manager does once the old one is gone."""
        self._execute("ALTER SYSTEM RESET synchronous_standby_names")
        self._execute("SELECT pg_promote()")

    def _prepare(self) -> None:
        super()._prepare()
        shutil.rmtree(self._data)
        source = f"host={HOST} port={self._primary.port} user=postgres application_name=standby"
        program = str(self._programs / "pg_basebackup")
        copy = self._spawn([program, "-D", str(self._data), "-d", source, "-R", "-c", "fast", "--no-sync"])
        if copy.wait(patient(60)) != 0:
            raise ServerError(f"pg_basebackup failed: {self._log_tail()}")

    def _command(self) -> Sequence[str]:
        return [*super()._command(), "--hot_standby=on"]


def sync_state(primary: Postgres) -> str | None:
    """Return how the standby takes part in commits."""
    with psycopg.connect(f"host={HOST} port={primary.port} user=postgres dbname=postgres") as db:
        row = db.execute("SELECT sync_state FROM pg_stat_replication").fetchone()
    return row[0] if row else None


@pytest.fixture
def pair() -> Iterator[tuple[Postgres, Standby]]:
    primary = Postgres()
    primary.start()
    standby = Standby(primary)
    try:
        standby.start()
        primary._execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        primary._execute("SELECT pg_reload_conf()")
        wait_until(lambda: sync_state(primary) == "sync")
        yield primary, standby
    finally:
        standby.close()
        primary.close()


def test_workers_and_producers_follow_a_failover(pair: tuple[Postgres, Standby], tmp_path: Path) -> None:
    primary, standby = pair
    hosts = f"host={HOST}:{primary.port}&host={HOST}:{standby.port}"
    url = f"postgresql+psycopg://postgres@/postgres?{hosts}&target_session_attrs=read-write"
    ax.configure(database_url=url)
    upgrade(ax.get_engine())
    deployment = Deployment(tmp_path, url)
    try:
        deployment.start()
        tasks = [deployment.enqueue("work", f"before-{number}", seconds=2) for number in range(8)]
        deployment.wait_for_start("before-0", "before-3")
        primary.kill()
        standby.promote()
        accepted = wait_until(lambda: try_enqueue(deployment), timeout=30)
        deployment.wait_for_ends([*tasks, accepted], timeout=60)
        # Not the number of their starts: those of the last moments before the failover are not replicated synchronously.
        assert deployment.endings([*tasks, accepted]) == [["complete"]] * 9
    finally:
        deployment.close()


def test_a_server_without_a_free_connection_is_waited_for(tmp_path: Path) -> None:
    server = Postgres(fsync=False, settings={"max_connections": "30", "superuser_reserved_connections": "0"})
    try:
        server.start()
        ax.configure(database_url=server.url)
        upgrade(ax.get_engine())
        deployment = Deployment(tmp_path, server.url, worker_concurrency=2)
        try:
            deployment.start()
            tasks = [deployment.enqueue("work", f"task-{number}", seconds=1) for number in range(6)]
            RUNTIME.engine.dispose()
            with all_connections_of(server) as take:
                deployment.wait_for(lambda: take() or "too many clients" in deployment.log)
                assert try_enqueue(deployment) is None
            deployment.wait_for_ends(tasks, timeout=60)
            assert deployment.endings(tasks) == [["complete"]] * 6
            assert set(deployment.ledger("end").values()) == {1}
        finally:
            deployment.close()
    finally:
        server.close()


@contextmanager
def all_connections_of(server: Postgres) -> Iterator[Callable[[], None]]:
    """Give a function that takes all connections, also those that others have; they are free again after the block."""
    taken: list[psycopg.Connection] = []

    def take_free() -> None:
        with suppress(psycopg.OperationalError):
            while True:
                taken.append(psycopg.connect(f"host={HOST} port={server.port} user=postgres dbname=postgres"))

    def take() -> None:
        take_free()
        taken[0].execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND NOT pid = ANY(%s)",
            [[connection.info.backend_pid for connection in taken]],
        )
        take_free()

    try:
        yield take
    finally:
        for connection in taken:
            connection.close()
