"""Statements that the driver of SQLite runs without SQLAlchemy's work for each call."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import CursorResult, Engine, bindparam, event, exc, insert, select, text, update

from agentexec.activity.changes.new_tasks import NewTask, activity_rows
from agentexec.activity.models import Activity
from agentexec.db.engine import open_engine
from agentexec.db.transactions import reading, writing
from agentexec.task import Priority, Status

TABLE: Any = Activity.__table__
NOW = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def engine(sqlite_tables: str) -> Any:
    engine = open_engine(sqlite_tables)
    yield engine
    engine.dispose()


def row(number: int) -> dict[str, Any]:
    task = NewTask(
        UUID(int=number),
        "work",
        '{"n": 1}',
        "q",
        Priority.HIGH,
        NOW,
        {"team": "ä"},
        f"key {number}",
        "Queued.",
    )
    return activity_rows([task], NOW)[0]


def test_every_value_is_written_and_read_as_sqlalchemy_does_it(engine: Engine) -> None:
    add, everything = insert(TABLE), select(TABLE).order_by(TABLE.c.agent_id)
    with writing(engine) as connection:
        results = [connection.execute(add, row(number)) for number in range(3)]
        connection.execute(add, [row(number) for number in range(3, 6)])
    assert [isinstance(result, CursorResult) for result in results] == [True, False, False]
    with engine.connect() as connection:
        expected = connection.execute(everything).mappings().all()
    for _ in range(3):
        with reading(engine) as connection:
            found = connection.execute(everything)
            assert found.mappings().all() == expected
    assert not isinstance(found, CursorResult)
    alike = [{**row(0), **found, "agent_id": None, "idempotency_key": None} for found in expected]
    assert len(alike) == 6
    assert all(found == alike[0] for found in alike)


def test_values_within_a_statement_and_row_counts_are_kept(engine: Engine) -> None:
    end = (
        update(TABLE)
        .where(TABLE.c.status == Status.QUEUED)
        .values(status=bindparam("new", type_=TABLE.c.status.type))
    )
    count = text("SELECT count(*) AS n FROM agentexec_activity WHERE status = :status")
    with writing(engine) as connection:
        connection.execute(insert(TABLE), [row(1), row(2)])
        assert [connection.execute(end, {"new": Status.QUEUED}).rowcount for _ in range(3)] == [2, 2, 2]
        assert connection.execute(end, {"new": Status.ERROR}).rowcount == 2
        assert [connection.execute(count, {"status": "ERROR"}).scalar_one() for _ in range(3)] == [2, 2, 2]


def test_a_refused_row_raises_what_sqlalchemy_raises_without_its_values(engine: Engine) -> None:
    add = insert(TABLE)
    for number in range(2):
        with writing(engine) as connection:
            connection.execute(add, row(number))
    with pytest.raises(exc.IntegrityError) as raised, writing(engine) as connection:
        connection.execute(add, row(1))
    assert "key 1" not in str(raised.value)
    with reading(engine) as connection:
        assert len(connection.execute(select(TABLE.c.agent_id)).all()) == 2


def test_whoever_listens_to_an_engine_sees_every_statement(engine: Engine) -> None:
    ping, seen = text("SELECT 1"), []
    with reading(engine) as connection:
        for _ in range(3):
            connection.execute(ping)
    event.listen(engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
    with reading(engine) as connection:
        for _ in range(3):
            connection.execute(ping)
    assert seen == ["SELECT 1"] * 3
