"""Answers to the questions whether a task's budget is raised, once somebody has given the task another limit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, or_, select, update

from agentexec.activity.changes.progress import add_log_lines
from agentexec.activity.changes.statements import ACTIVITY, LOG
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.journal.question_rows import APPROVAL, IS_QUESTION, key_of, lock_tasks, make_due
from agentexec.journal.questions import PENDING, RAISE_BUDGET, Reply, answer_line, reply_phrase
from agentexec.task import Status


def answer_raises(connection: Connection, agent_id: UUID, reply: Reply, now: datetime) -> None:
    """Answer the open questions about a task's budget, its own and its children's, after its limit was replaced.

    The answers raise nothing: whoever has asked looks at the limit again. No task is locked, as thousands may wait.
    """
    c = APPROVAL.c
    its_tasks = or_(c.agent_id == agent_id, ACTIVITY.c.budget.contains(str(agent_id)))
    query = (
        select(c.agent_id, c.path, c.seq, c.arguments)
        .join(ACTIVITY, ACTIVITY.c.agent_id == c.agent_id)
        .where(c.status == PENDING, c.tool == RAISE_BUDGET, its_tasks)
    )
    # Compared here, as the column may be encrypted.
    found = [row for row in connection.execute(query) if f'ask {agent_id}"' in row.arguments]
    if not found:
        return
    answer = {"status": reply.answer, "decided_by": reply.by, "decided_from": reply.source}
    answer |= {"reason": reply.reason, "notice_at": None}
    moments = {"decided_at": now, "superseded_at": now, "wake_at": now}
    connection.execute(
        update(APPROVAL).where(*IS_QUESTION, c.status == PENDING).values(**answer, **moments),
        [key_of(row) for row in found],
    )


def untold_tasks(engine: Engine, now: datetime) -> list[UUID]:
    """Return the tasks with answers of this moment whose queues were not told of them."""
    c = APPROVAL.c
    query = select(c.agent_id).where(c.wake_at == now, c.superseded_at == now).distinct()
    with reading(engine) as connection:
        return sorted(connection.execute(query).scalars())


@retry_on_deadlock
def note_answers(engine: Engine, agent_ids: Sequence[UUID], reply: Reply, now: datetime) -> None:
    """Write the answers of a moment into the logs of their tasks, and make tasks due that wait for nothing else."""
    with writing(engine) as connection:
        tasks = lock_tasks(connection, agent_ids)
        open_or_new = or_(APPROVAL.c.status == PENDING, APPROVAL.c.superseded_at == now)
        rows = connection.execute(select(APPROVAL).where(APPROVAL.c.agent_id.in_(agent_ids), open_or_new))
        waiting: set[UUID] = set()
        lines: dict[UUID, list[str]] = {}
        for row in rows:
            if row.status == PENDING:
                waiting.add(row.agent_id)
            else:
                line = answer_line(row, reply.answer, reply_phrase(reply), reply.reason)
                lines.setdefault(row.agent_id, []).append(line)
        # A second call is safe: an earlier one may not have been confirmed.
        earlier = select(LOG.c.activity_id, LOG.c.message)
        earlier = earlier.where(LOG.c.activity_id.in_(agent_ids), LOG.c.created_at == now)
        known = {(agent_id, line) for agent_id, line in connection.execute(earlier)}
        active = [agent_id for agent_id, task in tasks.items() if not task.status.final]
        new = {key: [line for line in lines[key] if (key, line) not in known] for key in active}
        add_log_lines(connection, new, now)
        due = [key for key in active if tasks[key].status is Status.QUEUED and key not in waiting]
        make_due(connection, due)
