"""Duties of maintenance that have something to do: one query for all of them, each second.

Asked one by one they would cost an idle host most of its processor time. Whoever acts reads again what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Engine, false, or_, select

from agentexec.activity.changes.expirations import EXPIRED
from agentexec.activity.models import Activity
from agentexec.db.columns import text_in
from agentexec.db.recurring import Recurring
from agentexec.journal.wake_ups import WAIT_KINDS, untold, untold_values
from agentexec.webhooks.record import DUE_MESSAGES
from agentexec.worker.approval_notices import ApprovalNotices
from agentexec.worker.follow_ups import FollowUps
from agentexec.worker.index_repair import OVERLAP, PUSH_GRACE, RECENT, any_open


class Due(NamedTuple):
    """Duties that have something to do, by the record."""

    follow_ups: bool = True
    notices: bool = True
    answers: bool = True
    """Answers and events that came from a process which could not tell the queue."""
    expirations: bool = True
    webhooks: bool = True
    none_until: datetime | None = None
    """Moment up to which no open task was accepted within `RECENT`; None if some were, or nobody has looked."""


EVERYTHING = Due()


class DueQuery:
    """The query whether anything is due, for the queues and tasks of one host.

    Args:
        indexed: Queues whose index may lack accepted tasks, because a push is not part of their transaction.
    """

    def __init__(
        self,
        engine: Engine,
        follow_ups: FollowUps,
        notices: ApprovalNotices,
        indexed: Sequence[str] = (),
    ) -> None:
        self._parts = (follow_ups, notices)
        self._indexed = list(indexed)
        self._query = Recurring(
            engine,
            select(
                follow_ups.query.exists(),
                notices.query.exists(),
                or_(*(untold(kind).exists() for kind in WAIT_KINDS)),
                EXPIRED.exists(),
                DUE_MESSAGES.exists(),
                any_open(text_in(Activity.queue, "indexed", engine.dialect.name)) if indexed else false(),
            ),
        )

    def look(self, now: datetime) -> Due:
        """Return what is due. Raises UnavailableError."""
        pushed = now - timedelta(seconds=PUSH_GRACE)
        values: dict[str, Any] = {"now": now, **untold_values(pushed, OVERLAP)}
        if self._indexed:
            values |= {"indexed": self._indexed, "accepted_after": pushed - RECENT, "accepted_until": pushed}
        for part in self._parts:
            values |= part.values(now)
        ((*due, has_recent),) = self._query.read(values)
        return Due(*map(bool, due), none_until=pushed if self._indexed and not has_recent else None)
