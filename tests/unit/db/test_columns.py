"""Indexes that leave rows out."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, Table
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex

from agentexec.db.columns import PartialIndex


@pytest.mark.parametrize(
    ("dialect", "condition"),
    [(postgresql.dialect(), " WHERE b > 0"), (sqlite.dialect(), " WHERE b > 0"), (mysql.dialect(), "")],
    ids=["postgresql", "sqlite", "mysql"],
)
def test_a_partial_index_and_a_copy_of_it_leave_rows_out_where_the_database_can(
    dialect: Dialect, condition: str
) -> None:
    index = PartialIndex("ix", "a", "b", unique=True, where="b > 0")
    table = Table("t", MetaData(), Column("a", Integer), Column("b", Integer), index)
    [copied] = table.to_metadata(MetaData()).indexes
    for made in (index, copied):
        created = str(CreateIndex(made).compile(dialect=dialect))
        assert created == f"CREATE UNIQUE INDEX ix ON t (a, b){condition}"
