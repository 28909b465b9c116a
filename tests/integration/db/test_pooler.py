"""Connections through a PgBouncer in each of its modes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, NullPool, create_engine, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine

import agentexec as ax
from agentexec.db.engine import open_engine, prepare_engine
from agentexec.db.pooler import Pooling, pooling_of
from agentexec.db.transactions import reading, writing
from agentexec.schema import migrate
from agentexec.state.sql_backend.polled_wakeup import make_wakeup
from agentexec.state.sql_backend.wakeup import MAX_POLL_PAUSE, PostgresWakeup
from tests.servers import PgBouncer, Postgres

LONG = 30.0


@contextmanager
def opened(engine: Engine) -> Iterator[Engine]:
    try:
        yield engine
    finally:
        engine.dispose()


def threshold(engine: Engine) -> int | None:
    """Connect, and return the number of uses after which the connection prepares a statement."""
    with engine.connect() as connection:
        return connection.connection.driver_connection.prepare_threshold


def use_often(engine: Engine) -> None:
    """Run one statement more often than psycopg needs to prepare it, in transactions of changing sessions."""
    for _ in range(20):
        with engine.begin() as left, engine.begin() as right:
            for connection in (left, right):
                assert connection.execute(text("SELECT :number + 1"), {"number": 1}).scalar() == 2


def test_a_pooler_in_transaction_mode_is_found_and_gets_no_prepared_statements(pgbouncer: PgBouncer) -> None:
    with opened(open_engine(pgbouncer.url)) as engine:
        use_often(engine)
        assert pooling_of(engine) is Pooling.TRANSACTION
        assert threshold(engine) is None


def test_a_server_without_a_pooler_keeps_them(postgres: Postgres) -> None:
    with opened(open_engine(postgres.url)) as engine:
        assert threshold(engine) == 5
        assert pooling_of(engine) is Pooling.NONE


def test_a_pooler_in_session_mode_keeps_them_and_listening(postgres: Postgres) -> None:
    with PgBouncer(postgres, pool_mode="session") as pooler, opened(open_engine(pooler.url)) as engine:
        assert threshold(engine) == 5
        assert pooling_of(engine) is Pooling.SESSION
        wakeup = make_wakeup(engine)
        wakeup.mark()
        assert isinstance(wakeup, PostgresWakeup)
        assert not wakeup._polls
        wakeup.close()


def test_a_pooler_that_is_too_busy_to_tell_counts_as_one_in_transaction_mode(postgres: Postgres) -> None:
    with (
        PgBouncer(postgres, pool_mode="session", pool_size=1) as pooler,
        opened(open_engine(pooler.url)) as engine,
    ):
        assert threshold(engine) is None
        assert pooling_of(engine) is Pooling.TRANSACTION


def test_a_pooler_that_restarts_is_waited_for(postgres: Postgres) -> None:
    with PgBouncer(postgres) as pooler, opened(open_engine(pooler.url)) as engine:
        use_often(engine)
        pooler.stop()
        with pytest.raises(ax.UnavailableError), reading(engine) as connection:
            connection.execute(text("SELECT 1"))
        pooler.start()
        use_often(engine)


@pytest.mark.parametrize("options", [{}, {"pool_size": 1, "max_overflow": 0}, {"poolclass": NullPool}])
def test_an_engine_of_the_application_is_adapted_with_the_connections_it_already_has(
    pgbouncer: PgBouncer, options: dict[str, object]
) -> None:
    with opened(create_engine(pgbouncer.url, **options)) as engine:
        assert threshold(engine) == 5
        assert prepare_engine(prepare_engine(engine)) is engine
        assert threshold(engine) is None
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            assert connection.connection.driver_connection.prepare_threshold is None


def test_an_async_engine_of_the_application_is_adapted_like_its_twin(
    pgbouncer: PgBouncer, postgres: Postgres
) -> None:
    async def thresholds(url: str) -> tuple[int | None, int | None]:
        engine = create_async_engine(url)
        with opened(prepare_engine(engine)) as twin:
            for _ in range(20):
                async with engine.begin() as left, engine.begin() as right:
                    for connection in (left, right):
                        await connection.execute(text("SELECT :number + 1"), {"number": 1})
            async with engine.connect() as connection:
                raw = await connection.get_raw_connection()
                found = raw.driver_connection.prepare_threshold
            await engine.dispose()
            return found, threshold(twin)

    assert asyncio.run(thresholds(pgbouncer.url)) == (None, None)
    assert asyncio.run(thresholds(f"{pgbouncer.url}?pgbouncer=true")) == (None, None)
    assert asyncio.run(thresholds(f"{postgres.url}?prepare_threshold=7")) == (7, 7)
    assert asyncio.run(thresholds(postgres.url)) == (5, 5)


def test_the_application_decides_about_prepared_statements(pgbouncer: PgBouncer) -> None:
    with opened(open_engine(f"{pgbouncer.url}?prepare_threshold=5")) as engine:
        assert threshold(engine) == 5
        assert pooling_of(engine) is Pooling.TRANSACTION
    with opened(
        prepare_engine(create_engine(pgbouncer.url, connect_args={"prepare_threshold": 5}))
    ) as engine:
        assert threshold(engine) == 5


@pytest.mark.parametrize(("stated", "pooling"), [("true", Pooling.TRANSACTION), ("false", Pooling.NONE)])
def test_the_url_may_state_the_mode(pgbouncer: PgBouncer, stated: str, pooling: Pooling) -> None:
    with opened(open_engine(f"{pgbouncer.url}?pgbouncer={stated}")) as engine:
        assert threshold(engine) == (None if stated == "true" else 5)
        assert pooling_of(engine) is pooling


def test_a_change_elsewhere_ends_a_wait_by_polling(pgbouncer: PgBouncer) -> None:
    assert MAX_POLL_PAUSE < 0.2
    with opened(open_engine(pgbouncer.url)) as engine:
        wakeup = make_wakeup(engine)
        wakeup.wait(wakeup.mark(), LONG)
        started = time.monotonic()
        for _ in range(5):
            wakeup.wait(wakeup.mark(), LONG)
        assert time.monotonic() - started < LONG, "a wait is at most a pause"
        wakeup.close()


def test_a_notification_through_the_pooler_wakes_those_who_listen_without_it(
    pgbouncer: PgBouncer, postgres: Postgres
) -> None:
    with opened(open_engine(postgres.url)) as direct, opened(open_engine(pgbouncer.url)) as pooled:
        listener, sender = make_wakeup(direct), make_wakeup(pooled)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(listener.wait, listener.mark(), LONG)
            sender.announce()
            waiting.result(LONG / 2)
        listener.close()


def test_a_pooler_in_statement_mode_is_refused(postgres: Postgres) -> None:
    with (
        PgBouncer(postgres, pool_mode="statement") as pooler,
        opened(open_engine(pooler.url)) as engine,
        pytest.raises(
            ax.UsageError, match="statement pooling mode there, which allows no transactions; set pool_mode"
        ),
        reading(engine),
    ):
        pass


def test_a_startup_parameter_that_the_pooler_refuses_is_named(pgbouncer: PgBouncer) -> None:
    with (
        opened(open_engine(f"{pgbouncer.url}?options=-c%20statement_timeout%3D1000")) as engine,
        pytest.raises(ax.UsageError, match=r"unsupported startup parameter: options.*ALTER ROLE"),
        reading(engine),
    ):
        pass


@pytest.mark.thorough
def test_processes_that_migrate_at_once_leave_no_lock_and_no_setting_in_a_session(
    pgbouncer: PgBouncer, postgres_url: str
) -> None:
    url = pgbouncer.url_of(postgres_url)
    engines = [open_engine(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate.upgrade, engines))
    ax.Base.metadata.create_all(engines[0])
    assert "agentexec_activity" in inspect(engines[0]).get_table_names()
    with opened(open_engine(postgres_url)) as direct, direct.connect() as connection:
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert connection.execute(text(locks)).scalar() == 0
    limits = ("lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
    for engine in engines:
        for _ in range(4):
            with writing(engine, relaxed=True) as connection:
                limited = [connection.execute(text(f"SHOW {name}")).scalar() for name in limits]
                assert limited == ["10s", "10s", "5min"]
            with engine.connect() as connection:
                assert connection.execute(text("SHOW enable_seqscan")).scalar() == "on"
                assert [connection.execute(text(f"SHOW {name}")).scalar() for name in limits] == ["0"] * 3
        engine.dispose()
