"""Failed attempts, as the log of a task tells them."""

from __future__ import annotations

import re
from typing import NamedTuple

from agentexec.task import Status

_LINE = re.compile(
    r"Attempt (?P<attempt>\d{1,9}) failed with (?P<reason>.*?)"
    r"(?:; (?:the next one|attempt \d{1,9} of (?P<allowed>\d{1,9})) starts in \d+ s\.)?$",
    re.DOTALL,
)


class FailedAttempt(NamedTuple):
    """An attempt that raised. `allowed` is the number of attempts that the task had then, None if it is not known."""

    attempt: int
    reason: str
    allowed: int | None


def failed_line(attempt: int, allowed: int, reason: str, delay: float) -> str:
    """Return the log line of a task that is QUEUED again because its handler raised."""
    following = f"attempt {attempt + 1} of {max(allowed, attempt + 1)}"
    return f"Attempt {attempt} failed with {reason}; {following} starts in {delay:.0f} s."


def read_failure(status: Status, message: str) -> FailedAttempt | None:
    """Return the failed attempt that a log line tells, or None for another line."""
    # A report of the handler has the status RUNNING, whatever its text.
    found = _LINE.match(message) if status is Status.QUEUED else None
    if found is None:
        return None
    return FailedAttempt(
        int(found["attempt"]), found["reason"], int(found["allowed"]) if found["allowed"] else None
    )
