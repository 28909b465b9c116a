"""Encryption of what is stored already with the first key, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Engine,
    MetaData,
    and_,
    bindparam,
    literal,
    select,
    tuple_,
    type_coerce,
    update,
)

from agentexec.db.columns import LongText
from agentexec.db.transactions import reading, writing
from agentexec.payloads.columns import Payload, is_inline
from agentexec.payloads.offloading import reencrypt
from agentexec.payloads.sealing import prefix_of, seal, unseal

BATCH = 100
"""Values of a transaction: each may have a megabyte."""


class Progress(NamedTuple):
    """Values of one column that a batch has encrypted, in the database or in the payload store."""

    column: str
    encrypted: int


def encrypted_columns(metadata: MetaData) -> list[Column[Any]]:
    """Return every column whose values are encrypted."""
    return [
        column
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, Payload)
    ]


def rotate(engine: Engine, metadata: MetaData, name: str) -> Iterator[Progress]:
    """Encrypt every value with the first key, whose fingerprint is `name`, and yield what each batch did.

    A value that somebody changes meanwhile is left to them: they encrypt it with the first key too.
    Raises EncryptionKeyError for a value whose key is missing, UnavailableError.
    """
    for column in encrypted_columns(metadata):
        yield from _rotate_column(engine, column, name)
        yield from _rotate_payloads(engine, column, name)


def _rotate_column(engine: Engine, column: Column[Any], name: str) -> Iterator[Progress]:
    table = column.table
    key = list(table.primary_key)
    raw = type_coerce(column, LongText())
    query = (
        select(*key, raw.label("stored"))
        .where(column.is_not(None), raw.not_like(f"{prefix_of(name)}%"), is_inline(column))
        .order_by(*key)
        .limit(BATCH)
    )
    # Compare and swap: the value is replaced only if it is still the one that was read.
    swap = (
        update(table)
        .where(*(part == bindparam(f"key_{part.name}", type_=part.type) for part in key))
        .where(raw == bindparam("before", type_=LongText()))
        .values({column: bindparam("after", type_=LongText())})
    )
    after: Any = None
    while True:
        page = query if after is None else query.where(_follows(key, after))
        with reading(engine) as connection:
            rows = connection.execute(page).all()
        if not rows:
            return
        changes = [
            {
                **{f"key_{part.name}": value for part, value in zip(key, row, strict=False)},
                "before": row.stored,
                "after": seal(unseal(row.stored)),
            }
            for row in rows
        ]
        with writing(engine) as connection:
            encrypted = sum(connection.execute(swap, change).rowcount for change in changes)
        yield Progress(f"{table.name}.{column.name}", encrypted)
        after = rows[-1]


def _rotate_payloads(engine: Engine, column: Column[Any], name: str) -> Iterator[Progress]:
    """Encrypt the values in the payload store that a column refers to; their rows stay as they are."""
    key, after = list(column.table.primary_key), None
    query = (
        select(*key, type_coerce(column, LongText()).label("stored"))
        .where(column.is_not(None), ~is_inline(column))
        .order_by(*key)
        .limit(BATCH)
    )
    while True:
        with reading(engine) as connection:
            rows = connection.execute(query if after is None else query.where(_follows(key, after))).all()
        if not rows:
            return
        yield Progress(f"{column.table.name}.{column.name}", sum(reencrypt(row.stored, name) for row in rows))
        after = rows[-1]


def _follows(key: list[Column[Any]], row: Any) -> Any:
    """Return the condition that a row comes after another one in the order of their keys."""
    values = [literal(value, part.type) for part, value in zip(key, row, strict=False)]
    # The first part alone lets MySQL use the index, which it does not for a tuple.
    return and_(key[0] >= values[0], tuple_(*key) > tuple_(*values))
