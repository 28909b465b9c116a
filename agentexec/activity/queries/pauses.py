"""Pauses of queues in the record: since when, by whom, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from agentexec.activity.models import QueuePause
from agentexec.db.columns import text_in

PAUSE: Any = QueuePause.__table__

MAX_SHOWN = 200
"""Characters of the reason in a sentence."""


class PauseSchema(BaseModel):
    """Pause of a queue, whose tasks no worker claims meanwhile."""

    model_config = ConfigDict(defer_build=True, from_attributes=True)

    queue: str
    paused_at: datetime
    paused_by: str = Field(
        description="User and host of the command that paused it, or the name given by a program."
    )
    reason: str | None = Field(default=None, description="Reason that was given.")

    def sentence(self) -> str:
        """Return the pause in one sentence, for people: its time is in this computer's time zone, with its name."""
        since = self.paused_at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        text = f"Queue {self.queue} is paused since {since} by {self.paused_by}"
        return f"{text} ({self.reason[:MAX_SHOWN]})." if self.reason else f"{text}."


def paused_names(dialect: str) -> Select[Any]:
    """Return the query of the names of those queues of the parameter `queues` that are paused."""
    return _paused(None).with_only_columns(PAUSE.c.queue).where(text_in(PAUSE.c.queue, "queues", dialect))


def pauses_of(db: Session, queues: Sequence[str] | None = None) -> list[PauseSchema]:
    """Return the pauses in force, of some queues or of all."""
    return [PauseSchema.model_validate(row) for row in db.execute(_paused(queues)).all()]


def _paused(queues: Sequence[str] | None) -> Any:
    query = select(PAUSE).where(PAUSE.c.resumed_at.is_(None)).order_by(PAUSE.c.queue)
    return query if queues is None else query.where(PAUSE.c.queue.in_(queues))
