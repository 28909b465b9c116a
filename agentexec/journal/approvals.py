"""Questions that a run has for a person, and their answers: rows that survive the worker and any number of restarts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, and_, insert, select, update

from agentexec.activity.changes.progress import add_log_lines
from agentexec.activity.changes.statements import ACTIVITY
from agentexec.activity.models import Activity
from agentexec.arguments.tool_arguments import check_arguments, same_arguments
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.errors import ActivityNotFoundError, ApprovalNotFoundError, UsageError
from agentexec.journal.approval_rules import MadeRule, NewRule, find_rules, make_rule, matches, save_rule
from agentexec.journal.ledger import has_limit
from agentexec.journal.models import Approval, ApprovalRule
from agentexec.journal.questions import (
    APPROVED,
    BY_POLICY,
    BY_TIME,
    EDITED,
    EXPIRED,
    MOOT,
    PAST_RUNS,
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
from agentexec.journal.store import require_lease
from agentexec.task import ACTIVE_STATUSES, Lease, Status

APPROVAL: Any = Approval.__table__

OF_PRESENT_RUN = ~APPROVAL.c.path.startswith(PAST_RUNS)
"""Condition on questions: those of runs that are over are only a record."""


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
                _set(connection, row, notice_at=None, **values)
                lines.append(
                    answer_line(row, "approved" if verdict.approved else "rejected", f" by the {BY_TIME}")
                )
            verdicts.append(verdict)
        add_log_lines(connection, lease.agent_id, lines, now)
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
    open_ones = [(question, row) for question, row in open_ones if _is_open(row, now)]
    rules = find_rules(connection, agent_id, now) if open_ones else []
    lines = []
    for question, row in open_ones:
        rule = next((rule for rule in rules if matches(rule, question.tool, question.arguments)), None)
        if rule is not None:
            lines.append(_answer_by_rule(connection, row, rule, now))
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


def _answer_by_rule(
    connection: Connection, question: Any, rule: Any, now: datetime, wake_at: datetime | None = None
) -> str:
    """Approve an open question by a rule, and return the line of the log about it."""
    by_rule = f"rule {rule.rule_id}"
    answer = {"status": APPROVED, "decided_from": by_rule, "rule_id": rule.rule_id, "decided_at": now}
    _set(connection, question, **answer, decided_by=rule.created_by, reason=rule.reason, notice_at=None, wake_at=wake_at)  # fmt: skip
    who = "" if rule.created_by is None else f" of {rule.created_by}"
    return answer_line(question, "approved", f" by {by_rule}{who}")


def verdict_on(question: Question, row: Any | None, now: datetime) -> Verdict:
    """Decide what is known of a question; `row` is None if it was not asked."""
    if row is None:
        return Verdict(MOOT, None, question.expires_at, is_superseded=True)
    if row.status == PENDING and not _is_open(row, now):
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
        others = [] if rule is None else _tasks_with_open_calls(connection, rule, now)
        tasks = lock_tasks(connection, {agent_id, *others})
        if (task := tasks.get(agent_id)) is None:
            raise ActivityNotFoundError(agent_id)
        rows = _rows(connection, agent_id)
        about_call = _about_call(rows, agent_id, call_id)
        question = next((row for row in about_call if _is_open(row, now)), None)
        if question is None or task.status.final:
            return Decision(any(row.decided_at == now and row.status in reply.statuses for row in about_call))
        reply = _fitted(question, reply)
        if rule is not None:
            save_rule(connection, rule)
            reply = reply._replace(made_rule=rule.row.rule_id)
        is_last = sum(_is_open(row, now) for row in rows) == 1
        _set(connection, question, **_answered(reply, now), wake_at=now if is_last else None)
        _note_answer(connection, question, reply, task, is_last, now)
        return Decision(True, rule, _answer_open_calls(connection, tasks.values(), rule, now))


@retry_on_deadlock
def add_rule(
    engine: Engine, agent_id: UUID | None, new: NewRule, now: datetime
) -> tuple[MadeRule, list[UUID]]:
    """Save a rule that is made alone; return it and the tasks with open questions that it has answered."""
    with writing(engine) as connection:
        rule = make_rule(connection, agent_id, new, None, now)
        tasks = lock_tasks(connection, _tasks_with_open_calls(connection, rule, now))
        save_rule(connection, rule)
        return rule, _answer_open_calls(connection, tasks.values(), rule, now)


@retry_on_deadlock
def answer_by_rule(engine: Engine, rule: MadeRule, now: datetime) -> list[UUID]:
    """Answer open questions that match a rule, those of CHUNK_SIZE tasks at most; return the tasks."""
    with writing(engine) as connection:
        tasks = lock_tasks(connection, _tasks_with_open_calls(connection, rule, now))
        return _answer_open_calls(connection, tasks.values(), rule, now)


def _tasks_with_open_calls(connection: Connection, rule: MadeRule, now: datetime) -> list[UUID]:
    """Return the tasks in a rule's scope that have open questions which match it, CHUNK_SIZE at most."""
    query = (
        select(APPROVAL)
        .join(Activity, Activity.agent_id == APPROVAL.c.agent_id)
        .where(APPROVAL.c.status == PENDING, Activity.status.in_(ACTIVE_STATUSES), *rule.its_tasks)
    )
    found: set[UUID] = set()
    for row in connection.execute(query):
        if _is_open(row, now) and _is_answered(row, rule.row):
            found.add(row.agent_id)
            if len(found) == CHUNK_SIZE:
                break
    return sorted(found)


def _answer_open_calls(
    connection: Connection, tasks: Iterable[Any], rule: MadeRule | None, now: datetime
) -> list[UUID]:
    """Answer the open questions of locked tasks that match a rule, and return those of the tasks that had any."""
    if rule is None:
        return []
    return [
        task.agent_id
        for task in tasks
        if not task.status.final and _answer_calls_of(connection, task, rule.row, now)
    ]


def _answer_calls_of(connection: Connection, task: Any, rule: ApprovalRule, now: datetime) -> bool:
    """Answer the open questions of a task that match a rule; False if it has none."""
    rows = [row for row in _rows(connection, task.agent_id) if _is_open(row, now)]
    matching = [row for row in rows if _is_answered(row, rule)]
    is_last = len(matching) == len(rows)
    wake_at = now if is_last else None
    lines = [_answer_by_rule(connection, row, rule, now, wake_at) for row in matching]
    add_log_lines(connection, task.agent_id, lines, now)
    if lines and is_last and task.status is Status.QUEUED:
        make_due(connection, task.agent_id)
    return bool(lines)


def _is_answered(question: Any, rule: ApprovalRule) -> bool:
    return follows_rules(question) and matches(rule, question.tool, question.arguments)


def lock_tasks(connection: Connection, agent_ids: Collection[UUID]) -> dict[UUID, Any]:
    """Lock tasks in the order of their keys, and return their state."""
    if not agent_ids:
        return {}
    query = select(ACTIVITY.c.agent_id, ACTIVITY.c.status, ACTIVITY.c.percentage)
    query = query.where(ACTIVITY.c.agent_id.in_(agent_ids)).order_by(ACTIVITY.c.agent_id)
    return {row.agent_id: row for row in connection.execute(query.with_for_update())}


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
    about_call = [] if reply.rule is None else _about_call(_rows(connection, agent_id), agent_id, call_id)
    question = next((row for row in about_call if _is_open(row, now)), None)
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


def follows_rules(question: Any) -> bool:
    """Return True for the row of a question about a call of a tool, which a rule may answer."""
    return question.kind == "approval" and question.arguments_schema is not None


def _note_answer(
    connection: Connection, question: Any, reply: Reply, task: Any, is_last: bool, now: datetime
) -> None:
    """Write the answer into the task's log; the last one also makes a task that is off its worker due."""
    line = answer_line(question, reply.answer, reply_phrase(reply), reply.reason)
    add_log_lines(connection, question.agent_id, [line], now)
    if is_last and task.status is Status.QUEUED:
        make_due(connection, question.agent_id)


def make_due(connection: Connection, agent_id: UUID) -> None:
    """Let a task that is off its worker wait for nothing. Its row is locked."""
    connection.execute(update(ACTIVITY).where(ACTIVITY.c.agent_id == agent_id).values(run_at=None))


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


def _is_open(row: Any, now: datetime) -> bool:
    return row.status == PENDING and (row.expires_at is None or row.expires_at > now)


def _rows(connection: Connection, agent_id: UUID) -> list[Any]:
    query = select(APPROVAL).where(APPROVAL.c.agent_id == agent_id, OF_PRESENT_RUN)
    return list(connection.execute(query.order_by(APPROVAL.c.created_at, APPROVAL.c.path, APPROVAL.c.seq)))


def _rows_by_place(connection: Connection, agent_id: UUID) -> dict[tuple[str, int], Any]:
    return {(row.path, row.seq): row for row in _rows(connection, agent_id)}


def _set(connection: Connection, row: Any, **values: Any) -> None:
    key = and_(APPROVAL.c.agent_id == row.agent_id, APPROVAL.c.path == row.path, APPROVAL.c.seq == row.seq)
    connection.execute(update(APPROVAL).where(key).values(values))


def asked_paths(engine: Engine, agent_id: UUID) -> frozenset[str]:
    """Return the paths of all calls that a task has asked about."""
    query = select(APPROVAL.c.path).where(APPROVAL.c.agent_id == agent_id, APPROVAL.c.kind == "approval")
    query = query.where(OF_PRESENT_RUN)
    with reading(engine) as connection:
        return frozenset(connection.execute(query).scalars())
