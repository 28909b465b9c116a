"""Alembic's environment. `agentexec migrate` passes a connection; `alembic` commands use agentexec's settings."""

from __future__ import annotations

import contextlib

from alembic import context

from agentexec.config import CONF
from agentexec.runtime import RUNTIME
from agentexec.schema.tables import Base, version_table

attributes = context.config.attributes
options = {
    "target_metadata": Base.metadata,
    "version_table": attributes.get("version_table", version_table()),
    "include_name": lambda name, kind, _parents: (
        kind != "table" or (name or "").startswith(CONF.table_prefix)
    ),
}

if context.is_offline_mode():
    url = attributes.get("url") or RUNTIME.engine.url
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    connection = attributes.get("connection")
    with contextlib.ExitStack() as stack:
        if connection is None:
            connection = stack.enter_context(RUNTIME.engine.begin())
        # SQLite cannot alter a column in place, so Alembic copies the table.
        context.configure(
            connection=connection, render_as_batch=connection.dialect.name == "sqlite", **options
        )
        with context.begin_transaction():
            context.run_migrations()
