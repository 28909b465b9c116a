"""The attempt that the running code belongs to, for log lines and spans."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple
from uuid import UUID


class RunningAttempt(NamedTuple):
    """An attempt of a task, as log lines name it."""

    task: str
    agent_id: UUID
    attempt: int


CURRENT_ATTEMPT: ContextVar[RunningAttempt | None] = ContextVar("agentexec_attempt", default=None)
"""Attempt that runs the code, also in the threads of plain handlers; None outside a task."""
