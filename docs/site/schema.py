"""The reference of the database's schema, from the models."""

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
    """The models in the order in which their modules define them."""
    found = [mapper.class_ for mapper in Base.registry.mappers]
    return [one for module in MODEL_MODULES for one in vars(module).values() if one in found]


def _table(model: type[Any]) -> str:
    made: Table = model.__table__
    parts = [
        f"## {made.name}\n",
        prose(model) + "\n",
        table(("column", "type", "", "meaning"), [_column(one) for one in made.columns]),
    ]
    if indexes := sorted(made.indexes, key=lambda one: str(one.name)):
        rows = [
            (
                f"`{one.name}`",
                ", ".join(f"`{column.name}`" for column in one.columns),
                "unique" if one.unique else "",
            )
            for one in indexes
        ]
        parts.append(table(("index", "columns", ""), rows))
    return "\n".join(parts)


def _column(column: Column[Any]) -> tuple[str, str, str, str]:
    facts = ["key"] if column.primary_key else [] if column.nullable else ["not null"]
    facts += [f"→ `{key.target_fullname}`" for key in column.foreign_keys]
    return f"`{column.name}`", f"`{_type(column)}`", " ".join(facts), column.doc or ""


def _type(column: Column[Any]) -> str:
    return column.type.compile(DIALECT).lower().replace("timestamp with time zone", "timestamptz")
