"""Column types and conditions that all dialects share."""

from __future__ import annotations

import importlib
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
    Integer,
    String,
    Text,
    Uuid,
    any_,
    bindparam,
    func,
    select,
)
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC with microseconds; always aware in Python, also on databases that keep no time zone."""

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

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _types_of(dialect: str) -> Any:
    """The types of a dialect. Imported on use, when it is loaded anyway: the others would slow every command down."""
    return importlib.import_module(f"sqlalchemy.dialects.{dialect}")


class LongText(TypeDecorator[str]):
    """Text of any length: MySQL's plain TEXT ends at 64 KB."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        mine = dialect.name in ("mysql", "mariadb")
        return dialect.type_descriptor(_types_of("mysql").LONGTEXT() if mine else Text())


class JsonObject(TypeDecorator[dict[str, Any]]):
    """A JSON object. What stands there and is none reads as None: one such row must not hide a whole page of others."""

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
    """Text of up to a number of characters that is compared exactly: MySQL by itself does not regard case."""

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name not in ("mysql", "mariadb"):
            return dialect.type_descriptor(String(self.length))
        mine = _types_of("mysql").VARCHAR(self.length, charset="utf8mb4", collation="utf8mb4_bin")
        return dialect.type_descriptor(mine)


BigId = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit key; SQLite only counts up an INTEGER key by itself."""


class IdList(TypeDecorator[Sequence[UUID]]):
    """Ids as one JSON parameter, in the form that SQLite keeps them in."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[UUID] | None, dialect: Dialect) -> str:
        return '["' + '","'.join(one.hex for one in value) + '"]' if value else "[]"


def id_in(column: Any, dialect: str) -> ColumnElement[bool]:
    """The condition that a UUID column is one of the parameter `ids`.

    With one parameter for any number of ids, where the database can, a statement keeps its text: neither SQLAlchemy
    nor the server prepares it anew for each number.
    """
    if dialect == "postgresql":
        return column == any_(bindparam("ids", type_=ARRAY(Uuid())))
    if dialect == "sqlite":
        each = func.json_each(bindparam("ids", type_=IdList())).table_valued("value")
        return column.in_(select(each.c.value))
    return column.in_(bindparam("ids", expanding=True, type_=Uuid()))
