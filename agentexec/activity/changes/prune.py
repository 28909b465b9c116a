"""Removal of activities that ended long ago, with their logs, journals, results and approvals."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, bindparam, delete, false, func, not_, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, aliased

from agentexec.activity.models import Activity
from agentexec.activity.partitions import Partition, partitions, remove, remove_rows
from agentexec.activity.queries.counts import invalidate
from agentexec.activity.queries.labels import driving_label_condition, wanted_labels
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.arguments.checks import check_seconds
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.db.clock import utc_now
from agentexec.db.errors import reason_of
from agentexec.errors import UsageError
from agentexec.runtime import RUNTIME
from agentexec.task import ACTIVE_STATUSES, FINAL_STATUSES

log = logging.getLogger("agentexec.prune")

_DEPENDENTS = text(
    """
    SELECT tables.name, keys."from" FROM sqlite_master AS tables, pragma_foreign_key_list(tables.name) AS keys
    WHERE tables.type = 'table' AND keys."table" = :table AND keys.on_delete = 'CASCADE'
    """
)
"""SQLite's tables whose rows belong to an activity, and the column that names it."""


@sync_or_async
def prune(db: Session, older_than: timedelta, *, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Remove activities that ended longer ago than `older_than`, with everything that belongs to them.

    They are removed in batches of 500, each committed. Where log and journal are partitioned on PostgreSQL, those of a span of
    time of which no activity stays are dropped. The children of an active task are kept, because it may ask for
    their results, and so is a canceled task whose handler still has its lock.

    Args:
        db: Session or AsyncSession on the database of the record.
        older_than: Time since the end of an activity.
        metadata_filter: Values that the metadata must have; None removes the activities of every tenant.

    Returns:
        The number of removed activities.

    Raises:
        UsageError: `older_than` is negative, or `metadata_filter` is not a mapping of up to 64 strings, numbers and booleans.
    """
    old = _old(older_than, metadata_filter)
    found = partitions(db.connection())
    removed, can_drop = 0, True
    for span, members in _ended_spans(db, found, old, utc_now() - older_than):
        removed += _remove(db, [*old, span], ())
        for partition in members:
            # Not more than one try: writers wait behind it.
            can_drop = can_drop and _drop(db, partition)
    return removed + _remove(db, old, sorted({partition.table for partition in found}))


def _remove(db: Session, conditions: Sequence[ColumnElement[bool]], tables: Sequence[str]) -> int:
    """Remove activities in batches, with their rows in these partitioned tables; return their number."""
    # Locked, so that no retry is accepted for an activity that is about to go.
    query = select(Activity.agent_id).where(*conditions).limit(CHUNK_SIZE).with_for_update(skip_locked=True)
    is_sqlite = db.get_bind().dialect.name == "sqlite"
    removed = 0
    while ids := _first(db, query, is_sqlite):
        if is_sqlite:
            _remove_dependents(db, ids)
        remove_rows(db.connection(), tables, ids)
        db.execute(
            delete(Activity).where(Activity.agent_id.in_(ids)).execution_options(synchronize_session=False)
        )
        invalidate(db)
        db.commit()
        RUNTIME.remove_payloads(ids)
        removed += len(ids)
    return removed


def _first(db: Session, query: Select[Any], is_sqlite: bool) -> Sequence[UUID]:
    """Return the activities of a query, which nobody changes until the end of the transaction."""
    if is_sqlite:
        # A statement that could write takes SQLite's only write lock. It is taken before the query, not after it.
        db.execute(delete(Activity).where(false()).execution_options(synchronize_session=False))
    return db.scalars(query).all()


def _ended_spans(
    db: Session, found: Sequence[Partition], old: Sequence[ColumnElement[bool]], before: datetime
) -> Iterator[tuple[ColumnElement[bool], list[Partition]]]:
    """Yield the spans of time of which no activity stays, as a condition, each with its partitions."""
    bounds: dict[Any, list[Partition]] = {}
    for partition in found:
        if partition.until is not None and partition.until <= before:
            bounds.setdefault((partition.low, partition.high), []).append(partition)
    for (low, high), members in bounds.items():
        if not all(partition.owned for partition in members):
            continue  # their rows are deleted
        span = and_(Activity.agent_id >= low, Activity.agent_id < high)
        stays = not_(func.coalesce(and_(*old), false()))
        if db.execute(select(Activity.agent_id).where(span, stays).limit(1)).first() is None:
            yield span, members


def _drop(db: Session, partition: Partition) -> bool:
    """Drop a partition whose activities are gone; return False if it is in use."""
    db.commit()
    try:
        remove(db.connection(), partition)
        db.commit()
    except DBAPIError as error:
        db.rollback()
        log.warning(
            "The partition %s has no tasks any more, but cannot be dropped now: %s. The next prune tries again.",
            partition.name,
            reason_of(error),
        )
        return False
    return True


def _remove_dependents(db: Session, agent_ids: Sequence[UUID]) -> None:
    """Remove the rows that belong to activities: SQLite does so only on connections with foreign keys on.

    The application's own connections may have them off. The tables are read from the database, because the journal's
    are not known here.
    """
    dependents = db.execute(_DEPENDENTS, {"table": Activity.__tablename__}).all()
    for name, column in dependents:
        rows = text(f'DELETE FROM "{name}" WHERE "{column}" IN :ids')  # noqa: S608 - names from the schema
        ids = bindparam("ids", agent_ids, type_=Activity.agent_id.type, expanding=True)
        db.execute(rows.bindparams(ids))


@sync_or_async
def prunable(db: Session, older_than: timedelta, *, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Return the number of activities that `prune` would remove.

    Args:
        db: Session or AsyncSession on the database of the record.
        older_than: Time since the end of an activity.
        metadata_filter: Values that the metadata must have; None counts the activities of every tenant.

    Returns:
        The number of activities.

    Raises:
        UsageError: `older_than` is negative, or `metadata_filter` is not a mapping of up to 64 strings, numbers and booleans.
    """
    query = select(func.count()).select_from(Activity).where(*_old(older_than, metadata_filter))
    return db.scalar(query) or 0


def _old(older_than: timedelta, metadata_filter: Mapping[str, Any] | None) -> list[ColumnElement[bool]]:
    if not isinstance(older_than, timedelta) or older_than < timedelta():
        raise UsageError("older_than= must not be negative; give a time like timedelta(days=30).")
    check_seconds("older_than=", older_than)
    before = utc_now() - older_than
    parent = aliased(Activity)
    active_parent = select(parent.agent_id).where(
        parent.agent_id == Activity.parent_id, parent.status.in_(ACTIVE_STATUSES)
    )
    return [
        Activity.status.in_(FINAL_STATUSES),
        Activity.finished_at < before,
        # A canceled task has its lock until its handler has stopped; without its row the next one would run beside it.
        Activity.held_lock.is_(None),
        ~active_parent.exists(),
        *map(driving_label_condition, wanted_labels(metadata_filter)),
    ]
