"""State of the monitor: what was read, what is selected, and what the user is typing or being asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agentexec.activity.queries.overview import SpentSchema
from agentexec.activity.schemas import ActivityListItemSchema
from agentexec.cli.screen.actions import Question
from agentexec.cli.screen.data import Detail, Query, Snapshot

MESSAGE_SECONDS = 5.0
"""Seconds for which a message stays, unless another key is pressed."""

SORT_KEYS: dict[str, Callable[[Any], Any] | None] = {
    "status": None,
    "newest": lambda task: -task.created_at.timestamp(),
    "longest": lambda task: -(task.elapsed_seconds or 0),
    "task": lambda task: task.task_name,
}
"""Sort orders of a page's tasks; None keeps the order in which they were read."""


@dataclass
class State:
    """State of the monitor. Only the screen's thread touches it."""

    query: Query
    snapshot: Snapshot | None = None
    usage: SpentSchema | None = None
    detail: Detail | None = None
    opened: UUID | None = None
    """Task whose details are shown."""

    followed: UUID | None = None
    """Task that stays selected when it moves; None selects by position."""

    selected: int = 0
    """Position of the selected task on the page."""

    page: int = 0
    scroll: int = 0
    """First line of the details on the screen."""

    sort: str = "status"
    paused: bool = False
    help_open: bool = False
    filter_text: str | None = None
    """Filter that is being typed."""

    question: Question | None = None
    """Question that waits for an answer."""

    error: str = ""
    """Reason why the last refresh failed."""

    message: str = ""
    _message_at: float = 0.0

    def show_message(self, text: str) -> None:
        """Show a message for a few seconds."""
        self.message, self._message_at = text, time.monotonic()

    def expire_message(self) -> None:
        """Remove a message that was shown long enough."""
        if self.message and time.monotonic() - self._message_at > MESSAGE_SECONDS:
            self.message = ""

    def items(self) -> list[ActivityListItemSchema]:
        """Return the page's tasks in their sort order, and keep the followed one selected."""
        if self.snapshot is None:
            return []
        key = SORT_KEYS[self.sort]
        items = self.snapshot.items if key is None else sorted(self.snapshot.items, key=key)
        positions = [index for index, task in enumerate(items) if task.agent_id == self.followed]
        self.selected = positions[0] if positions else max(0, min(self.selected, len(items) - 1))
        return items

    def target(self) -> UUID | None:
        """Return the opened or selected task, which is followed from now on."""
        if self.opened is not None:
            return self.opened
        items = self.items()
        if not items:
            return None
        self.followed = items[self.selected].agent_id
        return self.followed
