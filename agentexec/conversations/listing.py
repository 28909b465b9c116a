"""Conversations as people see them: which there are, and who may see them, by the labels that they began with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine, select, tuple_

from agentexec.activity.queries.labels import label_rows, wanted_labels
from agentexec.conversations.locking import CONVERSATION
from agentexec.db.transactions import looking_up, reading
from agentexec.errors import ConversationNotFoundError

MAX_LISTED = 1000
"""Conversations that are listed at most."""

SEARCHED = 10_000
"""Conversations in which labels are looked for, those that changed last."""

PAGE = 500

_LISTED = select(
    *(CONVERSATION.c[name] for name in ("id", "task", "last_message", "created_at", "updated_at"))
)
_LISTED = _LISTED.add_columns(CONVERSATION.c["metadata"].label("labels"))


class ConversationSchema(BaseModel):
    """A conversation."""

    model_config = ConfigDict(defer_build=True)

    id: str
    task: str | None = Field(
        default=None, description="Task of its turns; null if only a session has used it."
    )
    metadata: dict[str, Any] | None = Field(default=None, description="Labels of all of its turns.")
    messages: int = Field(description="Number of messages that were sent to it.")
    created_at: datetime
    updated_at: datetime


def list_conversations(
    engine: Engine, *, limit: int, metadata_filter: Mapping[str, Any] | None = None
) -> list[ConversationSchema]:
    """Return the conversations that changed last, the latest first.

    Args:
        engine: The record's database.
        limit: Number of conversations at most.
        metadata_filter: Values that their metadata must have, looked for in the 10,000 that changed last.
    """
    wanted, found = set(wanted_labels(metadata_filter)), []
    for row in _newest(engine, PAGE if wanted else limit, SEARCHED if wanted else limit):
        if wanted <= set(label_rows(row.labels)):
            found.append(_schema(row))
            if len(found) == limit:
                break
    return found


def find_visible(
    engine: Engine, conversation: str, metadata_filter: Mapping[str, Any] | None = None
) -> ConversationSchema:
    """Return a conversation. Raises ConversationNotFoundError, also if its metadata does not have these values."""
    with looking_up(engine) as connection:
        row = connection.execute(_LISTED.where(CONVERSATION.c.id == conversation)).one_or_none()
    if row is None or not set(wanted_labels(metadata_filter)) <= set(label_rows(row.labels)):
        raise ConversationNotFoundError(conversation)
    return _schema(row)


def _newest(engine: Engine, page: int, maximum: int) -> Iterator[Any]:
    """Yield conversations in the order of their latest change."""
    order = (CONVERSATION.c.updated_at, CONVERSATION.c.id)
    query = _LISTED.order_by(*(column.desc() for column in order)).limit(page)
    seen, rows = 0, None
    while rows is None or (len(rows) == page and seen < maximum):
        after = query if rows is None else query.where(tuple_(*order) < (rows[-1].updated_at, rows[-1].id))
        with reading(engine) as connection:
            rows = connection.execute(after).all()
        seen += len(rows)
        yield from rows


def _schema(row: Any) -> ConversationSchema:
    return ConversationSchema(
        id=row.id,
        task=row.task,
        metadata=row.labels,
        messages=row.last_message,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
