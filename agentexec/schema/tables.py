"""All tables in one place, and the check that a database has them.

Does not import Alembic, whose import takes longer than the start of a worker.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from agentexec.activity import budget_models as _budgets
from agentexec.activity import models as _activity
from agentexec.config import CONF
from agentexec.conversations import models as _conversations
from agentexec.db.base import Base
from agentexec.db.transactions import reading
from agentexec.db.urls import safe_url
from agentexec.errors import SchemaError
from agentexec.journal import models as _journal
from agentexec.state import sql_models as _state

__all__ = [
    "Base",
    "check_revision",
    "check_schema",
    "is_at_head",
    "migrations_folder",
    "revisions",
    "version_table",
]

MODEL_MODULES = (_activity, _budgets, _conversations, _journal, _state)
"""Modules whose import fills `Base.metadata`."""

ADVICE = "run `agentexec migrate`"


def version_table() -> str:
    """Return the name of agentexec's own Alembic version table; the application may have another."""
    return f"{CONF.table_prefix}alembic_version"


def migrations_folder() -> Path:
    """Return the folder of the revisions: that of the installed package, else that of the repository."""
    packaged = Path(__file__).parent.parent / "_migrations" / "migrations"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"
    if not folder.is_dir():
        raise SchemaError("The migrations are missing from this installation; install agentexec again.")
    return folder


def revisions() -> list[str]:
    """Return the revision ids, oldest first: the numbers at the start of the file names."""
    return sorted(
        path.name.partition("_")[0] for path in (migrations_folder() / "versions").glob("[0-9]*.py")
    )


def check_schema(engine: Engine) -> None:
    """Raise SchemaError if the database lacks a table, a column or a revision, or is newer than this release.

    A schema created by `ax.Base.metadata.create_all(engine)` has no version table, and passes too.
    """
    with reading(engine) as connection:
        inspector = inspect(connection)
        if inspector.has_table(version_table()):
            check_revision(_recorded(connection), engine)
            return
        for table in Base.metadata.sorted_tables:
            if not table.name.startswith(CONF.table_prefix):
                continue
            try:
                columns = {column["name"] for column in inspector.get_columns(table.name)}
            except SQLAlchemyError:
                columns = set()
            missing = [column.name for column in table.columns if column.name not in columns]
            if missing:
                what = f"the table {table.name}" if not columns else f"the column {table.name}.{missing[0]}"
                raise SchemaError(f"The database {safe_url(engine.url)} lacks {what}; {ADVICE}.")


def is_at_head(engine: Engine) -> bool:
    """Return True if the database has the last migration of this release."""
    with reading(engine) as connection:
        return inspect(connection).has_table(version_table()) and _recorded(connection) == revisions()[-1]


def _recorded(connection: Connection) -> str | None:
    """Return the revision in the database's version table."""
    name = version_table()
    found: str | None = connection.execute(text(f"SELECT version_num FROM {name}")).scalar()  # noqa: S608 - a checked name
    return found


def check_revision(current: str | None, engine: Engine) -> None:
    """Raise SchemaError unless a revision is the one that this release needs."""
    known, database = revisions(), f"The database {safe_url(engine.url)}"
    if current == known[-1]:
        return
    if current is None or current in known:
        raise SchemaError(
            f"{database} is at revision {current or 'none'}, this release needs {known[-1]}; {ADVICE}."
        )
    raise SchemaError(
        f"{database} is at revision {current}, which is newer than this release knows ({known[-1]}); "
        "upgrade agentexec, or `agentexec migrate --revision` back with the newer release."
    )
