"""Number of activities of a queue, among a bounded number of each status. An index alone has all that is read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import case, func, select, union_all
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity
from agentexec.activity.queries.filters import Filter, driving_conditions

MAX_SCANNED = 10_000
"""Activities of each status, the newest that match the other filters, in which a queue is looked for."""


def total(db: Session, wanted: Filter) -> tuple[int, bool]:
    """Return how many activities of a queue are found, and whether no more are left out."""
    numbers = db.execute(count_query(wanted)).all()
    return sum(row.found or 0 for row in numbers), all(row.searched < MAX_SCANNED for row in numbers)


def count_query(wanted: Filter) -> Any:
    """Return a query that counts the activities of a queue, and those in which it is looked for, by status."""
    parts = []
    for number, status in enumerate(wanted.statuses):
        conditions = driving_conditions(wanted, (status,), None, Activity)
        newest = select(Activity.queue).where(*conditions)
        newest = newest.order_by(Activity.created_at.desc(), Activity.agent_id.desc()).limit(MAX_SCANNED)
        searched = newest.subquery(f"searched_{number}")
        found = func.sum(case((searched.c.queue == wanted.queue, 1), else_=0))
        parts.append(select(found.label("found"), func.count().label("searched")).select_from(searched))
    return union_all(*parts)
