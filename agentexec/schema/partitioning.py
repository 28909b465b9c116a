"""Partitioning of the log and the journal on PostgreSQL, which `agentexec migrate --partition monthly` does once."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, inspect, text

from agentexec.activity.models import Activity, Meta
from agentexec.activity.partitions import (
    INTERVALS,
    META_NAME,
    TABLES,
    Interval,
    add_due,
    first_id,
    next_bound,
    partitions,
)
from agentexec.config import CONF
from agentexec.db.migration_lock import migration_lock
from agentexec.errors import UsageError

LOCK_SECONDS = 5
"""Seconds that the change waits for each table: meanwhile, tasks wait behind it."""

KEYS = {
    f"{CONF.table_prefix}activity_log": ["activity_id", "id"],
    f"{CONF.table_prefix}journal": ["agent_id", "path", "seq"],
    f"{CONF.table_prefix}journal_history": ["agent_id", "run", "path", "seq"],
}
"""The primary key of each table, which must contain the column of the partitions."""

_GRANTS = text(
    """
    SELECT format('GRANT %s ON %s TO %s', acl.privilege_type, quote_ident(:new),
        CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END)
    FROM pg_class c, aclexplode(c.relacl) acl WHERE c.oid = to_regclass(quote_ident(:old)) AND acl.grantee <> c.relowner
    UNION ALL
    SELECT format('ALTER TABLE %s OWNER TO %s', quote_ident(:new), quote_ident(pg_get_userbyid(c.relowner)))
    FROM pg_class c WHERE c.oid = to_regclass(quote_ident(:old))
    """
)


def check_interval(engine: Engine, interval: str) -> Interval:
    """Return the interval if it is one, and the database is PostgreSQL. Raises UsageError."""
    chosen = next((known for known in INTERVALS if known == interval), None)
    if chosen is None:
        raise UsageError(f"--partition is {interval!r}; give one of {', '.join(INTERVALS)}.")
    if engine.dialect.name != "postgresql":
        raise UsageError(
            "--partition is for PostgreSQL alone; elsewhere, leave it out, and run `agentexec prune --older-than 30d` often."
        )
    return chosen


def partition(engine: Engine, interval: Interval, now: datetime) -> None:
    """Partition the log and the journal by time, or set another interval for the partitions to come.

    The rows that are there become the first partition. Tasks wait meanwhile.

    Raises:
        UnavailableError: A table was in use for too long; nothing was changed.
    """
    with migration_lock(engine) as connection:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        done = {found.table for found in partitions(connection)}
        if tables := [table for table in TABLES if table not in done]:
            names = ", ".join(f'"{name}"' for name in (Activity.__tablename__, *tables))
            connection.exec_driver_sql(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            for table in tables:
                _partition(connection, table, next_bound(now, interval))
        connection.execute(delete(Meta).where(Meta.name == META_NAME))
        connection.execute(insert(Meta).values(name=META_NAME, value=interval))
        add_due(connection, interval, now)


def _partition(connection: Connection, table: str, bound: datetime) -> None:
    """Put a partitioned table in the place of a table, which becomes its first partition."""
    run = functools.partial(_run, connection)
    old, default, column, key = f"{table}_before", f"{table}_default", TABLES[table], KEYS[table]
    inspector = inspect(connection)
    primary = inspector.get_pk_constraint(table)
    # Without foreign keys: each deletion of an activity would search all partitions. Prune deletes the rows itself.
    for foreign in inspector.get_foreign_keys(table):
        run(f'ALTER TABLE "{table}" DROP CONSTRAINT "{foreign["name"]}"')
    if primary["constrained_columns"] == key:
        run(f'ALTER TABLE "{table}" RENAME CONSTRAINT "{primary["name"]}" TO "{old}_pkey"')
    else:
        run(f'ALTER TABLE "{table}" DROP CONSTRAINT "{primary["name"]}"')
    for index in inspector.get_indexes(table):
        run(f'DROP INDEX "{index["name"]}"')
    run(f'ALTER TABLE "{table}" RENAME TO "{old}"')
    run(
        f'CREATE TABLE "{table}" (LIKE "{old}" INCLUDING DEFAULTS INCLUDING STORAGE) PARTITION BY RANGE ({column})'
    )
    run(f'ALTER TABLE "{table}" ADD CONSTRAINT "{primary["name"]}" PRIMARY KEY ({", ".join(key)})')
    for statement in connection.execute(_GRANTS, {"old": old, "new": table}).scalars().all():
        run(statement)
    for sequence in _sequences(connection, old):
        run(f'ALTER SEQUENCE {sequence} OWNED BY "{table}".id')
    run(f'CREATE TABLE "{default}" PARTITION OF "{table}" DEFAULT')
    last = first_id(bound)
    moved = f"DELETE FROM \"{old}\" WHERE {column} >= '{last}' RETURNING *"  # noqa: S608 - names of ours
    run(f'WITH moved AS ({moved}) INSERT INTO "{table}" SELECT * FROM moved')  # noqa: S608 - the same
    run(f'ALTER TABLE "{table}" ATTACH PARTITION "{old}" FOR VALUES FROM (MINVALUE) TO (\'{last}\')')


def _sequences(connection: Connection, table: str) -> list[Any]:
    """Return the sequences of a table's columns, quoted."""
    query = text(
        "SELECT pg_get_serial_sequence(quote_ident(:table), attname) FROM pg_attribute "
        "WHERE attrelid = to_regclass(quote_ident(:table)) AND attname = 'id'"
    )
    return [name for name in connection.execute(query, {"table": table}).scalars() if name is not None]


def _run(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement.replace("%", "%%"))
