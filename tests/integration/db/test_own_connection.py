"""Statements on a connection beside PostgreSQL's pool."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from agentexec.db import own_connection
from agentexec.db.engine import open_engine, prepare_engine
from agentexec.db.errors import translating_db_errors
from agentexec.db.libpq import run_transaction
from agentexec.db.own_connection import OwnConnection
from agentexec.db.pooler import Pooling
from agentexec.errors import UnavailableError
from tests.servers import Postgres
from tests.waiting import wait_until

SESSION = "SELECT pg_backend_pid(), current_setting('enable_seqscan'), current_setting('lock_timeout')"


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


def rows(
    own: OwnConnection, statement: str, values: dict[str, Any] | None = None
) -> list[tuple[Any, ...]] | None:
    """Run one statement, and return its rows; None if the connection is in use."""
    with translating_db_errors(own._engine):
        found = own.run([(statement, values or {})])
    return None if found is None else found[0]


def end_session(engine: Engine, pid: int) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    gone = text("SELECT COUNT(*) = 0 FROM pg_stat_activity WHERE pid = :pid")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        wait_until(lambda: connection.execute(gone, {"pid": pid}).scalar())


def test_its_session_is_set_up_and_kept_beside_the_pool(engine: Engine, own: OwnConnection) -> None:
    first, second = rows(own, SESSION), rows(own, SESSION)
    assert first == second
    assert first is not None
    assert first[0][1:] == ("off", "10s")
    with engine.connect() as connection:
        assert connection.execute(text(SESSION)).one()[1:] == ("on", "0")
        assert connection.execute(text(SESSION)).one()[0] != first[0][0]


def test_statements_are_a_transaction_and_settings_end_with_it(own: OwnConnection) -> None:
    local = ("SELECT set_config('enable_sort', 'off', true)", {})
    setting = ("SELECT current_setting('enable_sort')", {})
    assert own.run([local, setting]) == ([("off",)], False)
    assert own.run([setting], local) == ([("on",)], True)
    assert own.run([setting]) == ([("on",)], False)


def test_a_row_that_is_refused_leaves_the_connection_as_it_was(own: OwnConnection) -> None:
    insert = "INSERT INTO pair VALUES (%(id)s, 0) RETURNING id"
    assert rows(own, insert, {"id": 3}) == [(3,)]
    before = rows(own, SESSION)
    with pytest.raises(IntegrityError):
        rows(own, insert, {"id": 1})
    assert rows(own, SESSION) == before
    assert rows(own, insert, {"id": 4}) == [(4,)]


def test_a_statement_whose_plan_has_changed_works_again(engine: Engine, own: OwnConnection) -> None:
    assert rows(own, "SELECT * FROM pair WHERE id = 1") == [(1, 0)]
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE pair ADD COLUMN more INTEGER"))
    with pytest.raises(DBAPIError):
        rows(own, "SELECT * FROM pair WHERE id = 1")
    assert rows(own, "SELECT * FROM pair WHERE id = 1") == [(1, 0, None)]


def test_a_forked_process_has_a_connection_of_its_own(own: OwnConnection) -> None:
    before = rows(own, SESSION)
    child = os.fork()
    if child == 0:
        own.close()
        os._exit(0 if rows(own, SESSION) != before else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert rows(own, SESSION) == before


def test_a_lock_that_others_hold_is_waited_for_not_forever(
    engine: Engine, own: OwnConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = own_connection._SESSION.replace("10s", "50ms")
    monkeypatch.setattr(own_connection, "_SESSION", session)
    with engine.begin() as holder:
        holder.execute(text("UPDATE pair SET value = 7 WHERE id = 1"))
        with pytest.raises(UnavailableError) as away:
            rows(own, "UPDATE pair SET value = 8 WHERE id = 1 RETURNING id")
    assert away.value.contended
    assert rows(own, "UPDATE pair SET value = 9 WHERE id = 1 RETURNING value") == [(9,)]


def test_a_session_that_ended_between_two_statements_is_replaced(
    engine: Engine, own: OwnConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_connection, "LOOK_AFTER", 0.0)
    [before] = rows(own, SESSION) or [()]
    end_session(engine, before[0])
    [after] = rows(own, SESSION) or [()]
    assert (after[0] != before[0], after[1:]) == (True, before[1:])


def test_a_session_that_ends_in_a_statement_is_an_outage_and_then_replaced(
    engine: Engine, own: OwnConnection
) -> None:
    with pytest.raises(UnavailableError):
        rows(own, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert rows(own, "SELECT 1") == [(1,)]


def test_a_thread_that_finds_it_in_use_does_not_wait(engine: Engine, own: OwnConnection) -> None:
    rows(own, "SELECT 1")
    with engine.begin() as holder:
        holder.execute(text("SELECT pg_advisory_lock(4711)"))
        waiting = threading.Thread(target=rows, args=(own, "SELECT pg_advisory_lock(4711)"))
        waiting.start()
        wait_until(own._lock.locked)
        assert rows(own, "SELECT 1") is None
        holder.execute(text("SELECT pg_advisory_unlock(4711)"))
    waiting.join()
    assert rows(own, "SELECT 1") == [(1,)]


def test_a_pool_of_a_single_connection_is_enough(engine: Engine) -> None:
    small = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=1)
    own = OwnConnection(prepare_engine(small))
    with small.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
        with pytest.raises(UnavailableError):
            rows(own, "SELECT 1")
    assert rows(own, "SELECT 1") == [(1,)]
    with small.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
        assert rows(own, "SELECT 2") == [(2,)]
    own.close()
    small.dispose()


def test_there_is_none_through_a_pooler_in_transaction_mode(
    engine: Engine, own: OwnConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_connection, "pooling_of", lambda _engine: Pooling.TRANSACTION)
    assert rows(own, "SELECT 1") is None
    assert rows(own, "SELECT 1") is None
    assert engine.pool.status().endswith("Current Checked out connections: 0")


def test_it_may_begin_as_a_connection_of_the_pool_with_prepared_statements(engine: Engine) -> None:
    small = prepare_engine(create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=1))
    own = OwnConnection(small)
    for number in range(3):
        run_transaction(small, (f"SELECT {number}", {}))
    assert rows(own, "SELECT 7") == [(7,)]
    own.close()
    small.dispose()
