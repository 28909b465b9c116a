"""Use of agents' sessions by tasks: two running tasks that use one session are found by a label that both have.

The label is a reserved one of the task, so that it needs no table of its own and goes with the task.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, insert, literal, or_, select
from sqlalchemy.exc import IntegrityError

from agentexec.activity.changes.statements import ACTIVITY, LABEL
from agentexec.db.round_trips import can_batch, write_then_read
from agentexec.db.transactions import has_single_writer, reading, writing
from agentexec.task import Status

PREFIX = "agentexec.session:"
"""Begin of the label's name; the digest of the session follows."""

MAX_CONSIDERED = 50
"""Tasks of a session, the newest first, among which the running ones are looked for: a session may have had thousands."""


class UsingTask(NamedTuple):
    """Another task that uses a session, and the name of the task that asked."""

    agent_id: UUID
    task_name: str
    asking_task: str


def note_session_use(engine: Engine, agent_id: UUID, digest: str) -> list[UsingTask]:
    """Record that a task uses a session; return the other running tasks that do, without its parent and children.

    The note is committed before the others are read, so of two tasks that start together at least one finds the other.
    Raises UnavailableError.
    """
    note, others = _statements(agent_id, f"{PREFIX}{digest}")
    if can_batch(engine.dialect):
        rows = write_then_read(engine, note, others)
    elif has_single_writer(engine):
        with writing(engine) as connection:
            connection.execute(note)
            rows = connection.execute(others).all()
    else:
        try:
            with writing(engine) as connection:
                connection.execute(note)
        except IntegrityError:
            pass  # another run of this task has noted it at the same moment
        with reading(engine) as connection:
            rows = connection.execute(others).all()
    return [UsingTask(*row) for row in rows]


def _statements(agent_id: UUID, name: str) -> tuple[Any, Any]:
    """Return the statement that notes the use, unless it is noted, and the query for the other tasks."""
    mine = LABEL.alias("mine")
    noted = select(literal(1)).where(mine.c.agent_id == agent_id, mine.c.name == name).exists()
    row = select(ACTIVITY.c.agent_id, literal(name), literal(""), ACTIVITY.c.created_at).where(
        ACTIVITY.c.agent_id == agent_id, ~noted
    )
    note = insert(LABEL).from_select(["agent_id", "name", "value", "created_at"], row)
    newest = (
        select(LABEL.c.agent_id)
        .where(LABEL.c.name == name, LABEL.c.value == "")
        .order_by(LABEL.c.created_at.desc(), LABEL.c.agent_id.desc())
        .limit(MAX_CONSIDERED)
        .subquery()
    )
    me = ACTIVITY.alias("me")
    others = (
        select(ACTIVITY.c.agent_id, ACTIVITY.c.agent_type, me.c.agent_type.label("asking_task"))
        .join(newest, newest.c.agent_id == ACTIVITY.c.agent_id)
        .join(me, me.c.agent_id == agent_id)
        .where(
            ACTIVITY.c.status == Status.RUNNING,
            ACTIVITY.c.agent_id != agent_id,
            # A parent that waits for its child has asked for it; it does not use the session at the same time.
            or_(ACTIVITY.c.parent_id.is_(None), ACTIVITY.c.parent_id != agent_id),
            or_(me.c.parent_id.is_(None), me.c.parent_id != ACTIVITY.c.agent_id),
        )
        .order_by(ACTIVITY.c.created_at)
    )
    return note, others
