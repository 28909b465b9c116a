"""Answers of a new rule to the questions that are open, a bounded number in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, and_, or_, select, update

from agentexec.activity.changes.progress import add_log_lines
from agentexec.activity.models import Activity
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.journal.approval_rules import MadeRule, NewRule, make_rule, matches, save_rule
from agentexec.journal.question_rows import (
    APPROVAL,
    IS_QUESTION,
    OF_PRESENT_RUN,
    follows_rules,
    is_open,
    key_of,
    lock_tasks,
    make_due,
)
from agentexec.journal.questions import APPROVED, PENDING, answer_line
from agentexec.task import ACTIVE_STATUSES, Status

Place = tuple[datetime, UUID]
"""Place of a question in the order in which a new rule answers them."""


@retry_on_deadlock
def add_rule(
    engine: Engine, agent_id: UUID | None, new: NewRule, now: datetime
) -> tuple[MadeRule, list[UUID]]:
    """Save a rule that is made alone; return it and the tasks with open questions that it has answered."""
    with writing(engine) as connection:
        rule = make_rule(connection, agent_id, new, None, now)
        tasks = lock_tasks(connection, tasks_to_answer(connection, rule, now))
        save_rule(connection, rule)
        return rule, answer_open_calls(connection, tasks.values(), rule, now)


def tasks_to_answer(connection: Connection, rule: MadeRule, now: datetime) -> set[UUID]:
    """Return tasks with open questions that match a rule: CHUNK_SIZE at most, and all unless very many questions are open."""
    return _page(connection, rule, now, None)[0]


def answer_by_rule(
    engine: Engine, rule: MadeRule, now: datetime, after: Place | None
) -> tuple[list[UUID], Place | None]:
    """Answer the open questions in a rule's scope that match it, CHUNK_SIZE at most, which come after a place.

    Returns the tasks whose questions are answered, and the place of the last question; None if there are no more.
    """
    with reading(engine, in_index_order=rule.row.scope == "metadata") as connection:
        found, place = _page(connection, rule, now, after)
    return _answer_calls_of(engine, found, rule, now) if found else [], place


def _page(
    connection: Connection, rule: MadeRule, now: datetime, after: Place | None
) -> tuple[set[UUID], Place | None]:
    c = APPROVAL.c
    query = select(APPROVAL).join(Activity, Activity.agent_id == c.agent_id)
    query = query.where(c.status == PENDING, Activity.status.in_(ACTIVE_STATUSES), *rule.its_tasks)
    if after is not None:
        created_at, agent_id = after
        is_after = and_(c.created_at == created_at, c.agent_id > agent_id)
        query = query.where(c.created_at >= created_at, or_(c.created_at > created_at, is_after))
    rows = connection.execute(query.order_by(c.created_at, c.agent_id).limit(CHUNK_SIZE)).all()
    found = {row.agent_id for row in rows if is_open(row, now) and _is_answered(row, rule.row)}
    if len(rows) < CHUNK_SIZE:
        return found, None
    # The page may have cut off further questions of this task.
    return {*found, rows[-1].agent_id}, (rows[-1].created_at, rows[-1].agent_id)


@retry_on_deadlock
def _answer_calls_of(
    engine: Engine, agent_ids: Collection[UUID], rule: MadeRule, now: datetime
) -> list[UUID]:
    with writing(engine) as connection:
        return answer_open_calls(connection, lock_tasks(connection, agent_ids).values(), rule, now)


def answer_open_calls(
    connection: Connection, tasks: Iterable[Any], rule: MadeRule | None, now: datetime
) -> list[UUID]:
    """Answer the open questions of locked tasks that match a rule, and return those of the tasks that had any."""
    if rule is None:
        return []
    active = {task.agent_id: task for task in tasks if not task.status.final}
    whole: list[Any] = []
    parts: list[dict[str, Any]] = []
    lines: dict[UUID, list[str]] = {}
    for agent_id, rows in _open_questions(connection, list(active), now).items():
        matching = [row for row in rows if _is_answered(row, rule.row)]
        lines[agent_id] = [line_of_rule(row, rule.row) for row in matching]
        if len(matching) == len(rows):
            whole.append(active[agent_id])
        else:
            parts += map(key_of, matching)
    _write_answers(connection, whole, parts, rule.row, now)
    add_log_lines(connection, lines, now)
    return [agent_id for agent_id, its_lines in lines.items() if its_lines]


def _open_questions(
    connection: Connection, agent_ids: Sequence[UUID], now: datetime
) -> dict[UUID, list[Any]]:
    c = APPROVAL.c
    query = select(APPROVAL).where(c.agent_id.in_(agent_ids), c.status == PENDING, OF_PRESENT_RUN)
    questions: dict[UUID, list[Any]] = {}
    for row in connection.execute(query.order_by(c.created_at, c.path, c.seq)):
        if is_open(row, now):
            questions.setdefault(row.agent_id, []).append(row)
    return questions


def _write_answers(
    connection: Connection, whole: Sequence[Any], parts: Sequence[Any], rule: Any, now: datetime
) -> None:
    """Approve all open questions of some tasks, which then wait for nothing, and single ones of others."""
    c = APPROVAL.c
    answer = update(APPROVAL).values(**answer_of_rule(rule, now))
    if whole:
        is_open_now = or_(c.expires_at.is_(None), c.expires_at > now)
        its_tasks = c.agent_id.in_([task.agent_id for task in whole])
        theirs = (its_tasks, c.status == PENDING, OF_PRESENT_RUN, is_open_now)
        connection.execute(answer.where(*theirs).values(wake_at=now))
        make_due(connection, [task.agent_id for task in whole if task.status is Status.QUEUED])
    if parts:
        connection.execute(answer.where(*IS_QUESTION), parts)


def _is_answered(question: Any, rule: Any) -> bool:
    return follows_rules(question) and matches(rule, question.tool, question.arguments)


def answer_of_rule(rule: Any, now: datetime) -> dict[str, Any]:
    """Return the values of a question that a rule approves."""
    return {
        "status": APPROVED,
        "decided_from": f"rule {rule.rule_id}",
        "rule_id": rule.rule_id,
        "decided_at": now,
        "decided_by": rule.created_by,
        "reason": rule.reason,
        "notice_at": None,
    }


def line_of_rule(question: Any, rule: Any) -> str:
    """Return the log line about a question that a rule approves."""
    who = "" if rule.created_by is None else f" of {rule.created_by}"
    return answer_line(question, "approved", f" by rule {rule.rule_id}{who}")
