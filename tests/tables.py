"""Databases with agentexec's tables and without rows.

Making the tables takes longer than most tests. A server has one such database, emptied before each test; a file is copied.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, NullPool, create_engine, delete, inspect, text
from sqlalchemy.exc import OperationalError

import agentexec as ax
from agentexec.activity.partitions import partitions
from agentexec.db.clock import utc_now
from agentexec.schema.partitioning import partition
from tests.servers import MariaDB, Postgres

NAME = "with_tables"

PARTITIONED = os.environ.get("AGENTEXEC_TEST_PARTITIONS") == "1"
"""True if the tables on PostgreSQL get time partitions."""

OTHERS = {
    "postgresql": (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ),
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
}
"""Statement that ends the connections left by an earlier test, or finds them."""


def copy_database(template: Path, folder: Path) -> str:
    """Return the URL of a new SQLite file, a copy of the template, which is made on first use."""
    if not template.exists():
        engine = create_engine(f"sqlite:///{template}", poolclass=NullPool)
        ax.Base.metadata.create_all(engine)
    return f"sqlite:///{shutil.copy(template, folder / 'test.db')}"


def reset_database(server: Postgres | MariaDB, known: dict[str, str]) -> str:
    """Return the URL of the server's database, emptied; `known` has the URLs of those made so far, by server."""
    kind = type(server).__name__
    if kind not in known:
        known[kind] = server.create_database(NAME)
    engine = create_engine(known[kind], poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        _disconnect_others(connection)
        _make_tables_only(connection)
        for table in reversed(ax.Base.metadata.sorted_tables):
            connection.execute(delete(table))
    return known[kind]


def _disconnect_others(connection: Connection) -> None:
    found = connection.execute(text(OTHERS[connection.dialect.name])).scalars().all()
    if connection.dialect.name == "mysql":
        for number in found:
            with suppress(OperationalError):  # it has already ended
                connection.execute(text(f"KILL {number}"))


def _make_tables_only(connection: Connection) -> None:
    """Create missing tables, and drop those that an earlier test made for itself."""
    there, ours = {*inspect(connection).get_table_names()}, {*ax.Base.metadata.tables}
    for name in there - ours - {found.name for found in partitions(connection)}:
        connection.execute(text(f"DROP TABLE {connection.dialect.identifier_preparer.quote(name)}"))
    if ours - there:
        ax.Base.metadata.create_all(connection)
        if PARTITIONED and connection.dialect.name == "postgresql":
            partition(connection.engine, "daily", utc_now())
