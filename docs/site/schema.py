"""Reference of the database schema, generated from the models."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from agentexec.schema.tables import MODEL_MODULES, Base
from docs.site.tables import prose, table

DIALECT = postgresql.dialect()


def render() -> str:
    return "\n".join(map(_table, _models()))


def _models() -> list[type[Any]]:
    """Return the models in the order of their definition."""
    found = [mapper.class_ for mapper in Base.registry.mappers]
    return [value for module in MODEL_MODULES for value in vars(module).values() if value in found]


def _table(model: type[Any]) -> str:
    definition: Table = model.__table__
    parts = [
        f"## {definition.name}\n",
        prose(model) + "\n",
        table(("column", "type", "", "meaning"), [_column(column) for column in definition.columns]),
    ]
    if indexes := sorted(definition.indexes, key=lambda index: str(index.name)):
        rows = [
            (
                f"`{index.name}`",
                ", ".join(f"`{column.name}`" for column in index.columns),
                "unique" if index.unique else "",
            )
            for index in indexes
        ]
        parts.append(table(("index", "columns", ""), rows))
    return "\n".join(parts)


def _column(column: Column[Any]) -> tuple[str, str, str, str]:
    facts = ["key"] if column.primary_key else [] if column.nullable else ["not null"]
    facts += [f"→ `{key.target_fullname}`" for key in column.foreign_keys]
    return f"`{column.name}`", f"`{_type(column)}`", " ".join(facts), column.doc or ""


def _type(column: Column[Any]) -> str:
    return column.type.compile(DIALECT).lower().replace("timestamp with time zone", "timestamptz")
