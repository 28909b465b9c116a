"""Time partitions of the log and the journal, on PostgreSQL: which there are, which are due, and the end of old ones.

An activity's id is ordered by time, so a range of ids is a span of time. The activities stay in one table: the unique
keys of a partitioned one would have to contain its id, and their updates would look into all partitions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, get_args
from uuid import UUID

from sqlalchemy import Connection, bindparam, select, text

from agentexec.activity.models import Activity, Meta
from agentexec.config import CONF

Interval = Literal["daily", "weekly", "monthly"]
INTERVALS: tuple[Interval, ...] = get_args(Interval)

TABLES = {
    f"{CONF.table_prefix}activity_log": "activity_id",
    f"{CONF.table_prefix}journal": "agent_id",
    f"{CONF.table_prefix}journal_history": "agent_id",
}
"""Tables that may be partitioned, and the column with the activity's id."""

META_NAME = "partitions"
"""Name of the fact in the table `meta` that says the interval."""

AHEAD = {"daily": timedelta(days=7), "weekly": timedelta(days=21), "monthly": timedelta(days=35)}
"""Time for which partitions are made ahead; what comes later goes to the default partition."""

LOCK_SECONDS = 1
"""Seconds that a change of the partitions waits for a table: meanwhile, others wait behind it."""

FIRST = UUID(int=0)

_PARTITIONS = text(
    """
    SELECT parent.relname AS table, child.relname AS name, pg_get_expr(child.relpartbound, child.oid) AS bound,
        pg_has_role(child.relowner, 'USAGE') AS owned
    FROM pg_inherits JOIN pg_class parent ON parent.oid = inhparent JOIN pg_class child ON child.oid = inhrelid
    WHERE parent.relkind = 'p' AND parent.relname IN :tables AND pg_table_is_visible(parent.oid)
    """
).bindparams(bindparam("tables", [*TABLES], expanding=True))
_BOUND = re.compile(r"FROM \((MINVALUE|'[^']+')\) TO \('([^']+)'\)")


class Partition(NamedTuple):
    """Partition of a table: its ids are at least `low`, and less than `high`. The default one has neither."""

    table: str
    name: str
    low: UUID | None
    high: UUID | None
    owned: bool
    """True if this role may drop it."""

    @property
    def column(self) -> str:
        """Column with the activity's id."""
        return TABLES[self.table]

    @property
    def until(self) -> datetime | None:
        """End of its time; None for the default one."""
        return None if self.high is None else time_of(self.high)


def partitions(connection: Connection) -> list[Partition]:
    """Return the partitions in the order of time, the default ones last; none if the tables are not partitioned."""
    if connection.dialect.name != "postgresql":
        return []
    found = [_read(*row) for row in connection.execute(_PARTITIONS)]
    return sorted(found, key=lambda partition: (partition.high is None, partition.high, partition.table))


def interval_of(connection: Connection) -> Interval | None:
    """Return the interval of the partitions to come; None if the tables are not partitioned."""
    value = connection.execute(select(Meta.value).where(Meta.name == META_NAME)).scalar()
    return next((interval for interval in INTERVALS if interval == value), None)


def _read(table: str, name: str, bound: str, owned: bool) -> Partition:
    found = _BOUND.search(bound)
    if found is None:
        return Partition(table, name, None, None, owned)
    low = FIRST if found[1] == "MINVALUE" else UUID(found[1].strip("'"))
    return Partition(table, name, low, UUID(found[2]), owned)


def uncovered(connection: Connection, moment: datetime) -> list[str]:
    """Return the partitioned tables without a partition for the rows of a moment."""
    found = partitions(connection)
    covered = {
        partition.table for partition in found if partition.until is not None and partition.until > moment
    }
    return sorted({partition.table for partition in found} - covered)


def first_id(moment: datetime) -> UUID:
    """Return the first id of a moment."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def time_of(agent_id: UUID) -> datetime:
    """Return the moment of an id."""
    return datetime.fromtimestamp((agent_id.int >> 80) / 1000, UTC)


def next_bound(moment: datetime, interval: Interval) -> datetime:
    """Return the first midnight after a moment, in UTC, at which a partition ends: of Monday, or of a month's first day."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if interval == "daily":
        return day + timedelta(days=1)
    if interval == "weekly":
        return day + timedelta(days=7 - day.weekday())
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def missing_spans(until: datetime, interval: Interval, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the spans of the partitions that are due: from the end of the last one long enough after now."""
    while until < now + AHEAD[interval]:
        low, until = until, next_bound(until, interval)
        if until > now:
            yield low, until


def add_due(connection: Connection, interval: Interval, now: datetime) -> int:
    """Make the partitions that are due, and return their number. To be called by one process at a time."""
    found, made = partitions(connection), 0
    connection.exec_driver_sql(f"SELECT set_config('lock_timeout', '{LOCK_SECONDS}s', true)")
    for table in TABLES:
        mine = [partition for partition in found if partition.table == table]
        ends = [partition.until for partition in mine if partition.until is not None]
        if not ends:
            continue
        default = next((partition.name for partition in mine if partition.high is None), None)
        for low, high in missing_spans(max(ends), interval, now):
            # The rows that came while nobody made partitions stay where they are, and those of their span follow.
            if default is None or not _has_ids(
                connection, default, TABLES[table], first_id(low), first_id(high)
            ):
                add(connection, table, low, high)
                made += 1
    return made


def add(connection: Connection, table: str, low: datetime, high: datetime) -> None:
    """Make the partition of a table for a span of time."""
    name = f"{table}_p{low:%y%m%d}"
    connection.exec_driver_sql(
        f'CREATE TABLE "{name}" PARTITION OF "{table}" '
        f"FOR VALUES FROM ('{first_id(low)}') TO ('{first_id(high)}')"
    )


def remove(connection: Connection, partition: Partition) -> None:
    """Drop a partition. If the record has an activity of its span after all, delete the rows of the others instead.

    The transaction is the caller's, and must be a new one, which holds no other locks.
    """
    if _is_used(connection, partition):
        known = f"SELECT 1 FROM {Activity.__tablename__} a WHERE a.agent_id = {partition.column}"  # noqa: S608 - names of ours
        connection.exec_driver_sql(f'DELETE FROM "{partition.name}" WHERE NOT EXISTS ({known})')  # noqa: S608 - the same
        return
    connection.exec_driver_sql(
        f"SELECT set_config('lock_timeout', '{LOCK_SECONDS}s', true), "
        f"set_config('statement_timeout', '{LOCK_SECONDS}s', true)"
    )
    connection.exec_driver_sql(f'LOCK TABLE ONLY "{partition.table}" IN ACCESS EXCLUSIVE MODE')
    # Under the lock nobody adds an activity with its first line.
    if not _is_used(connection, partition):
        connection.exec_driver_sql(f'DROP TABLE "{partition.name}"')


def _is_used(connection: Connection, partition: Partition) -> bool:
    """Return True if the record has an activity of a partition's span."""
    return _has_ids(connection, Activity.__tablename__, "agent_id", partition.low, partition.high)


def _has_ids(connection: Connection, table: str, column: str, low: UUID | None, high: UUID | None) -> bool:
    """Return True if a table has rows of a span of ids."""
    span = f"{column} >= '{low}' AND {column} < '{high}'"
    query = f'SELECT 1 FROM "{table}" WHERE {span} LIMIT 1'  # noqa: S608 - names and ids of ours
    return connection.exec_driver_sql(query).first() is not None


def remove_rows(connection: Connection, tables: Sequence[str], agent_ids: Sequence[UUID]) -> None:
    """Delete the rows of activities in partitioned tables: they have no foreign key, whose check would search all partitions."""
    ids = bindparam("ids", agent_ids, type_=Activity.agent_id.type, expanding=True)
    for table in tables:
        query = text(f'DELETE FROM "{table}" WHERE {TABLES[table]} IN :ids')  # noqa: S608 - names of ours
        connection.execute(query.bindparams(ids))
