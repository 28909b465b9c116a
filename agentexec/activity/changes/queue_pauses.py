"""Pausing and resuming queues in the record."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Engine, insert, update
from sqlalchemy.exc import IntegrityError

from agentexec.activity.models import QueuePause
from agentexec.db.transactions import writing

PAUSE: Any = QueuePause.__table__


def record_pause(engine: Engine, queue: str, *, by: str, reason: str | None, now: datetime) -> bool:
    """Record the pause of a queue. Returns False if it was paused before; that pause stays. Raises UnavailableError."""
    values = {"paused_at": now, "paused_by": by, "reason": reason, "resumed_at": None, "resumed_by": None}
    over = update(PAUSE).where(PAUSE.c.queue == queue, PAUSE.c.resumed_at.is_not(None))
    with writing(engine) as connection:
        if connection.execute(over.values(**values)).rowcount:
            return True
    try:
        with writing(engine) as connection:
            connection.execute(insert(PAUSE).values(queue=queue, **values))
    except IntegrityError:
        return False
    return True


def record_resumption(engine: Engine, queue: str, *, by: str, now: datetime) -> bool:
    """Record the end of a queue's pause. Returns False if it was not paused. Raises UnavailableError."""
    paused = update(PAUSE).where(PAUSE.c.queue == queue, PAUSE.c.resumed_at.is_(None))
    with writing(engine) as connection:
        return connection.execute(paused.values(resumed_at=now, resumed_by=by)).rowcount > 0
