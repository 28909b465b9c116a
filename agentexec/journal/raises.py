"""Questions whether a task's budget is raised, once somebody has given the task another limit."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, select, update

from agentexec.db.transactions import reading
from agentexec.journal.models import Approval
from agentexec.journal.questions import PENDING, RAISE_BUDGET

_APPROVAL: Any = Approval.__table__


def supersede_raises(connection: Connection, agent_id: UUID, now: datetime) -> None:
    """Let the open questions about a task's budget, its own and its children's, raise nothing when they are answered.

    Whoever has asked them looks at the limit again then.
    """
    connection.execute(update(_APPROVAL).where(_about(agent_id)).values(superseded_at=now))


def open_raises(engine: Engine, agent_id: UUID) -> list[tuple[UUID, str]]:
    """Return the tasks that wait until a task's budget is raised, with the paths of their questions."""
    query = select(_APPROVAL.c.agent_id, _APPROVAL.c.path).where(_about(agent_id))
    with reading(engine) as connection:
        return [(row.agent_id, row.path) for row in connection.execute(query)]


def _about(agent_id: UUID) -> ColumnElement[bool]:
    """Return the condition for open questions about a task's budget: their arguments name its owner."""
    is_open = (_APPROVAL.c.status == PENDING) & (_APPROVAL.c.tool == RAISE_BUDGET)
    return is_open & _APPROVAL.c.arguments.like(f'%ask {agent_id}"%')
