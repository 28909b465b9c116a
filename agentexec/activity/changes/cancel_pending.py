"""`ax.activity.cancel_pending`: cancel everything that is waiting to start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from agentexec.activity.changes.endings import end_from_outside
from agentexec.activity.queries.filters import Filter, select_matching_ids, with_most_selective_index
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.db.clock import utc_now
from agentexec.task import Status

BATCH = 1000
"""Activities in one transaction: none holds locks for long."""


@sync_or_async
def cancel_pending(db: Session, *, metadata_filter: Mapping[str, Any] | None = None) -> int:
    """Cancel every QUEUED activity, so that none of them starts. Commits.

    Running tasks are left alone; `ax.cancel` stops a single task.

    Args:
        db: Session or AsyncSession on the database of the record.
        metadata_filter: Values that the metadata must have; None cancels the activities of every tenant.

    Returns:
        The number of canceled activities.

    Raises:
        UsageError: `metadata_filter` is not a mapping of up to 64 strings, numbers and booleans.
    """
    canceled = 0
    wanted = with_most_selective_index(db, Filter(Status.QUEUED, metadata=metadata_filter))
    query = select_matching_ids(wanted, Status.QUEUED).limit(BATCH)
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
