"""Conversations as people see them: which there are, and who may see them, by the labels that they began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Engine, func, literal, select

from agentexec.activity.queries.labels import label_rows, wanted_labels
from agentexec.conversations.locking import CONVERSATION, LABEL
from agentexec.db.transactions import looking_up, reading
from agentexec.errors import ConversationNotFoundError

MAX_LISTED = 1000
"""Conversations that are listed at most."""

COUNTED = 20_000
"""Conversations with a label that are counted at most. Labels that so many have are found soon among the latest changes."""

_LISTED = select(
    *(CONVERSATION.c[name] for name in ("id", "task", "last_message", "created_at", "updated_at"))
)
_LISTED = _LISTED.add_columns(CONVERSATION.c["metadata"].label("labels"))
_OTHER = LABEL.alias("other")


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
    """Return conversations, those first that changed last.

    Args:
        engine: The record's database.
        limit: Maximum number.
        metadata_filter: Values that their metadata must have.
    """
    wanted = wanted_labels(metadata_filter)
    c = CONVERSATION.c
    query = _LISTED.order_by(c.updated_at.desc(), c.id.desc()).limit(limit)
    rarest = _rarest(engine, wanted)
    if rarest is not None:
        query = query.join(LABEL, LABEL.c.conversation_id == c.id).where(*_is(LABEL, rarest))
    query = query.where(*(_has(label) for label in wanted if label != rarest))
    with reading(engine, by_key_only=rarest is not None, in_index_order=rarest is None) as connection:
        return [_schema(row) for row in connection.execute(query)]


def _rarest(engine: Engine, wanted: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """Return the label to search by: the one that the fewest conversations have, None if many have each."""
    counts: dict[tuple[str, str], int] = {}
    with reading(engine, by_key_only=True) as connection:
        for label in wanted:
            some = select(LABEL.c.conversation_id).where(*_is(LABEL, label)).limit(COUNTED).subquery()
            counts[label] = connection.execute(select(func.count()).select_from(some)).scalar_one()
    found = min(counts, key=counts.__getitem__, default=None)
    return None if found is None or counts[found] >= COUNTED else found


def _is(table: Any, label: tuple[str, str]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.name == label[0], table.c.value == label[1]


def _has(label: tuple[str, str]) -> ColumnElement[bool]:
    """Return the condition that a conversation has a label, which no database turns into a join that begins with the label."""
    mine = _OTHER.c.conversation_id == CONVERSATION.c.id
    found = select(literal(1)).where(mine, *_is(_OTHER, label)).correlate(CONVERSATION)
    return found.scalar_subquery().is_not(None)


def find_visible(
    engine: Engine, conversation: str, metadata_filter: Mapping[str, Any] | None = None
) -> ConversationSchema:
    """Return a conversation. Raises ConversationNotFoundError, also if its metadata does not have these values."""
    with looking_up(engine) as connection:
        row = connection.execute(_LISTED.where(CONVERSATION.c.id == conversation)).one_or_none()
    if row is None or not set(wanted_labels(metadata_filter)) <= set(label_rows(row.labels)):
        raise ConversationNotFoundError(conversation)
    return _schema(row)


def _schema(row: Any) -> ConversationSchema:
    return ConversationSchema(
        id=row.id,
        task=row.task,
        metadata=row.labels,
        messages=row.last_message,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
