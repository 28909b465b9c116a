"""Questions as they are stored: their table, and what is read and changed in it under the lock of their task."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, select, update

from agentexec.activity.changes.statements import ACTIVITY
from agentexec.journal.models import Approval
from agentexec.journal.questions import PAST_RUNS, PENDING

APPROVAL: Any = Approval.__table__

OF_PRESENT_RUN = ~APPROVAL.c.path.startswith(PAST_RUNS)
"""Condition on questions: those of runs that are over are only a record."""


IS_QUESTION = (
    APPROVAL.c.agent_id == bindparam("its_task", type_=APPROVAL.c.agent_id.type),
    APPROVAL.c.path == bindparam("its_path", type_=APPROVAL.c.path.type),
    APPROVAL.c.seq == bindparam("its_seq"),
)
"""Condition on the question of which `key_of` returns the parameters."""


def change_question(connection: Connection, row: Any, **values: Any) -> None:
    """Change values of a question."""
    connection.execute(update(APPROVAL).where(*IS_QUESTION).values(values), key_of(row))


def key_of(row: Any) -> dict[str, Any]:
    """Return the parameters of IS_QUESTION."""
    return {"its_task": row.agent_id, "its_path": row.path, "its_seq": row.seq}


def is_open(row: Any, now: datetime) -> bool:
    """Return True for a question that has neither an answer nor expired."""
    return row.status == PENDING and (row.expires_at is None or row.expires_at > now)


def read_questions(connection: Connection, agent_id: UUID) -> list[Any]:
    """Return the questions of a task's present run, in the order in which they were asked."""
    query = select(APPROVAL).where(APPROVAL.c.agent_id == agent_id, OF_PRESENT_RUN)
    return list(connection.execute(query.order_by(APPROVAL.c.created_at, APPROVAL.c.path, APPROVAL.c.seq)))


def follows_rules(question: Any) -> bool:
    """Return True for the row of a question about a call of a tool, which a rule may answer."""
    return question.kind == "approval" and question.arguments_schema is not None


def lock_tasks(connection: Connection, agent_ids: Collection[UUID]) -> dict[UUID, Any]:
    """Lock tasks in the order of their keys, and return their state."""
    if not agent_ids:
        return {}
    query = select(ACTIVITY.c.agent_id, ACTIVITY.c.status, ACTIVITY.c.percentage)
    query = query.where(ACTIVITY.c.agent_id.in_(agent_ids)).order_by(ACTIVITY.c.agent_id)
    return {row.agent_id: row for row in connection.execute(query.with_for_update())}


def make_due(connection: Connection, agent_ids: Sequence[UUID]) -> None:
    """Let tasks that are off their workers wait for nothing. Their rows are locked."""
    if agent_ids:
        connection.execute(update(ACTIVITY).where(ACTIVITY.c.agent_id.in_(agent_ids)).values(run_at=None))
