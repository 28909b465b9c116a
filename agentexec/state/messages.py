"""Messages that a mailbox receives: a kind, a space, and the agent_id of a task."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from uuid import UUID

log = logging.getLogger("agentexec.signals")

DONE = "done"
"""Kind of the message that a task has ended, for the mailboxes that watch it."""

CANCEL = "cancel"
"""Kind of the message that a task is canceled, for the worker process that runs it."""

EVENTS = "events"
"""Kind of the message that a task has new live events, for the mailboxes that follow it."""


QUEUES = "queues"
"""The message that a queue was paused or resumed, for the worker processes that serve it."""


def format_message(kind: str, agent_id: UUID | str) -> str:
    """Return the message of a kind about a task."""
    return f"{kind} {agent_id}"


def parse_messages(messages: Iterable[str], kind: str) -> list[UUID]:
    """Return the tasks that the messages of a kind are about.

    Anybody with access to the state backend may have sent them, so a message without an agent_id is left out.
    """
    found: list[UUID] = []
    for message in messages:
        sent_kind, _, text = message.partition(" ")
        if sent_kind == kind:
            try:
                found.append(UUID(text))
            except ValueError:
                log.debug("A message does not name a task.")
    return found
