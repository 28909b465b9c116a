"""Webhook messages of a task, as a line and as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agentexec.arguments.webhooks import shown_url
from agentexec.cli.output import format_moment

MAX_OUTCOME = 300
"""Characters of the receiver's answer."""


def message_text(message: Any, now: datetime) -> str:
    """Return how the delivery of a message stands. Of its URL only the host is shown: a path may hold a token."""
    text = f"{message.event} to {shown_url(message.url)}: {message.state}"
    if message.attempts:
        text += f" after {message.attempts} attempt(s) ({(message.outcome or 'no answer yet')[:MAX_OUTCOME]})"
    if message.next_at is not None and message.next_at > now:
        text += f", next attempt {format_moment(message.next_at, now)}"
    return text


def message_json(message: Any) -> dict[str, Any]:
    """Return the delivery of a message as JSON data."""
    return {
        "webhook_id": f"msg_{message.message_id.hex}",
        "event": message.event,
        "to": shown_url(message.url),
        "state": message.state,
        "attempts": message.attempts,
        "outcome": None if message.outcome is None else message.outcome[:MAX_OUTCOME],
        "updated_at": message.updated_at.isoformat(),
        "next_at": None if message.next_at is None else message.next_at.isoformat(),
    }
