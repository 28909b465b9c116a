"""Open runs by the version of the code that began them."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity
from agentexec.task import ACTIVE_STATUSES


class OpenRuns(NamedTuple):
    """Number of open runs of a task on a queue that began with the same version."""

    queue: str
    task_name: str
    version: str
    number: int


def open_runs(db: Session) -> list[OpenRuns]:
    """Return the numbers of queued and running tasks that began with a version. Reads all of these."""
    table: Any = Activity.__table__
    keys = (table.c.queue, table.c.agent_type, table.c.version)
    query = select(*keys, func.count()).where(
        table.c.status.in_(ACTIVE_STATUSES), table.c.version.is_not(None), table.c.queue.is_not(None)
    )
    return [OpenRuns(*row) for row in db.execute(query.group_by(*keys).order_by(*keys))]
