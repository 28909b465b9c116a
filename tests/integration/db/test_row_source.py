"""Rows that are sent as JSON come back as they were, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError

from agentexec.db.engine import open_engine
from agentexec.db.libpq import run_transaction
from agentexec.db.row_source import row_source

TYPES = (
    ("id", "uuid"),
    ("name", "varchar(5)"),
    ("at", "timestamptz"),
    ("data", "jsonb"),
    ("number", "float8"),
)
NOW = datetime.now(UTC)
SAME = {"id": UUID(int=1), "name": 'ä"\\', "at": NOW, "data": {"a": [1, None]}, "number": 1.5}
OTHER = {"id": UUID(int=2), "name": None, "at": None, "data": {"b": "{}"}, "number": 2.0}


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = open_engine(postgres_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    "rows", [[SAME], [SAME, SAME], [OTHER, SAME, OTHER], [SAME, {**SAME, "name": None}], [OTHER, OTHER]]
)
def test_rows_come_back(engine: Engine, rows: list[dict[str, object]]) -> None:
    source = row_source("given", rows, TYPES)
    found = run_transaction(engine, (source.sql, source.values))
    assert found == [tuple(row.values()) for row in rows]


@pytest.mark.parametrize("rows", [[{"name": "too long"}], [{"name": "too long"}, {"name": "short"}]])
def test_a_text_that_is_too_long_is_refused(engine: Engine, rows: list[dict[str, object]]) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS row_source_names (name varchar(5))"))
    source = row_source("given", rows, (("name", "varchar(5)"),))
    insert = f"WITH given AS ({source.sql}) INSERT INTO row_source_names SELECT name FROM given"
    with pytest.raises(DataError):
        run_transaction(engine, (insert, source.values))
