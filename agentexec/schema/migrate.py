"""Migrations: the packaged Alembic revisions, which any number of processes may apply at the same time."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, inspect

from agentexec.config import CONF
from agentexec.db.errors import translating_db_errors
from agentexec.db.migration_lock import migration_lock
from agentexec.errors import SchemaError, UsageError
from agentexec.schema.tables import (
    check_revision,
    check_schema,
    is_at_head,
    migrations_folder,
    revisions,
    version_table,
)

if TYPE_CHECKING:
    from alembic.config import Config


ADDED = {
    "0006": ("activity", "crashes_in_row"),
    "0007": ("schedule", "name"),
    "0008": ("activity", "expires_at"),
    "0009": ("queue", "flow"),
    "0010": ("activity", "held_lock"),
    "0011": ("worker", "queues"),
    "0012": ("activity", "trace_context"),
    "0014": ("activity", "budget"),
    "0016": ("activity", "version"),
    "0017": ("approval", "arguments_schema"),
    "0019": ("conversation", "options"),
    "0021": ("conversation_label", "value"),
}
"""A table and a column that each revision has added, by which tables of `create_all` are dated."""


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Upgrade the database to a revision, after another process that migrates it.

    Tables that `ax.Base.metadata.create_all(engine)` has made, of this release or an earlier one, are taken over. A
    revision or an env.py of the application's own Alembic may call this; it has a connection and a transaction of its own.

    Raises:
        UnavailableError: The database cannot be reached.
        SchemaError: The tables are of a release that is too old to be taken over.
    """
    command = _alembic("command")
    with migration_lock(engine) as connection:
        if (found := _revision_of_created(connection)) is not None:
            _run(command.stamp, _config(connection), found)
        _run(command.upgrade, _config(connection), revision)


def _revision_of_created(connection: Connection) -> str | None:
    """Return the revision to which tables of `create_all` correspond; None if there are none, or a migration has made them."""
    inspector = inspect(connection)
    if inspector.has_table(version_table()) or not inspector.has_table(f"{CONF.table_prefix}activity"):
        return None
    found = None
    for revision, (suffix, column) in ADDED.items():
        table = f"{CONF.table_prefix}{suffix}"
        if not inspector.has_table(table) or column not in {c["name"] for c in inspector.get_columns(table)}:
            break
        found = revision
    if found is None:
        raise SchemaError(
            f"The database has tables of {CONF.table_prefix}activity that an old release has made without a migration; "
            "remove them, or add what `agentexec migrate --sql` shows by hand."
        )
    return found


def downgrade(engine: Engine, revision: str) -> None:
    """Downgrade the database to an older revision. The data of newer tables is lost."""
    command = _alembic("command")
    with migration_lock(engine) as connection:
        _run(command.downgrade, _config(connection), revision)


def migrate_to(engine: Engine, revision: str = "head") -> None:
    """Migrate the database to a revision, up or down."""
    if revision == "head" and is_at_head(engine):
        return  # most deployments have nothing to migrate, and need not import Alembic
    script = _alembic("script").ScriptDirectory.from_config(_config(None))
    with translating_db_errors(engine), engine.connect() as connection:
        current = _current(connection)
    if current is not None and current not in revisions():
        check_revision(current, engine)
    known = [step.revision for step in script.walk_revisions()]
    wanted = script.get_current_head() if revision == "head" else revision
    if revision not in ("head", "base") and revision not in known:
        raise UsageError(
            f"There is no revision {revision}; known are {', '.join(reversed(known))}, head and base."
        )
    if revision == "base" or (current in known and known.index(wanted) > known.index(current)):
        downgrade(engine, revision)
    else:
        upgrade(engine, revision)


def check(engine: Engine) -> None:
    """Raise SchemaError if a migration is missing."""
    check_schema(engine)


def print_sql(engine: Engine, revision: str = "head") -> None:
    """Print the SQL of an upgrade from an empty database, for databases that a person migrates."""
    config = _config(None)
    config.attributes["url"] = engine.url
    _run(_alembic("command").upgrade, config, revision, sql=True)


def _current(connection: Connection) -> str | None:
    context = _alembic("runtime.migration").MigrationContext.configure(
        connection, opts={"version_table": version_table()}
    )
    return context.get_current_revision()


def _run(command: Any, config: Config, revision: str, **options: Any) -> None:
    try:
        with _application_environment_kept():
            command(config, revision, **options)
    except _alembic("util").CommandError as error:
        raise UsageError(f"The migration failed: {error}.") from error


@contextmanager
def _application_environment_kept() -> Generator[None]:
    """Give `alembic.context` and `alembic.op` back to the application's migration that is running, if there is one.

    They are modules that refer to one environment at a time, and to none after the inner one has ended.
    """
    outer = [getattr(_alembic(name), "_proxy", None) for name in ("context", "op")]
    try:
        yield
    finally:
        for proxy in outer:
            if proxy is not None:
                proxy._install_proxy()


def _alembic(name: str) -> Any:
    # Imported on use: the import of Alembic takes longer than the start of a worker.
    return importlib.import_module(f"alembic.{name}")


def _config(connection: Connection | None) -> Config:
    """Return Alembic's configuration, built in code: it works in any folder, and never reads the application's ini file."""
    folder = migrations_folder()
    config: Config = _alembic("config").Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["version_table"] = version_table()
    return config
