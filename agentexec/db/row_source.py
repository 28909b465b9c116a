"""Many rows as parameters of a PostgreSQL statement: JSON, which costs a fraction of what the driver takes for single values.

What all rows share is sent and read once. Each other column is one list.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

Types = tuple[tuple[str, str], ...]
"""Names of columns, and their types in SQL."""

_LENGTH = re.compile(r"\(\d+\)")


class RowSource(NamedTuple):
    """SELECT that returns rows, in their order, for a statement of psycopg; and the statement's values for it."""

    sql: str
    values: dict[str, str]


def row_source(name: str, rows: Sequence[Mapping[str, Any]], types: Types) -> RowSource:
    """Return the SELECT of some rows, at least one. `name`: the beginning of the names of its values."""
    shared: dict[str, Any] = {}
    values: dict[str, str] = {}
    varied: list[str] = []
    for place, (column, _) in enumerate(types):
        found = [row[column] for row in rows]
        # The first column is a list in any case: its length is the number of rows.
        if found.count(found[0]) < len(found) or (place == 0 and len(rows) > 1):
            varied.append(column)
            values[f"{name}_{column}"] = _dump(found)
        elif found[0] is not None:
            shared[column] = found[0]
    values[f"{name}_shared"] = _dump(shared)
    return RowSource(_select(name, types, tuple(varied)), values)


@functools.lru_cache(maxsize=128)
def _select(name: str, types: Types, varied: tuple[str, ...]) -> str:
    """Return the SELECT. Each combination of columns that vary is a statement of its own, of which callers have few."""
    sources: list[str] = []
    if varied:
        lists = ", ".join(f"json_array_elements_text(%({name}_{column})s::json)" for column in varied)
        sources.append(f"ROWS FROM ({lists}) AS varied({', '.join(varied)})")
    if shared := ", ".join(f"{column} {kind}" for column, kind in types if column not in varied):
        sources.append(f"json_to_record(%({name}_shared)s::json) AS shared({shared})")
    # Without its length: a cast would cut what is too long, where the insert refuses it.
    columns = [f"{column}::{_LENGTH.sub('', kind)}" if column in varied else column for column, kind in types]
    aliased = [f"{value} AS {column}" for value, (column, _) in zip(columns, types, strict=True)]
    return f"SELECT {', '.join(aliased)} FROM {', '.join(sources)}"  # noqa: S608 - names of columns of ours


def _dump(value: Any) -> str:
    return json.dumps(value, default=_json_value, ensure_ascii=False)


def _json_value(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
