"""What the monitor's keys do to a task. Each is done beside the screen and tells in a sentence what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple
from uuid import UUID

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.output import one_line

Scope = Mapping[str, str] | None


class Question(NamedTuple):
    """What is asked before something is done; without `act`, only what there is to say."""

    text: str
    act: Callable[[], str] | None = None


def cancel_action(agent_id: UUID, scope: Scope) -> Callable[[], str]:
    """Cancel a task."""

    def act() -> str:
        done = ax.cancel_sync(agent_id, metadata_filter=scope)
        return f"Task {agent_id} is canceled." if done else f"Task {agent_id} had ended."

    return act


def retry_action(agent_id: UUID, scope: Scope) -> Callable[[], str]:
    """Put a task back on its queue."""

    def act() -> str:
        done = ax.retry_sync(agent_id, metadata_filter=scope)
        return (
            f"Task {agent_id} is queued again." if done else "Only failed and canceled tasks can be retried."
        )

    return act


def approval_question(agent_id: UUID, scope: Scope) -> Question:
    """The oldest call of a task that waits for a person, with all its arguments."""
    with session() as db:
        waiting = ax.approvals.list(db, agent_id, metadata_filter=scope)
    if not waiting:
        return Question("No call of this task waits for approval.")
    one = waiting[0]

    def act() -> str:
        done = ax.approve_sync(agent_id, one.call_id, metadata_filter=scope)
        return f"The call of {one_line(one.tool)} is approved." if done else "The call was decided before."

    return Question(f"Approve {one_line(one.tool)}({one_line(one.arguments)}) of task {agent_id}?", act)
