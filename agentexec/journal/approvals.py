"""Questions that a run has for a person, and their answers: rows that survive the worker and any number of restarts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, and_, insert, select, update

from agentexec.activity.changes.progress import add_log_lines
from agentexec.arguments.tool_arguments import check_arguments, same_arguments
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.errors import ActivityNotFoundError, ApprovalNotFoundError, UsageError
from agentexec.journal.approval_rules import MadeRule, find_rules, make_rule, matches, save_rule
from agentexec.journal.ledger import has_limit
from agentexec.journal.question_rows import (
    APPROVAL,
    OF_PRESENT_RUN,
    change_question,
    follows_rules,
    is_open,
    lock_tasks,
    make_due,
    read_questions,
)
from agentexec.journal.questions import (
    APPROVED,
    BY_POLICY,
    BY_TIME,
    EDITED,
    EXPIRED,
    MOOT,
    PENDING,
    RAISE_BUDGET,
    REFUSED_MESSAGE,
    REJECTED,
    Question,
    Reply,
    Verdict,
    answer_line,
    reply_phrase,
)
from agentexec.journal.rule_answers import answer_of_rule, answer_open_calls, line_of_rule, tasks_to_answer
from agentexec.journal.store import require_lease
from agentexec.task import Lease, Status


def ask(engine: Engine, lease: Lease, questions: Sequence[Question], now: datetime) -> list[Verdict]:
    """Save the questions that are new, give those whose time is over their default answer, and return the verdicts.

    A question that matches a rule has its answer at once, and one about a limit that has changed is not asked. Raises LeaseLostError if another worker has the task,
    UnavailableError.
    """
    verdicts, has_asked = _ask(engine, lease, questions, now)
    if has_asked and not all(verdict.decided for verdict in verdicts):
        # A rule that was saved in the meantime did not see these questions, nor they the rule.
        verdicts, _ = _ask(engine, lease, questions, now)
    return verdicts


def _ask(
    engine: Engine, lease: Lease, questions: Sequence[Question], now: datetime
) -> tuple[list[Verdict], bool]:
    """Return the verdicts, and whether some of the questions are new."""
    with writing(engine) as connection:
        require_lease(connection, lease)
        rows = _rows_by_place(connection, lease.agent_id)
        new = [question for question in questions if (question.path, question.seq) not in rows]
        new = [
            question for question in new if question.limit is None or has_limit(connection, *question.limit)
        ]
        lines: list[str] = []
        if new:
            _insert(connection, lease.agent_id, new, now, lines)
            rows = _rows_by_place(connection, lease.agent_id)
        lines += _follow_rules(connection, lease.agent_id, questions, rows, now)
        if lines:
            rows = _rows_by_place(connection, lease.agent_id)
        verdicts = []
        for question in questions:
            row = rows.get((question.path, question.seq))
            verdict = verdict_on(question, row, now)
            if row is not None and verdict.status != row.status:
                values = {"status": verdict.status, "decided_at": now, "decided_from": BY_TIME}
                change_question(connection, row, notice_at=None, **values)
                lines.append(
                    answer_line(row, "approved" if verdict.approved else "rejected", f" by the {BY_TIME}")
                )
            verdicts.append(verdict)
        add_log_lines(connection, {lease.agent_id: lines}, now)
        return verdicts, bool(new)


def _follow_rules(
    connection: Connection,
    agent_id: UUID,
    questions: Sequence[Question],
    rows: Mapping[Any, Any],
    now: datetime,
) -> list[str]:
    """Answer the questions that match a rule, and return the lines of the log about them."""
    open_ones = [
        (question, rows[question.path, question.seq]) for question in questions if question.follows_rules
    ]
    open_ones = [(question, row) for question, row in open_ones if is_open(row, now)]
    rules = find_rules(connection, agent_id, now) if open_ones else []
    lines = []
    for question, row in open_ones:
        rule = next((rule for rule in rules if matches(rule, question.tool, question.arguments)), None)
        if rule is not None:
            change_question(connection, row, **answer_of_rule(rule, now))
            lines.append(line_of_rule(row, rule))
    return lines


def _insert(
    connection: Connection, agent_id: UUID, new: Sequence[Question], now: datetime, lines: list[str]
) -> None:
    """Save new questions. Those that a policy answers are answered, which adds to `lines` of the log."""
    values = []
    for question in new:
        row = question.values(agent_id, now)
        if question.terms.is_refused:
            lines.append(f"Rejected by the {BY_POLICY}: {question.call}")
            row |= {"status": REJECTED, "message": REFUSED_MESSAGE, "decided_from": BY_POLICY}
            row |= {"decided_at": now, "notice_at": None}
        values.append(row)
    connection.execute(insert(APPROVAL), values)


def verdict_on(question: Question, row: Any | None, now: datetime) -> Verdict:
    """Decide what is known of a question; `row` is None if it was not asked."""
    if row is None:
        return Verdict(MOOT, None, question.expires_at, is_superseded=True)
    if row.status == PENDING and not is_open(row, now):
        status = APPROVED if row.default_answer == APPROVED else EXPIRED
        return Verdict(status, None, row.expires_at)
    edited = row.decided_arguments if row.status == EDITED else None
    return Verdict(row.status, row.message, row.expires_at, edited, row.superseded_at is not None)


class Decision(NamedTuple):
    """Outcome of an answer: whether it has decided its question, the rule made with it, and the tasks that this has answered."""

    made: bool
    rule: MadeRule | None = None
    answered: Sequence[UUID] = ()


@retry_on_deadlock
def answer_question(engine: Engine, agent_id: UUID, call_id: str, reply: Reply, now: datetime) -> Decision:
    """Answer the oldest open question about a call; not made if there is none any more, or the task has ended.

    A second call with the same `now` is safe: it is made if the first one has answered the question.
    Raises ActivityNotFoundError, ApprovalNotFoundError, UnavailableError, and UsageError for arguments that the call
    cannot have.
    """
    with writing(engine) as connection:
        rule = _rule_of(connection, agent_id, call_id, reply, now)
        # Known before anything is locked: whoever locks several tasks does so in the order of their keys.
        others = [] if rule is None else tasks_to_answer(connection, rule, now)
        tasks = lock_tasks(connection, {agent_id, *others})
        if (task := tasks.get(agent_id)) is None:
            raise ActivityNotFoundError(agent_id)
        rows = read_questions(connection, agent_id)
        about_call = _about_call(rows, agent_id, call_id)
        question = next((row for row in about_call if is_open(row, now)), None)
        if question is None or task.status.final:
            return Decision(any(row.decided_at == now and row.status in reply.statuses for row in about_call))
        reply = _fitted(question, reply)
        if rule is not None:
            save_rule(connection, rule)
            reply = reply._replace(made_rule=rule.row.rule_id)
        is_last = sum(is_open(row, now) for row in rows) == 1
        change_question(connection, question, **_answered(reply, now), wake_at=now if is_last else None)
        _note_answer(connection, question, reply, task, is_last, now)
        return Decision(True, rule, answer_open_calls(connection, tasks.values(), rule, now))


def _about_call(rows: Sequence[Any], agent_id: UUID, call_id: str) -> list[Any]:
    """Return the questions about a call. Raises ApprovalNotFoundError if there are none."""
    found = [row for row in rows if call_id in (row.call_id, row.path)]
    if not found:
        raise ApprovalNotFoundError(agent_id, call_id)
    return found


def _rule_of(
    connection: Connection, agent_id: UUID, call_id: str, reply: Reply, now: datetime
) -> MadeRule | None:
    """Return the rule of a reply; None if it has none, or the call is decided. Raises UsageError for a rule about other calls."""
    about_call = (
        [] if reply.rule is None else _about_call(read_questions(connection, agent_id), agent_id, call_id)
    )
    question = next((row for row in about_call if is_open(row, now)), None)
    if reply.rule is None or question is None:
        return None
    decided = _fitted(question, reply).arguments or question.arguments
    rule = make_rule(connection, agent_id, reply.rule, (question.tool, decided), now)
    if not any(matches(rule.row, question.tool, arguments) for arguments in (decided, question.arguments)):
        raise UsageError(
            "The rule does not match the call that is approved with it; change its tool or its conditions, or make it alone."
        )
    return rule


def _answered(reply: Reply, now: datetime) -> dict[str, Any]:
    return {
        "status": reply.answer if reply.arguments is None else EDITED,
        "message": reply.message,
        "decided_arguments": reply.arguments,
        "decided_by": reply.by,
        "decided_from": reply.source,
        "reason": reply.reason,
        "rule_id": reply.made_rule,
        "decided_at": now,
        "notice_at": None,
    }


def _fitted(question: Any, reply: Reply) -> Reply:
    """Return a reply with changed arguments only if these are others than the model's.

    Raises UsageError for arguments that the call cannot have, and for a rule about anything but a call of a tool.
    """
    if reply.rule is not None and not follows_rules(question):
        raise UsageError("No rule can answer a question about a repeated call or a budget; approve it alone.")
    if reply.arguments is None or same_arguments(reply.arguments, question.arguments):
        return reply._replace(arguments=None)
    if question.arguments_schema is None:
        raise UsageError(
            f"The arguments of call {question.call_id} cannot be changed; approve it as it is, or reject it with a message."
        )
    check_arguments(reply.arguments, question.arguments_schema)
    return reply


def _note_answer(
    connection: Connection, question: Any, reply: Reply, task: Any, is_last: bool, now: datetime
) -> None:
    """Write the answer into the task's log; the last one also makes a task that is off its worker due."""
    line = answer_line(question, reply.answer, reply_phrase(reply), reply.reason)
    add_log_lines(connection, {question.agent_id: [line]}, now)
    if is_last and task.status is Status.QUEUED:
        make_due(connection, [question.agent_id])


def supersede_refused_raises(connection: Connection, agent_ids: Sequence[UUID], now: datetime) -> None:
    """Let raises of budgets that were rejected be asked for again: a person has put these tasks back on their queues."""
    if agent_ids:
        refused = and_(APPROVAL.c.tool == RAISE_BUDGET, APPROVAL.c.status.in_((REJECTED, EXPIRED)))
        mine = and_(APPROVAL.c.agent_id.in_(agent_ids), APPROVAL.c.superseded_at.is_(None), refused)
        connection.execute(update(APPROVAL).where(mine).values(superseded_at=now))


def without_open_questions(engine: Engine, agent_ids: Sequence[UUID]) -> list[UUID]:
    """Return the tasks that do not wait for an answer."""
    query = select(APPROVAL.c.agent_id).where(
        APPROVAL.c.agent_id.in_(agent_ids), APPROVAL.c.status == PENDING
    )
    with reading(engine) as connection:
        waiting = set(connection.execute(query).scalars())
    return [agent_id for agent_id in agent_ids if agent_id not in waiting]


def _rows_by_place(connection: Connection, agent_id: UUID) -> dict[tuple[str, int], Any]:
    return {(row.path, row.seq): row for row in read_questions(connection, agent_id)}


def asked_paths(engine: Engine, agent_id: UUID) -> frozenset[str]:
    """Return the paths of all calls that a task has asked about."""
    query = select(APPROVAL.c.path).where(APPROVAL.c.agent_id == agent_id, APPROVAL.c.kind == "approval")
    query = query.where(OF_PRESENT_RUN)
    with reading(engine) as connection:
        return frozenset(connection.execute(query).scalars())
