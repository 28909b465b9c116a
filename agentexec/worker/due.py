"""Duties of maintenance that have something to do: one query for all of them, each second.

Asked one by one they would cost an idle host most of its processor time. Whoever acts reads again what there is.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Engine, or_, select

from agentexec.activity.changes.expirations import EXPIRED
from agentexec.db.recurring import Recurring
from agentexec.journal.wake_ups import WAIT_KINDS, untold, untold_values
from agentexec.webhooks.record import DUE_MESSAGES
from agentexec.worker.approval_notices import ApprovalNotices
from agentexec.worker.follow_ups import FollowUps
from agentexec.worker.index_repair import OVERLAP, PUSH_GRACE


class Due(NamedTuple):
    """Duties that have something to do, by the record."""

    follow_ups: bool = True
    notices: bool = True
    answers: bool = True
    """Answers and events that came from a process which could not tell the queue."""
    expirations: bool = True
    webhooks: bool = True


EVERYTHING = Due()


class DueQuery:
    """The query whether anything is due, for the queues and tasks of one host."""

    def __init__(self, engine: Engine, follow_ups: FollowUps, notices: ApprovalNotices) -> None:
        self._parts = (follow_ups, notices)
        self._query = Recurring(
            engine,
            select(
                follow_ups.query.exists(),
                notices.query.exists(),
                or_(*(untold(kind).exists() for kind in WAIT_KINDS)),
                EXPIRED.exists(),
                DUE_MESSAGES.exists(),
            ),
        )

    def look(self, now: datetime) -> Due:
        """Return what is due. Raises UnavailableError."""
        values = {"now": now, **untold_values(now - timedelta(seconds=PUSH_GRACE), OVERLAP)}
        for part in self._parts:
            values |= part.values(now)
        (row,) = self._query.read(values)
        return Due(*map(bool, row))
