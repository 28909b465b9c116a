"""Pages of a task's log, read from the record for a stream."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, select

from agentexec.activity.live.encoding import ReceivedEvent
from agentexec.activity.models import Activity, ActivityLog, ActivityResult
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading
from agentexec.task import Status

log = logging.getLogger("agentexec.stream")

MAX_LINES = 500
"""Log lines on one page."""

_LINE = (
    ActivityLog.id,
    ActivityLog.created_at,
    ActivityLog.status,
    ActivityLog.message,
    ActivityLog.percentage,
)


class LogPage(NamedTuple):
    """Log lines of a task that a stream has not seen yet, and what else the record says at that moment."""

    lines: list[Any]
    previous_status: Status | None
    """Status of the last line that the stream has seen; None if it has seen none, or if it was removed."""
    ending: dict[str, Any]
    """Data of the final event beside its line; empty if the page has no final line."""
    over: bool
    """True if no line comes after this page."""
    more: bool
    """True if there is probably another page."""
    live_events: Sequence[ReceivedEvent] = ()
    """Live events that the state backend holds, read after the page."""


def read_log_page(engine: Engine, agent_id: UUID, last_line: int) -> LogPage:
    """Return the next page after the line with the id `last_line` (0: from the first line on).

    Raises UnavailableError.
    """
    with reading(engine) as connection:
        # The status comes first: if it is final, the lines that are read after it include the final one.
        status = connection.execute(select(Activity.status).where(Activity.agent_id == agent_id)).scalar()
        query = select(*_LINE).where(ActivityLog.activity_id == agent_id, ActivityLog.id >= last_line)
        lines = list(connection.execute(query.order_by(ActivityLog.id).limit(MAX_LINES)))
        ending = _read_ending(connection, agent_id) if lines and lines[-1].status.final else {}
    full = len(lines) == MAX_LINES
    previous = lines.pop(0).status if lines and lines[0].id == last_line else None
    over = bool(ending) or status is None or (status.final and not lines)
    return LogPage(lines, previous, ending, over, full and not ending)


def _read_ending(connection: Connection, agent_id: UUID) -> dict[str, Any]:
    row = connection.execute(
        select(Activity.status, Activity.error, Activity.finished_at, ActivityResult.value)
        .outerjoin(ActivityResult, ActivityResult.agent_id == Activity.agent_id)
        .where(Activity.agent_id == agent_id)
    ).one()
    if row.status is not Status.COMPLETE:
        # Without the traceback: this goes to browsers.
        return {"error": (row.error or "").split("\n", 1)[0] or None}
    if row.value is not None:
        try:
            return {"value": json.loads(row.value), "expired": False}
        except (ValueError, RecursionError):
            log.warning("The result of task %s cannot be parsed.", agent_id)
            return {"value": None, "expired": True}
    age = utc_now().timestamp() - row.finished_at.timestamp() if row.finished_at else 0.0
    return {"value": None, "expired": age > CONF.result_ttl}
