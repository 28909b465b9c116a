"""The rule for names of queues, which keeps each of them usable in `-Q high:3,default:1`."""

from __future__ import annotations

from typing import Any

from agentexec.arguments.checks import check_text, shown
from agentexec.errors import UsageError

MAX_QUEUE_NAME = 100
"""Maximum characters of a queue's name."""


def check_queue_name(name: str, value: Any) -> str:
    """Return the name of a queue, given by the argument `name`. Raises UsageError for what breaks the rule."""
    queue = check_stored_queue(name, value)
    if (problem := find_problem(queue)) is not None:
        raise UsageError(f"{name} {problem}: {shown(queue)}. Give the queue another name.")
    return queue


def check_stored_queue(name: str, value: Any) -> str:
    """Return a name that a queue may have had before there was the rule: any text that every database stores."""
    return check_text(name, value, MAX_QUEUE_NAME)


def find_problem(queue: str) -> str | None:
    """Return why a text cannot be the name of a new queue, as the end of a sentence; None if it can."""
    if " " in queue or not queue.isprintable():
        return "must not have blanks or control characters"
    if "," in queue or '"' in queue:
        return "must not have commas or double quotes"
    if ":" in queue and queue.rpartition(":")[2].isdecimal():
        return "must not end with a colon and a number, which would be a weight"
    return None
