"""Alembic's environment: one database with the application's tables and agentexec's."""

from alembic import context
from app.db import Base, engine
from sqlalchemy.sql.schema import SchemaItem

import agentexec as ax

# agentexec's tables are known here, so that yours can refer to them.
target_metadata = [Base.metadata, ax.Base.metadata]


def include_object(
    obj: SchemaItem, name: str | None, kind: str, _reflected: bool, _compare_to: SchemaItem | None
) -> bool:
    """Leave agentexec's tables to agentexec's own revisions, which also move data; `versions/0001` runs them.

    Otherwise `--autogenerate` would compare them, and would drop `agentexec_alembic_version`, which is in no metadata.
    """
    table = name if kind == "table" else getattr(getattr(obj, "table", None), "name", None)
    return not (table or "").startswith(ax.CONF.table_prefix)


if context.is_offline_mode():
    raise SystemExit("For SQL, use `agentexec migrate --sql` and the application's own revisions.")

with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=target_metadata,
        include_object=include_object,
        transaction_per_migration=True,  # agentexec's revisions run in a transaction of their own, beside this one
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite cannot alter a column in place
    )
    with context.begin_transaction():
        context.run_migrations()
