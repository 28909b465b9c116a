"""The tables of conversations: one row each, its labels, the messages sent to it, and the items of its history."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from agentexec.activity.models import MAX_LABEL
from agentexec.config import CONF
from agentexec.db.base import Base
from agentexec.db.columns import BigId, ExactText, JsonObject, UtcDateTime
from agentexec.payloads.columns import Payload

MAX_ID = 180
"""Maximum characters of a conversation's id: the key of its lock has to hold it too."""

MAX_PLACE = 80

IdText = ExactText(MAX_ID)
"""Id of a conversation, compared exactly."""


class ConversationRow(Base):
    """A conversation. Its row is locked by whoever adds a message or an item, which gives them one order."""

    __tablename__ = f"{CONF.table_prefix}conversation"

    id: Mapped[str] = mapped_column(IdText, primary_key=True)
    task: Mapped[str | None] = mapped_column(
        String(255), doc="Task of its turns; none if only a session has used it."
    )
    labels: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata", JsonObject, doc="Metadata of its turns."
    )
    options: Mapped[dict[str, Any] | None] = mapped_column(
        JsonObject,
        doc="Queue, priority, fairness key and budget of its turns, if its first handle named them.",
    )
    last_message: Mapped[int] = mapped_column(BigInteger, doc="Number of the latest message.")
    last_taken: Mapped[int] = mapped_column(BigInteger, doc="Position of the message that was taken last.")
    last_item: Mapped[int] = mapped_column(BigInteger, doc="Number of the latest change of the history.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index(f"ix_{CONF.table_prefix}conversation_updated", "updated_at", "id"),)


class ConversationLabelRow(Base):
    """One value of a conversation's metadata, by which it is found; in the form of `ActivityLabel`."""

    __tablename__ = f"{CONF.table_prefix}conversation_label"

    conversation_id: Mapped[str] = mapped_column(
        IdText, ForeignKey(f"{CONF.table_prefix}conversation.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(ExactText(MAX_LABEL), primary_key=True)
    value: Mapped[str] = mapped_column(ExactText(MAX_LABEL), doc="As JSON; a long one as its hash.")

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}conversation_label_value", "name", "value", "conversation_id"),
    )


class MessageRow(Base):
    """A message that was sent to a conversation, and the turn that has it.

    `task_id` is the task that was enqueued with it. Two messages may exchange their tasks, because turns take messages in
    their order even if their tasks start in another one.
    """

    __tablename__ = f"{CONF.table_prefix}conversation_message"

    conversation_id: Mapped[str] = mapped_column(
        IdText, ForeignKey(f"{CONF.table_prefix}conversation.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(Payload)
    if_busy: Mapped[str] = mapped_column(String(10), doc="queue, steer, interrupt or reject.")
    state: Mapped[str] = mapped_column(String(10), doc="waiting, taken, joined or dropped.")
    task_id: Mapped[UUID] = mapped_column(Uuid, doc="The task that was enqueued for it.")
    turn_id: Mapped[UUID | None] = mapped_column(Uuid, doc="The task that took it, or that it joined.")
    position: Mapped[int | None] = mapped_column(
        BigInteger, doc="Place in the order in which turns took the messages."
    )
    idempotency_key: Mapped[str | None] = mapped_column(ExactText(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    taken_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}conversation_message_task", "task_id"),
        Index(f"ix_{CONF.table_prefix}conversation_message_state", "conversation_id", "state", "number"),
        Index(f"ix_{CONF.table_prefix}conversation_message_position", "conversation_id", "position"),
        Index(
            f"ix_{CONF.table_prefix}conversation_message_key",
            "conversation_id",
            "idempotency_key",
            unique=True,
        ),
    )


class ItemRow(Base):
    """An item of a history, in the form of the Agents SDK.

    Items are never changed or deleted: one that was removed from the history has the number of that change in
    `removed_by`. So the history of any moment can be read again, which is what a turn sees that runs again.
    """

    __tablename__ = f"{CONF.table_prefix}conversation_item"

    conversation_id: Mapped[str] = mapped_column(
        IdText, ForeignKey(f"{CONF.table_prefix}conversation.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    removed_by: Mapped[int | None] = mapped_column(BigInteger, doc="Number of the change that removed it.")
    turn_id: Mapped[UUID | None] = mapped_column(Uuid, doc="The task that added it.")
    place: Mapped[str | None] = mapped_column(ExactText(MAX_PLACE), doc="Place in that task.")
    item: Mapped[str] = mapped_column(Payload, doc="The item as JSON.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}conversation_item_turn", "turn_id", "place", unique=True),
    )
