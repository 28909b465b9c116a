"""Connections to MariaDB go back to the pool without a round trip, and never with an open transaction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from agentexec.db.engine import open_engine
from agentexec.db.transactions import looking_up, writing


@pytest.fixture
def engine(mariadb_url: str) -> Iterator[Engine]:
    engine = open_engine(mariadb_url)
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE number (value INTEGER)"))
    yield engine
    engine.dispose()


def sent(engine: Engine) -> dict[str, int]:
    """Return the statements of the pool's only connection that ended a transaction."""
    with looking_up(engine) as connection:
        assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]
        query = "SHOW SESSION STATUS WHERE variable_name IN ('Com_commit', 'Com_rollback')"
        return {row[0]: int(row[1]) for row in connection.exec_driver_sql(query)}


def test_a_transaction_ends_with_one_statement(engine: Engine) -> None:
    before = sent(engine)
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO number VALUES (1)"))
    after = sent(engine)
    # `sent` reads too, which takes no statement to end.
    assert after["Com_commit"] - before["Com_commit"] == 1
    assert after["Com_rollback"] - before["Com_rollback"] <= 1


def test_what_is_left_open_is_rolled_back(engine: Engine) -> None:
    raw = engine.raw_connection()
    raw.cursor().execute("INSERT INTO number VALUES (1)")
    raw.close()
    with pytest.raises(RuntimeError), writing(engine) as connection:
        connection.execute(text("INSERT INTO number VALUES (2)"))
        raise RuntimeError
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO number VALUES (3)"))
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO number VALUES (4)"))
    with looking_up(engine) as connection:
        assert connection.execute(text("SELECT value FROM number")).scalars().all() == [4]
