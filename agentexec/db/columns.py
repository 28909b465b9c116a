"""Column types and conditions for all dialects."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Index,
    Integer,
    String,
    Text,
    Uuid,
    any_,
    bindparam,
    func,
    select,
    text,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC with microseconds, with its time zone in Python even if the database stores none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(_types_of("mysql").DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        # In place of `process_result_value`, which costs one more call for each value of each row.
        parse = self.impl_instance.result_processor(dialect, coltype)

        def read(value: Any) -> datetime | None:
            if value is None:
                return None
            moment: Any = value if parse is None else parse(value)
            utc: datetime = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
            return utc

        return read


def _types_of(dialect: str) -> Any:
    """Import the types of a dialect. On use, when it is loaded anyway: the other dialects would slow every command down."""
    return importlib.import_module(f"sqlalchemy.dialects.{dialect}")


class LongText(TypeDecorator[str]):
    """Text of any length: MySQL's plain TEXT ends at 64 KB."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        is_mysql = dialect.name in ("mysql", "mariadb")
        return dialect.type_descriptor(_types_of("mysql").LONGTEXT() if is_mysql else Text())


class JsonObject(TypeDecorator[dict[str, Any]]):
    """A JSON object. Anything else in the column reads as None: one such row must not hide a page of other rows."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        kind = _types_of("postgresql").JSONB if dialect.name == "postgresql" else JSON
        return dialect.type_descriptor(kind(none_as_null=True))

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        read = super().result_processor(dialect, coltype)

        def process(value: Any) -> dict[str, Any] | None:
            try:
                found = value if read is None else read(value)
            except (ValueError, RecursionError):
                return None
            return found if isinstance(found, dict) else None

        return process


class ExactText(TypeDecorator[str]):
    """Text of limited length that is compared exactly: MySQL ignores case by default."""

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name not in ("mysql", "mariadb"):
            return dialect.type_descriptor(String(self.length))
        text_type = _types_of("mysql").VARCHAR(self.length, charset="utf8mb4", collation="utf8mb4_bin")
        return dialect.type_descriptor(text_type)


BigId = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit key. SQLite increments only an INTEGER key by itself."""


def of_rows_with(column: str) -> dict[str, Any]:
    """Return options of an index that leave out the rows without a value, where the database can."""
    condition = text(f"{column} IS NOT NULL")
    return {"postgresql_where": condition, "sqlite_where": condition}


class PartialIndex(Index):
    """Index of a table, of the rows that meet a condition, where the database can leave rows out."""

    def __init__(self, name: str, *columns: str, where: str, unique: bool = False) -> None:
        super().__init__(name, *columns, unique=unique)
        self._condition = where

    @functools.cached_property
    def dialect_options(self) -> Any:
        # Set when they are read, to create the index: as arguments of an Index they would load the modules of both
        # dialects, and those of PostgreSQL take longer than the query of a command.
        options = super().dialect_options
        for dialect in ("postgresql", "sqlite"):
            options[dialect]["where"] = text(self._condition)
        return options


class IdList(TypeDecorator[Sequence[UUID]]):
    """Ids as one JSON parameter, in the form in which SQLite stores them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[UUID] | None, dialect: Dialect) -> str:
        # Not `UUID.hex`, nor a generator: both run Python code for each id.
        return '["' + '","'.join([f"{agent_id.int:032x}" for agent_id in value]) + '"]' if value else "[]"


class TextList(TypeDecorator[Sequence[str]]):
    """Texts as one JSON parameter, for SQLite."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> str:
        return json.dumps(list(value or ()))


def text_in(column: Any, name: str, dialect: str) -> ColumnElement[bool]:
    """Return the condition that a text column is one of the parameter `name`; see `id_in`."""
    if dialect == "sqlite":
        listed = func.json_each(bindparam(name, type_=TextList())).table_valued("value")
        return column.in_(select(listed.c.value))
    if dialect == "postgresql":
        return column == any_(bindparam(name, type_=ARRAY(Text())))
    return column.in_(bindparam(name, expanding=True))


def id_in(column: Any, dialect: str) -> ColumnElement[bool]:
    """Return the condition that a UUID column is one of the parameter `ids`.

    Where the database allows it, `ids` is one parameter for any number of ids. The statement then keeps its text, and
    neither SQLAlchemy nor the server prepares it again for each number.
    """
    if dialect == "postgresql":
        return column == any_(bindparam("ids", type_=ARRAY(Uuid())))
    if dialect == "sqlite":
        listed = func.json_each(bindparam("ids", type_=IdList())).table_valued("value")
        return column.in_(select(listed.c.value))
    return column.in_(bindparam("ids", expanding=True, type_=Uuid()))
