"""Details of one activity, and the number of active ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity, ActivityLog
from agentexec.activity.queries.budgets import budget_of
from agentexec.activity.queries.filters import Filter, select_matching_ids, with_most_selective_index
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.activity.schemas import (
    ActivityChildSchema,
    ActivityDetailSchema,
    ActivityLogSchema,
)
from agentexec.errors import ActivityNotFoundError
from agentexec.task import ACTIVE_STATUSES, Status, parse_agent_id

# Columns, not entities: making entities takes SQLAlchemy several times as long as reading the rows of a long log.
DETAIL = [
    Activity.agent_id.label("id"),
    Activity.budget.label("stored_budget"),
    *(column for column in Activity.__table__.c if column.name not in ("context", "budget")),
]
LOG_LINE = (
    ActivityLog.id,
    ActivityLog.created_at,
    ActivityLog.status,
    ActivityLog.message,
    ActivityLog.percentage,
)

MAX_TREE = 1000
"""Maximum number of tasks in the tree of children."""

MAX_DEPTH = 20
"""Maximum number of levels in the tree of children: readers of JSON limit its depth."""


@sync_or_async
def detail(
    db: Session, agent_id: UUID | str, *, metadata_filter: Mapping[str, Any] | None = None
) -> ActivityDetailSchema:
    """Return one activity with its log and the tree of its children.

    Args:
        db: Session or AsyncSession on the database of the record.
        agent_id: Id of the activity.
        metadata_filter: Values that its metadata must have; otherwise it counts as unknown.

    Returns:
        The activity with its whole log. The tree has up to 1,000 tasks on up to 20 levels; `more_below` marks tasks
        whose children were left out.

    Raises:
        ActivityNotFoundError: There is no such activity, or `metadata_filter` does not match it.
        UsageError: `metadata_filter` is not a mapping of up to 64 strings, numbers and booleans.
    """
    found = detail_without_log(db, parse_agent_id(agent_id), metadata_filter)
    lines = select(*LOG_LINE).where(ActivityLog.activity_id == found.agent_id).order_by(ActivityLog.id)
    found.logs = [ActivityLogSchema.model_validate(line) for line in db.execute(lines)]
    return found


def detail_without_log(
    db: Session, key: UUID, metadata_filter: Mapping[str, Any] | None = None
) -> ActivityDetailSchema:
    """Return one activity with the tree of its children, and no line of its log: the log of a long task is long."""
    row = db.execute(
        select(*DETAIL).where(Activity.agent_id == key, *metadata_conditions(metadata_filter))
    ).one_or_none()
    if row is None:
        raise ActivityNotFoundError(key)
    found = ActivityDetailSchema.model_validate(row)
    _add_children(db, found)
    found.budget = budget_of(db, key, row.stored_budget)
    return found


def newest_lines(db: Session, key: UUID, limit: int, before: int | None = None) -> list[ActivityLogSchema]:
    """Return the newest lines of a log, in the order in which they were written.

    Args:
        db: Session on the database of the record.
        key: Id of the activity.
        limit: Highest number of lines.
        before: Only lines with a lower id.
    """
    lines = select(*LOG_LINE).where(ActivityLog.activity_id == key)
    if before is not None:
        lines = lines.where(ActivityLog.id < before)
    rows = db.execute(lines.order_by(ActivityLog.id.desc()).limit(limit)).all()
    return [ActivityLogSchema.model_validate(row) for row in reversed(rows)]


def _add_children(db: Session, root: ActivityDetailSchema) -> None:
    """Fill the tree below an activity level by level, up to MAX_TREE tasks and MAX_DEPTH levels.

    Whoever can write to the database can close a circle of parents, so no task is in the tree twice.
    """
    columns = (
        Activity.agent_id,
        Activity.parent_id,
        Activity.agent_type,
        Activity.status,
        Activity.percentage,
        Activity.message,
    )
    seen = {root.agent_id}
    level: dict[UUID, ActivityDetailSchema | ActivityChildSchema] = {root.agent_id: root}
    for _ in range(MAX_DEPTH):
        left = MAX_TREE - len(seen) + 1
        if not level or left <= 0:
            break
        query = select(*columns).where(Activity.parent_id.in_(level))
        rows = db.execute(query.order_by(Activity.created_at, Activity.agent_id).limit(left)).all()
        below: dict[UUID, ActivityDetailSchema | ActivityChildSchema] = {}
        for row in rows:
            if row.agent_id not in seen:
                seen.add(row.agent_id)
                child = ActivityChildSchema.model_validate(row)
                level[row.parent_id].children.append(child)
                below[child.agent_id] = child
        if len(rows) == left:
            # The query may have left out children of any of these.
            _mark_incomplete(db, level)
        level = below
    _mark_incomplete(db, level)


def _mark_incomplete(db: Session, parents: Mapping[UUID, ActivityDetailSchema | ActivityChildSchema]) -> None:
    """Mark the tasks that have more children in the record than in the tree."""
    if not parents:
        return
    query = select(Activity.parent_id, func.count()).where(Activity.parent_id.in_(parents))
    numbers = {row[0]: row[1] for row in db.execute(query.group_by(Activity.parent_id))}
    for agent_id, parent in parents.items():
        parent.more_below = numbers.get(agent_id, 0) > len(parent.children)


@sync_or_async
def active_count(db: Session, *, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Count the activities that are QUEUED or RUNNING.

    Args:
        db: Session or AsyncSession on the database of the record.
        metadata_filter: Only activities whose metadata has these values.

    Returns:
        The number of activities.

    Raises:
        UsageError: `metadata_filter` is not a mapping of up to 64 strings, numbers and booleans.
    """
    return sum(numbers_active(db, metadata_filter).values())


def numbers_active(db: Session, metadata_filter: Mapping[str, Any] | None = None) -> dict[Status, int]:
    """Return the numbers of activities with each active status."""
    wanted = with_most_selective_index(db, Filter(metadata=metadata_filter), ranks=(0, 1))
    statuses = sorted(ACTIVE_STATUSES)
    numbers = [
        select(func.count()).select_from(select_matching_ids(wanted, status).subquery()).scalar_subquery()
        for status in statuses
    ]
    return dict(zip(statuses, db.execute(select(*numbers)).one(), strict=True))
