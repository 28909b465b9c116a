"""Statements on a connection beside PostgreSQL's pool."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError

from agentexec.db import own_connection
from agentexec.db.engine import open_engine, prepare_engine
from agentexec.db.own_connection import OwnConnection
from agentexec.db.pooler import Pooling
from agentexec.errors import UnavailableError
from tests.servers import Postgres
from tests.waiting import wait_until

SESSION = "SELECT pg_backend_pid(), current_setting('enable_seqscan'), current_setting('lock_timeout')"

COMMITS = """
CREATE TABLE commits (id SERIAL PRIMARY KEY, setting TEXT);
CREATE FUNCTION note_commit() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO commits (setting) VALUES (current_setting('synchronous_commit')); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER noting AFTER UPDATE ON pair DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION note_commit();
"""
"""A trigger that notes the setting with which each update is committed."""


@pytest.fixture
def engine(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = open_engine(postgres.create_database(f"own_{abs(hash(request.node.name)):x}"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE pair (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)"))
        connection.execute(text("INSERT INTO pair VALUES (1, 0), (2, 0)"))
    yield engine
    engine.dispose()


@pytest.fixture
def own(engine: Engine) -> Iterator[OwnConnection]:
    own = OwnConnection(engine)
    yield own
    own.close()


def end_session(engine: Engine, pid: int) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    gone = text("SELECT COUNT(*) = 0 FROM pg_stat_activity WHERE pid = :pid")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        wait_until(lambda: connection.execute(gone, {"pid": pid}).scalar())


def test_its_session_is_set_up_and_kept_beside_the_pool(engine: Engine, own: OwnConnection) -> None:
    first, second = own.run(SESSION, {}), own.run(SESSION, {})
    assert first == second
    assert first is not None
    assert first[0][1:] == ("off", "10s")
    with engine.connect() as connection:
        assert connection.execute(text(SESSION)).one()[1:] == ("on", "0")
        assert connection.execute(text(SESSION)).one()[0] != first[0][0]


def test_each_statement_is_committed_and_a_relaxed_one_changes_no_later_one(
    engine: Engine, own: OwnConnection
) -> None:
    with engine.begin() as connection:
        connection.execute(text(COMMITS))
    own.run("SELECT set_config('synchronous_commit', 'on', false)", {})
    update = "UPDATE pair SET value = value + 1 WHERE id = %(id)s RETURNING value"
    assert [row[0] for row in own.run(update, {"id": 1}, relaxed=True) or ()] == [1]
    assert own.run(update, {"id": 1}) == [(2,)]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT setting FROM commits ORDER BY id")).scalars().all() == [
            "off",
            "on",
        ]


def test_a_statement_that_is_refused_leaves_the_connection_as_it_was(own: OwnConnection) -> None:
    before = own.run(SESSION, {})
    with pytest.raises(IntegrityError):
        own.run("INSERT INTO pair VALUES (1, 0) RETURNING id", {})
    assert own.run(SESSION, {}) == before


def test_a_lock_that_others_hold_is_waited_for_not_forever(
    engine: Engine, own: OwnConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = own_connection._SESSION.replace("10s", "50ms")
    monkeypatch.setattr(own_connection, "_SESSION", session)
    with engine.begin() as holder:
        holder.execute(text("UPDATE pair SET value = 7 WHERE id = 1"))
        with pytest.raises(UnavailableError) as away:
            own.run("UPDATE pair SET value = 8 WHERE id = 1 RETURNING id", {})
    assert away.value.contended
    assert own.run("UPDATE pair SET value = 9 WHERE id = 1 RETURNING value", {}) == [(9,)]


def test_a_session_that_ended_between_two_statements_is_replaced(
    engine: Engine, own: OwnConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_connection, "LOOK_AFTER", 0.0)
    [before] = own.run(SESSION, {}) or [()]
    end_session(engine, before[0])
    [after] = own.run(SESSION, {}) or [()]
    assert (after[0] != before[0], after[1:]) == (True, before[1:])


def test_a_session_that_ends_in_a_statement_is_an_outage_and_then_replaced(
    engine: Engine, own: OwnConnection
) -> None:
    with pytest.raises(UnavailableError):
        own.run("SELECT pg_terminate_backend(pg_backend_pid())", {})
    assert own.run("SELECT 1", {}) == [(1,)]


def test_a_thread_that_finds_it_in_use_does_not_wait(engine: Engine, own: OwnConnection) -> None:
    own.run("SELECT 1", {})
    with engine.begin() as holder:
        holder.execute(text("SELECT pg_advisory_lock(4711)"))
        waiting = threading.Thread(target=own.run, args=("SELECT pg_advisory_lock(4711)", {}))
        waiting.start()
        wait_until(own._lock.locked)
        assert own.run("SELECT 1", {}) is None
        holder.execute(text("SELECT pg_advisory_unlock(4711)"))
    waiting.join()
    assert own.run("SELECT 1", {}) == [(1,)]


def test_a_pool_of_a_single_connection_is_enough(engine: Engine) -> None:
    small = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=1)
    own = OwnConnection(prepare_engine(small))
    with small.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
        with pytest.raises(UnavailableError):
            own.run("SELECT 1", {})
    assert own.run("SELECT 1", {}) == [(1,)]
    with small.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
        assert own.run("SELECT 2", {}) == [(2,)]
    own.close()
    small.dispose()


def test_there_is_none_through_a_pooler_in_transaction_mode(
    engine: Engine, own: OwnConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_connection, "pooling_of", lambda _engine: Pooling.TRANSACTION)
    assert own.run("SELECT 1", {}) is None
    assert own.run("SELECT 1", {}) is None
    assert engine.pool.status().endswith("Current Checked out connections: 0")
