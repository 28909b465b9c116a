"""Questions that a run has for a person, and their answers: rows that survive the worker and any number of restarts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, and_, insert, select, update

from agentexec.activity.changes.new_tasks import log_row
from agentexec.activity.changes.statements import ACTIVITY, INSERT_LOG
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.errors import ActivityNotFoundError, ApprovalNotFoundError
from agentexec.journal.models import Approval
from agentexec.journal.store import require_lease
from agentexec.task import Lease, Status

APPROVAL: Any = Approval.__table__

QuestionKind = Literal["approval", "repeat"]
Answer = Literal["approved", "rejected"]

PENDING, APPROVED, REJECTED, EXPIRED = "pending", "approved", "rejected", "expired"

MESSAGE_CHARS = 160
"""Characters of a call's arguments in the activity's message."""


class Question(NamedTuple):
    """Question to a person: may a call be made (`approval`), or made again after it was cut off (`repeat`)?

    `arguments` is JSON text.
    """

    path: str
    seq: int
    kind: QuestionKind
    tool: str
    arguments: str
    expires_at: datetime | None = None

    @property
    def call_id(self) -> str:
        """The name by which a person refers to the call."""
        return self.path.rpartition("/")[2]

    @property
    def call(self) -> str:
        """The call as a line of the log shows it."""
        return call_text(self.tool, self.arguments)


class Verdict(NamedTuple):
    """State of a question. `message` is the text that the model gets with a rejection, if the person gave one."""

    status: str
    message: str | None
    expires_at: datetime | None

    @property
    def decided(self) -> bool:
        """True once a person has answered or the time is over."""
        return self.status != PENDING

    @property
    def approved(self) -> bool:
        """True once a person has approved the call."""
        return self.status == APPROVED


def call_text(tool: str, arguments: str) -> str:
    """Return a call as one line, with the first MESSAGE_CHARS characters of its arguments."""
    short = arguments if len(arguments) <= MESSAGE_CHARS else f"{arguments[:MESSAGE_CHARS]}…"
    return f"{tool}({short})"


def earliest_expiry(verdicts: Sequence[Verdict]) -> datetime | None:
    """Return the moment at which the first of the open questions expires; None if none does."""
    open_ends = [verdict.expires_at for verdict in verdicts if not verdict.decided]
    return min((end for end in open_ends if end is not None), default=None)


def waiting_message(questions: Sequence[Question], verdicts: Sequence[Verdict]) -> str:
    """Return the log line of a task that waits for the answers to the questions that are open."""
    calls = ", ".join(
        question.call
        if question.kind == "approval"
        else f"{question.call}, which was cut off, to be made again"
        for question, verdict in zip(questions, verdicts, strict=True)
        if not verdict.decided
    )
    return f"Waiting for approval: {calls}"


def ask(engine: Engine, lease: Lease, questions: Sequence[Question], now: datetime) -> list[Verdict]:
    """Save the questions that are new, expire those whose time is over, and return the verdict on each.

    Raises LeaseLostError if another worker has the task, UnavailableError.
    """
    with writing(engine) as connection:
        require_lease(connection, lease)
        rows = {(row.path, row.seq): row for row in _rows(connection, lease.agent_id)}
        new = [question for question in questions if (question.path, question.seq) not in rows]
        if new:
            connection.execute(insert(APPROVAL), [_values(lease.agent_id, question, now) for question in new])
        verdicts = []
        for question in questions:
            row = rows.get((question.path, question.seq))
            verdict = verdict_on(question, row, now)
            if row is not None and verdict.status != row.status:
                _set(connection, row, status=verdict.status, decided_at=now)
            verdicts.append(verdict)
        return verdicts


def verdict_on(question: Question, row: Any | None, now: datetime) -> Verdict:
    """Decide what is known of a question; `row` is None if it was not asked before."""
    if row is None:
        return Verdict(PENDING, None, question.expires_at)
    if row.status == PENDING and not _is_open(row, now):
        return Verdict(EXPIRED, None, row.expires_at)
    return Verdict(row.status, row.message, row.expires_at)


@retry_on_deadlock
def answer_question(
    engine: Engine,
    agent_id: UUID,
    call_id: str,
    answer: Answer,
    message: str | None,
    now: datetime,
    by: str = "",
) -> bool:
    """Answer the oldest open question about a call; False if there is none any more, or the task has ended.

    `by` is the phrase that names who answers, for the task's log.

    A second call with the same `now` is safe: it returns True if the first one has answered the question.
    Raises ActivityNotFoundError, ApprovalNotFoundError, UnavailableError.
    """
    with writing(engine) as connection:
        query = select(ACTIVITY.c.status, ACTIVITY.c.percentage).where(ACTIVITY.c.agent_id == agent_id)
        task = connection.execute(query.with_for_update()).one_or_none()
        if task is None:
            raise ActivityNotFoundError(agent_id)
        rows = _rows(connection, agent_id)
        about_call = [row for row in rows if call_id in (row.call_id, row.path)]
        if not about_call:
            raise ApprovalNotFoundError(agent_id, call_id)
        question = next((row for row in about_call if _is_open(row, now)), None)
        if question is None or task.status.final:
            return (answer, now) in [(row.status, row.decided_at) for row in about_call]
        is_last = sum(_is_open(row, now) for row in rows) == 1
        _set(
            connection,
            question,
            status=answer,
            message=message,
            decided_at=now,
            wake_at=now if is_last else None,
        )
        _note_answer(connection, question, answer.capitalize() + by, task, is_last, now)
        return True


def _note_answer(
    connection: Connection, question: Any, answer: str, task: Any, is_last: bool, now: datetime
) -> None:
    """Write the answer into the task's log; the last one also makes a task that is off its worker due."""
    line = f"{answer}: {call_text(question.tool, question.arguments)}"
    values: dict[str, Any] = {"message": line, "updated_at": now}
    if is_last and task.status is Status.QUEUED:
        values["run_at"] = None
    connection.execute(update(ACTIVITY).where(ACTIVITY.c.agent_id == question.agent_id).values(values))
    connection.execute(INSERT_LOG, [log_row(question.agent_id, now, task.status, line, task.percentage)])


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
    query = select(APPROVAL).where(APPROVAL.c.agent_id == agent_id)
    return list(connection.execute(query.order_by(APPROVAL.c.created_at, APPROVAL.c.path, APPROVAL.c.seq)))


def _values(agent_id: UUID, question: Question, now: datetime) -> dict[str, Any]:
    return {
        "agent_id": agent_id,
        "call_id": question.call_id,
        "status": PENDING,
        "created_at": now,
        **question._asdict(),
    }


def _set(connection: Connection, row: Any, **values: Any) -> None:
    key = and_(APPROVAL.c.agent_id == row.agent_id, APPROVAL.c.path == row.path, APPROVAL.c.seq == row.seq)
    connection.execute(update(APPROVAL).where(key).values(values))
