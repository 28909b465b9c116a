"""Tasks that have not ended and match a filter: their number, and the first of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity
from agentexec.activity.queries.filters import (
    Filter,
    driving_conditions,
    select_matching_ids,
    with_most_selective_index,
)
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.config import CONF
from agentexec.task import ACTIVE_STATUSES, Status


class ActiveFilter(NamedTuple):
    """Filter of tasks that have not ended; None does not filter by that field."""

    status: Status | None = None
    task_name: str | None = None
    queue: str | None = None
    metadata: Mapping[str, Any] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    agent_ids: Sequence[UUID] | None = None

    @property
    def statuses(self) -> list[Status]:
        """Statuses of the tasks, running ones first: what is queued may be running by the time its turn comes."""
        return [status for status in (Status.RUNNING, Status.QUEUED) if self.status in (None, status)]


def count_matching(db: Session, wanted: ActiveFilter, maximum: int) -> int:
    """Return the number of tasks that match, up to `maximum`."""
    counted = 0
    for query in _queries(db, wanted, only_ids=True):
        found = query.limit(maximum - counted).subquery()
        counted += db.scalar(select(func.count()).select_from(found)) or 0
    return counted


def select_matching(db: Connection, wanted: ActiveFilter, limit: int) -> list[tuple[UUID, str]]:
    """Return agent_id and queue of up to `limit` tasks that match."""
    found: list[tuple[UUID, str]] = []
    for query in _queries(db, wanted):
        rows = db.execute(query.limit(limit - len(found))).all()
        found.extend((row.agent_id, row.queue or CONF.queue_name) for row in rows)
    return found


def _queries(db: Any, wanted: ActiveFilter, *, only_ids: bool = False) -> list[Any]:
    """Return a query of agent_id and queue for each status; `only_ids` may leave out the queue."""
    matching = Filter(
        wanted.status,
        wanted.task_name,
        created_after=wanted.created_after,
        created_before=wanted.created_before,
        metadata=wanted.metadata,
    )
    rows = select(Activity.agent_id, Activity.queue)
    if wanted.queue is not None:
        rows = rows.where(Activity.queue == wanted.queue)
    if wanted.agent_ids is not None:
        named = rows.where(Activity.agent_id.in_(wanted.agent_ids), *metadata_conditions(wanted.metadata))
        if wanted.task_name is not None:
            named = named.where(Activity.agent_type == wanted.task_name)
        named = named.where(*matching.time_conditions(Activity.created_at))
        return [named.where(Activity.status.in_(wanted.statuses or ACTIVE_STATUSES))]
    if not wanted.metadata:
        # The index by status has the queue too.
        return [
            rows.where(*driving_conditions(matching, (status,), None, Activity)) for status in wanted.statuses
        ]
    matching = with_most_selective_index(db, matching, ranks=(0, 1))
    found = [select_matching_ids(matching, status, wanted.queue) for status in wanted.statuses]
    return found if only_ids else [rows.where(Activity.agent_id.in_(ids)) for ids in found]
