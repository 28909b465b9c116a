"""Removing what has ended long ago, with its log, journal, result and approvals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, func, select, text
from sqlalchemy.orm import Session, aliased

from agentexec.activity.models import Activity
from agentexec.activity.queries.counts import invalidate
from agentexec.activity.queries.labels import driving_label_condition, wanted_labels
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.db.clock import utc_now
from agentexec.errors import UsageError
from agentexec.task import ACTIVE_STATUSES, FINAL_STATUSES

_DEPENDENTS = text(
    """
    SELECT tables.name, keys."from" FROM sqlite_master AS tables, pragma_foreign_key_list(tables.name) AS keys
    WHERE tables.type = 'table' AND keys."table" = :table AND keys.on_delete = 'CASCADE'
    """
)
"""SQLite's tables whose rows go with their activity, and the column that names it."""


@sync_or_async
def prune(db: Session, older_than: timedelta, *, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Remove activities that ended longer ago than `older_than`, with all that belongs to them; returns their number.

    In batches of 500, each committed. The children of a task that is under way stay: it may ask for their results.
    Raises UsageError for a negative time.
    """
    query = select(Activity.agent_id).where(*_old(older_than, metadata_filter)).limit(CHUNK_SIZE)
    removed = 0
    while ids := db.scalars(query).all():
        if db.get_bind().dialect.name == "sqlite":
            _remove_dependents(db, ids)
        db.execute(
            delete(Activity).where(Activity.agent_id.in_(ids)).execution_options(synchronize_session=False)
        )
        invalidate(db)
        db.commit()
        removed += len(ids)
    return removed


def _remove_dependents(db: Session, agent_ids: Sequence[UUID]) -> None:
    """What goes with activities: SQLite sees to that only on connections where foreign keys are on.

    The application's own connections need not have them on. The tables are read from the database, because those of
    the journal are not known here.
    """
    dependents = db.execute(_DEPENDENTS, {"table": Activity.__tablename__}).all()
    for name, column in dependents:
        rows = text(f'DELETE FROM "{name}" WHERE "{column}" IN :ids')  # noqa: S608 - names from the schema
        ids = bindparam("ids", agent_ids, type_=Activity.agent_id.type, expanding=True)
        db.execute(rows.bindparams(ids))


@sync_or_async
def prunable(db: Session, older_than: timedelta, *, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """How many activities `prune` would remove."""
    query = select(func.count()).select_from(Activity).where(*_old(older_than, metadata_filter))
    return db.scalar(query) or 0


def _old(older_than: timedelta, metadata_filter: Mapping[str, Any] | None) -> list[ColumnElement[bool]]:
    if older_than < timedelta():
        raise UsageError("older_than must be a time of 0 or more.")
    before = utc_now() - older_than
    parent = aliased(Activity)
    under_way = select(parent.agent_id).where(
        parent.agent_id == Activity.parent_id, parent.status.in_(ACTIVE_STATUSES)
    )
    return [
        Activity.status.in_(FINAL_STATUSES),
        Activity.finished_at < before,
        ~under_way.exists(),
        *map(driving_label_condition, wanted_labels(metadata_filter)),
    ]
