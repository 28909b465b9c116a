"""The context of a conversation's turns, and its messages, items and events as callers see them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from agentexec.conversations.session import Session

IfBusy = Literal["queue", "steer", "interrupt", "reject"]
"""Fate of a message that is sent while a turn runs or waits."""

IF_BUSY: tuple[IfBusy, ...] = ("queue", "steer", "interrupt", "reject")

MessageState = Literal["waiting", "taken", "joined", "dropped"]


class Turn(BaseModel):
    """Context of a task that is the turn of a conversation: annotate the handler's `context` with it."""

    conversation: str
    """Id of the conversation."""
    text: str
    """The message."""

    @property
    def session(self) -> Session:
        """The history of the conversation, for `runner.run(..., session=context.session)`."""
        return Session(self.conversation)


class ConversationMessage(BaseModel):
    """A message that was sent to a conversation."""

    model_config = ConfigDict(defer_build=True)

    conversation: str
    """Id of the conversation."""
    number: int
    """Place of the message in the conversation, from 1."""
    text: str
    if_busy: IfBusy
    state: MessageState
    """`waiting` for its turn, `taken` by one, `joined` the turn that was running (steer), or `dropped`: its task was canceled
    before the turn began."""
    agent_id: UUID
    """Task of the turn that has the message, or of the one that waits to take it."""
    created_at: datetime
    taken_at: datetime | None = None


class HistoryItem(BaseModel):
    """An item of a conversation's history."""

    model_config = ConfigDict(defer_build=True)

    number: int
    """Number of the change that added it; numbers rise, with gaps."""
    item: dict[str, Any]
    """The item, in the form of the Agents SDK."""
    agent_id: UUID | None = None
    """Task of the turn that added it; None for an item from outside."""


class ConversationEvent(BaseModel):
    """Event of a conversation, from `chat.stream()`.

    `message` says that a turn has taken a message, or that one has joined it; its data are the message. The others are the
    events of the turn, see [`ActivityEvent`][agentexec.activity.ActivityEvent]. `id` is opaque; pass it as `after=` to
    resume the stream after this event.
    """

    model_config = ConfigDict(defer_build=True)

    id: str
    type: str
    at: datetime
    agent_id: UUID
    """Task of the turn."""
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def ends_turn(self) -> bool:
        """True for the last event of a turn."""
        return self.type in ("result", "error", "canceled")
