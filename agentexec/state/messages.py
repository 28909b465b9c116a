"""Messages that a mailbox receives: a kind, a space, and what it is about, such as the agent_id of a task."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
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


MOVE = "move"
"""Kind of the message that a queue moves to another state backend: its name, and the mailbox of the process that moves it."""

LEFT = "left"
"""Kind of the answer to it, with the name of a worker process that claims none of the queue's tasks any more."""


def format_message(kind: str, subject: UUID | str) -> str:
    """Return the message of a kind about a task, or about something else that has a name."""
    return f"{kind} {subject}"


def parse_messages(messages: Iterable[str], kind: str) -> list[UUID]:
    """Return the tasks that the messages of a kind are about.

    Anybody with access to the state backend may have sent them, so a message without an agent_id is left out.
    """
    found: list[UUID] = []
    for text in _subjects(messages, kind):
        try:
            found.append(UUID(text))
        except ValueError:
            log.debug("A message does not name a task.")
    return found


def parse_moves(messages: Iterable[str]) -> list[tuple[str, str]]:
    """Return the queues that move, each with the mailbox for the answer. A message without both is left out."""
    subjects = (subject.partition(" ") for subject in _subjects(messages, MOVE))
    return [(queue, mailbox) for queue, _, mailbox in dict.fromkeys(subjects) if mailbox]


def parse_left(messages: Iterable[str]) -> list[str]:
    """Return the worker processes that have left a queue that moves."""
    return list(_subjects(messages, LEFT))


def _subjects(messages: Iterable[str], kind: str) -> Iterator[str]:
    parts = (message.partition(" ") for message in messages)
    return (subject for sent_kind, _, subject in parts if sent_kind == kind)
