"""Queries over the record, for a Session, or for an AsyncSession (then the call is awaited)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from agentexec.activity.changes.endings import end_from_outside
from agentexec.activity.models import Activity, ActivityLog
from agentexec.activity.queries.filters import Filter, select_matching_ids, with_most_selective_index
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.activity.schemas import (
    ActivityChildSchema,
    ActivityDetailSchema,
    ActivityLogSchema,
)
from agentexec.db.engine import utc_now
from agentexec.errors import ActivityNotFoundError
from agentexec.task import ACTIVE_STATUSES, Status, parse_agent_id

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

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


class _Query(Protocol[P, R]):
    @overload
    def __call__(self, db: Session, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, db: AsyncSession, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...


def sync_or_async(query: Callable[Concatenate[Session, P], R]) -> _Query[P, R]:
    """One query for both kinds of session: an AsyncSession runs the same function beside its event loop."""

    @functools.wraps(query)
    def call(db: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        run_sync = getattr(db, "run_sync", None)
        if run_sync is not None:
            return run_sync(query, *args, **kwargs)
        return query(db, *args, **kwargs)

    return call


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


@sync_or_async
def cancel_pending(db: Session, *, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Cancel every QUEUED activity, commit, and return their number. Canceled tasks never start.

    Running tasks are left alone; `ax.cancel` stops one of those.
    """
    canceled = 0
    wanted = with_most_selective_index(db, Filter(Status.QUEUED, metadata=metadata_filter))
    query = select_matching_ids(wanted, Status.QUEUED).limit(1000)
    while ids := db.scalars(query).all():
        ended = end_from_outside(
            db.connection(),
            ids,
            status=Status.CANCELED,
            message="Canceled before it started.",
            error=None,
            now=utc_now(),
            from_statuses=frozenset({Status.QUEUED}),
        )
        db.commit()
        canceled += len(ended)
    return canceled


def queue_of(db: Session, agent_id: UUID, *, metadata_filter: Mapping[str, Any] | None = None) -> str | None:
    """The queue of an activity, None for one without. Raises ActivityNotFoundError as `detail` does."""
    row = db.execute(
        select(Activity.queue).where(Activity.agent_id == agent_id, *metadata_conditions(metadata_filter))
    ).one_or_none()
    if row is None:
        raise ActivityNotFoundError(agent_id)
    return row.queue
