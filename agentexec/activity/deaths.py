"""Deaths of worker processes, as the log of a task tells them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from agentexec.task import Status

SUBJECT = "The worker process "

REQUEUED = "; the task goes back to the queue."

ENDED = " while it ran this task, "

UNKNOWN_REASON = "died without a word"
"""Reason where a later claim shows that the process is gone."""

_LINE = re.compile(f"{SUBJECT}(?P<reason>.+?)(?:{re.escape(REQUEUED)}$|{ENDED})", re.DOTALL)
_SIGNAL = re.compile(r"was killed by (SIG\w+|signal \d+)")


class Death(NamedTuple):
    """Death of a worker process that ran a task. `reason` completes "The worker process …"."""

    at: datetime
    reason: str
    signal: str | None


def requeued_line(reason: str) -> str:
    """Return the log line of a task that is QUEUED again because its process died."""
    return f"{SUBJECT}{reason}{REQUEUED}"


def ended_line(reason: str, times: str) -> str:
    """Return the log line and error of a task that is not tried again; `times` says how often its processes died."""
    return f"{SUBJECT}{reason}{ENDED}{times}; it is not tried again."


def read_death(at: datetime, status: Status, message: str) -> Death | None:
    """Return the death that a log line tells, or None for another line."""
    # A report of the handler has the status RUNNING, whatever its text.
    found = _LINE.match(message) if status in (Status.QUEUED, Status.ERROR) else None
    if found is None:
        return None
    reason = found["reason"]
    signal = _SIGNAL.search(reason)
    return Death(at, reason, signal and signal[1])
