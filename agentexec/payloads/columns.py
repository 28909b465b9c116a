"""The column type of values that are encrypted where there are keys, and fetched if they are large."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Dialect, type_coerce

from agentexec.db.columns import LongText
from agentexec.payloads.references import REFERENCE
from agentexec.payloads.sealing import seal, unseal


class Payload(LongText):
    """Text of any length in its stored form. It cannot be compared in SQL: each encryption of a text is another one."""

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return what is written."""
        return None if value is None else seal(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Return what was read."""
        return None if value is None else unseal(value)


def stored(column: Any) -> ColumnElement[Any]:
    """Return the stored form of a column, for readers that must not fail with all rows because of one."""
    return type_coerce(column, LongText()).label(column.key)


def is_inline(column: Any) -> ColumnElement[bool]:
    """Return the condition that a value is in the database itself, not in the payload store."""
    return type_coerce(column, LongText()).not_like(f"{REFERENCE}%")
