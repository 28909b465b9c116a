"""Lock of a conversation in the record, which everything that adds to it holds until its commit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from agentexec.activity.queries.labels import label_rows
from agentexec.arguments.checks import check_text
from agentexec.conversations.models import MAX_ID, ConversationLabelRow, ConversationRow
from agentexec.errors import UsageError
from agentexec.journal.approval_rules import TURN_LOCK

CONVERSATION: Any = ConversationRow.__table__
LABEL: Any = ConversationLabelRow.__table__

_COUNTS = ("last_message", "last_taken", "last_item")
_ROW = select(
    CONVERSATION.c.id,
    CONVERSATION.c.task,
    CONVERSATION.c["metadata"].label("labels"),
    CONVERSATION.c.options,
    *(CONVERSATION.c[name] for name in _COUNTS),
)


def checked_id(value: Any) -> str:
    """Return the id of a conversation. Raises UsageError for a value that is none."""
    checked = check_text("The id of a conversation", value, MAX_ID)
    if checked in (".", ".."):
        # Browsers and proxies take them out of URLs, even if they are encoded.
        raise UsageError("The id of a conversation must not be a dot or two dots, which URLs cannot hold.")
    return checked


def lock_key_of(conversation: str) -> str:
    """Return the key of the lock that the turns of a conversation have."""
    return TURN_LOCK + conversation


def find_conversation(connection: Connection, conversation: str) -> Any:
    """Return the row of a conversation; None if there is none."""
    return connection.execute(_ROW.where(CONVERSATION.c.id == conversation)).one_or_none()


def lock_conversation(connection: Connection, conversation: str) -> Any:
    """Lock the row of a conversation and return it; None if there is none."""
    query = _ROW.where(CONVERSATION.c.id == conversation).with_for_update()
    return connection.execute(query).one_or_none()


def open_conversation(
    connection: Connection,
    conversation: str,
    now: datetime,
    *,
    task: str | None = None,
    labels: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Lock the row of a conversation, which is added if there is none, and return it.

    Raises IntegrityError if another process adds it at this moment: then the transaction is to be run again.
    """
    row = lock_conversation(connection, conversation)
    if row is None:
        values = {"id": conversation, "task": task, "metadata": labels or None, "options": options or None}
        counts = dict.fromkeys(_COUNTS, 0)
        connection.execute(insert(CONVERSATION).values(**values, **counts, created_at=now, updated_at=now))
        _add_labels(connection, conversation, labels)
        row = lock_conversation(connection, conversation)
    elif row.task is None and task is not None:
        # A session has used it before the first message.
        known = update(CONVERSATION).where(CONVERSATION.c.id == conversation)
        connection.execute(known.values(task=task, metadata=labels or None, options=options or None))
        _add_labels(connection, conversation, labels)
        row = lock_conversation(connection, conversation)
    return row


def _add_labels(connection: Connection, conversation: str, labels: Mapping[str, Any] | None) -> None:
    rows = [
        {"conversation_id": conversation, "name": name, "value": value} for name, value in label_rows(labels)
    ]
    if rows:
        connection.execute(insert(LABEL), rows)


def advance(connection: Connection, conversation: str, now: datetime, **counts: int) -> None:
    """Set the counts of a conversation that is locked."""
    mine = update(CONVERSATION).where(CONVERSATION.c.id == conversation)
    connection.execute(mine.values(updated_at=now, **counts))
