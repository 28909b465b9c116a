"""Statements that are sent together are one transaction, and a failure leaves nothing of it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from agentexec.db.engine import open_engine
from agentexec.db.libpq import run_transaction, run_two_transactions
from tests.waiting import wait_until


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = open_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE number (value integer PRIMARY KEY)"))
    yield engine
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE number"))
    engine.dispose()


def numbers(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT value FROM number ORDER BY value")).scalars())


def test_values_of_all_kinds_come_back(engine: Engine) -> None:
    row = {
        "n": 2**40,
        "t": "ä%s",
        "i": uuid.uuid4(),
        "none": None,
        "list": ["a", "b"],
        "at": datetime.now(UTC),
    }
    statement = (
        "SELECT %(n)s::bigint, %(t)s::text, %(i)s::uuid, %(none)s::text, %(list)s::text[], %(at)s::timestamptz, "
        "%(n)s::bigint %% 10"
    )
    for _ in range(3):
        assert run_transaction(engine, (statement, row)) == [(*row.values(), 2**40 % 10)]


def test_settings_last_for_the_transaction(engine: Engine) -> None:
    setting = ("SELECT set_config('enable_seqscan', 'off', true)", {})
    current = ("SELECT current_setting('enable_seqscan')", {})
    assert run_transaction(engine, setting, current) == [("off",)]
    assert run_transaction(engine, current) == [("on",)]


def test_all_statements_fail_together(engine: Engine) -> None:
    insert = ("INSERT INTO number VALUES (%(value)s)", {"value": 1})
    with pytest.raises(IntegrityError):
        run_transaction(engine, insert, insert)
    assert numbers(engine) == []
    run_transaction(engine, insert)
    assert numbers(engine) == [1]


def test_a_second_transaction_follows_whatever_becomes_of_the_first(engine: Engine) -> None:
    insert = "INSERT INTO number VALUES (%(value)s) RETURNING value"
    assert run_two_transactions(engine, [(insert, {"value": 1})], (insert, {"value": 2})) == ([(1,)], True)
    with pytest.raises(IntegrityError):
        run_two_transactions(engine, [(insert, {"value": 1})], (insert, {"value": 3}))
    assert numbers(engine) == [1, 2, 3]


@pytest.mark.parametrize("failure", ["SELECT 1 / 0", "SELECT pg_terminate_backend(pg_backend_pid())"])
def test_a_second_transaction_that_fails_leaves_the_first_as_it_is(engine: Engine, failure: str) -> None:
    insert = ("INSERT INTO number VALUES (%(value)s)", {"value": 1})
    assert run_two_transactions(engine, [insert], (failure, {}))[1] is False
    assert numbers(engine) == [1]
    assert run_transaction(engine, ("SELECT 1", {})) == [(1,)], "another connection is used"


def test_a_value_that_cannot_be_sent_is_an_error_of_the_database(engine: Engine) -> None:
    with pytest.raises(DBAPIError):
        run_transaction(engine, ("SELECT %(t)s::text", {"t": "a\0b"}))
    assert run_transaction(engine, ("SELECT 1", {})) == [(1,)]


def test_a_lost_connection_is_reported_and_replaced(engine: Engine) -> None:
    failures: list[BaseException] = []

    def sleep() -> None:
        try:
            run_transaction(engine, ("SELECT pg_sleep(60)", {}))
        except OperationalError as error:
            failures.append(error)

    sleeping = threading.Thread(target=sleep)
    sleeping.start()
    end = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND pid <> pg_backend_pid()"
    )
    with engine.connect() as connection:
        wait_until(lambda: connection.execute(end).first() is not None)
    sleeping.join()
    assert len(failures) == 1
    assert run_transaction(engine, ("SELECT 1", {})) == [(1,)]


def test_a_connection_without_prepared_statements_works_too(engine: Engine) -> None:
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.prepare_threshold = None
    run_transaction(engine, ("INSERT INTO number VALUES (%(value)s)", {"value": 1}))
    assert numbers(engine) == [1]
    with engine.connect() as connection:
        names = connection.execute(
            text("SELECT name FROM pg_prepared_statements WHERE name LIKE 'agentexec%'")
        )
        assert not names.all()


def test_statements_are_prepared_again_after_the_driver_has_dropped_them(engine: Engine) -> None:
    insert = "INSERT INTO number VALUES (%(value)s)"
    for value in range(3):
        run_transaction(engine, (insert, {"value": value}))
        with engine.connect() as connection:
            connection.exec_driver_sql("DEALLOCATE ALL")
    assert numbers(engine) == [0, 1, 2]


def test_much_data_is_sent_while_the_answers_are_read(engine: Engine) -> None:
    big = "x" * 5_000_000
    statement = ("SELECT %(big)s::text", {"big": big})
    assert run_transaction(engine, statement, statement) == [(big,)]


def test_no_other_connection_of_a_server_that_has_ended_them_is_used(engine: Engine) -> None:
    first, second = engine.connect(), engine.connect()
    first.close()
    second.close()
    end = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    other = open_engine(engine.url.render_as_string(hide_password=False))
    with other.connect() as connection:
        connection.execute(end)
    other.dispose()
    with pytest.raises(OperationalError):
        run_transaction(engine, ("SELECT 1", {}))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_connections_to_postgresql_have_a_name_and_go_to_any_of_its_hosts(postgres_url: str) -> None:
    port = make_url(postgres_url).port
    several = make_url(postgres_url).set(host=None, port=None)
    url = several.update_query_pairs(
        [("host", "127.0.0.1:1"), ("host", f"127.0.0.1:{port}"), ("target_session_attrs", "read-write")],
        append=True,
    )
    with open_engine(url).connect() as connection:
        assert connection.execute(text("SHOW application_name")).scalar() == "agentexec"
