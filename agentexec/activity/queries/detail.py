"""Queries over the record, for a Session, or for an AsyncSession (then the call is awaited)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity, ActivityLog
from agentexec.activity.queries.filters import Filter, select_matching_ids, with_most_selective_index
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.activity.schemas import (
    ActivityChildSchema,
    ActivityDetailSchema,
    ActivityLogSchema,
)
from agentexec.errors import ActivityNotFoundError
from agentexec.task import ACTIVE_STATUSES, parse_agent_id

# Columns, and no entities: SQLAlchemy takes several times as long to make these as to read the rows of a long log.
DETAIL = [
    Activity.agent_id.label("id"),
    *(column for column in Activity.__table__.c if column.name != "context"),
]
LINE = (
    ActivityLog.id,
    ActivityLog.created_at,
    ActivityLog.status,
    ActivityLog.message,
    ActivityLog.percentage,
)

MAX_TREE = 1000
"""Most tasks in the tree of a detail."""


@sync_or_async
def detail(
    db: Session, agent_id: UUID | str, *, metadata_filter: Mapping[str, Any] | None = None
) -> ActivityDetailSchema:
    """One activity with its log. Raises ActivityNotFoundError, also when `metadata_filter` does not match it."""
    key = parse_agent_id(agent_id)
    row = db.execute(
        select(*DETAIL).where(Activity.agent_id == key, *metadata_conditions(metadata_filter))
    ).one_or_none()
    if row is None:
        raise ActivityNotFoundError(key)
    found = ActivityDetailSchema.model_validate(row)
    lines = select(*LINE).where(ActivityLog.activity_id == key).order_by(ActivityLog.id)
    found.logs = [ActivityLogSchema.model_validate(line) for line in db.execute(lines)]
    _add_children(db, found)
    return found


def _add_children(db: Session, root: ActivityDetailSchema) -> None:
    """Fill the tree below an activity, level by level, up to MAX_TREE tasks in all."""
    columns = (
        Activity.agent_id,
        Activity.parent_id,
        Activity.agent_type,
        Activity.status,
        Activity.percentage,
        Activity.message,
    )
    level: dict[UUID, list[ActivityChildSchema]] = {root.agent_id: root.children}
    left = MAX_TREE
    while level and left > 0:
        query = select(*columns).where(Activity.parent_id.in_(level))
        rows = db.execute(query.order_by(Activity.created_at, Activity.agent_id).limit(left)).all()
        below: dict[UUID, list[ActivityChildSchema]] = {}
        for row in rows:
            child = ActivityChildSchema.model_validate(row)
            level[row.parent_id].append(child)
            below[child.agent_id] = child.children
        level, left = below, left - len(rows)


@sync_or_async
def active_count(db: Session, *, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """The number of activities that are QUEUED or RUNNING."""
    wanted = with_most_selective_index(db, Filter(metadata=metadata_filter), ranks=(0, 1))
    numbers = [
        select(func.count()).select_from(select_matching_ids(wanted, status).subquery()).scalar_subquery()
        for status in ACTIVE_STATUSES
    ]
    return sum(db.execute(select(*numbers)).one())
