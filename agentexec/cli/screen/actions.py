"""Actions of the monitor's keys on a task. Each runs in the background and returns its outcome as a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple
from uuid import UUID

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.output import one_line

Scope = Mapping[str, str] | None


class Question(NamedTuple):
    """A question to answer before an action runs; without `act` just a message."""

    text: str
    act: Callable[[], str] | None = None


def ask_to_cancel(agent_id: UUID, scope: Scope) -> Question:
    """Return the question before a task is canceled."""

    def act() -> str:
        canceled = ax.cancel_sync(agent_id, metadata_filter=scope)
        return f"Task {agent_id} is canceled." if canceled else f"Task {agent_id} has already ended."

    return Question(f"Cancel task {agent_id}?", act)


def ask_to_retry(agent_id: UUID, scope: Scope) -> Question:
    """Return the question before a task is queued again."""

    def act() -> str:
        if ax.retry_sync(agent_id, metadata_filter=scope):
            return f"Task {agent_id} is queued again."
        return "Only failed and canceled tasks can be retried."

    return Question(f"Queue task {agent_id} again?", act)


def ask_to_approve(agent_id: UUID, scope: Scope) -> Question:
    """Read the task's oldest call that waits for approval, and return the question with all its arguments."""
    with session() as db:
        waiting = ax.approvals.list(db, agent_id, metadata_filter=scope)
    if not waiting:
        return Question("No call of this task waits for approval.")
    call = waiting[0]

    def act() -> str:
        decided = ax.approve_sync(agent_id, call.call_id, metadata_filter=scope)
        return f"Approved the call of {one_line(call.tool)}." if decided else "The call was already decided."

    return Question(f"Approve {one_line(call.tool)}({one_line(call.arguments)}) of task {agent_id}?", act)
