"""Questions that a run has for a person, and their answers: rows that survive the worker and any number of restarts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, and_, insert, select, update

from agentexec.activity.changes.statements import ACTIVITY, INSERT_LOG
from agentexec.activity.changes.transitions import log_row
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
    """May a call be made (`approval`), or made again after it was cut off (`repeat`)? `arguments` is JSON text."""

    path: str
    seq: int
    kind: QuestionKind
    tool: str
    arguments: str
    expires_at: datetime | None = None

    @property
    def call_id(self) -> str:
        """What a person names the call by."""
        return self.path.rpartition("/")[2]

    @property
    def call(self) -> str:
        """The call for a line in the log."""
        return call_text(self.tool, self.arguments)


class Verdict(NamedTuple):
    """What is known of a question. `message`: what the model is to be told of a rejection."""

    status: str
    message: str | None
    expires_at: datetime | None

    @property
    def decided(self) -> bool:
        return self.status != PENDING

    @property
    def approved(self) -> bool:
        return self.status == APPROVED


def call_text(tool: str, arguments: str) -> str:
    """A call with as much of its arguments as a line takes."""
    short = arguments if len(arguments) <= MESSAGE_CHARS else f"{arguments[:MESSAGE_CHARS]}…"
    return f"{tool}({short})"


def ask(engine: Engine, lease: Lease, questions: Sequence[Question], now: datetime) -> list[Verdict]:
    """Note questions that are not noted yet, let those expire whose time is over, and return what is known of each.

    Raises LeaseLostError where another worker has the task, UnavailableError.
    """
    with writing(engine) as connection:
        require_lease(connection, lease)
        known = {(row.path, row.seq): row for row in _rows(connection, lease.agent_id)}
        fresh = [one for one in questions if (one.path, one.seq) not in known]
        if fresh:
            connection.execute(insert(APPROVAL), [_row(lease.agent_id, one, now) for one in fresh])
        verdicts = []
        for one in questions:
            row = known.get((one.path, one.seq))
            if row is None:
                verdicts.append(Verdict(PENDING, None, one.expires_at))
            elif row.status == PENDING and row.expires_at is not None and row.expires_at <= now:
                _set(connection, row, status=EXPIRED, decided_at=now)
                verdicts.append(Verdict(EXPIRED, None, row.expires_at))
            else:
                verdicts.append(Verdict(row.status, row.message, row.expires_at))
        return verdicts


def answer_question(
    engine: Engine, agent_id: UUID, call_id: str, answer: Answer, message: str | None, now: datetime
) -> bool:
    """Answer the oldest open question about a call; False if it was answered before, or the task has ended.

    Raises ActivityNotFoundError, ApprovalNotFoundError, UnavailableError.
    """
    with writing(engine) as connection:
        query = select(ACTIVITY.c.status, ACTIVITY.c.percentage).where(ACTIVITY.c.agent_id == agent_id)
        task = connection.execute(query.with_for_update()).one_or_none()
        if task is None:
            raise ActivityNotFoundError(agent_id)
        rows = _rows(connection, agent_id)
        about = [row for row in rows if call_id in (row.call_id, row.path)]
        if not about:
            raise ApprovalNotFoundError(agent_id, call_id)
        open_ = [row for row in about if _is_open(row, now)]
        if not open_ or task.status.final:
            return False
        row = open_[0]
        last = sum(_is_open(other, now) for other in rows) == 1
        _set(
            connection,
            row,
            status=answer,
            message=message,
            decided_at=now,
            wake_at=now if last else None,
        )
        line = f"{answer.capitalize()}: {call_text(row.tool, row.arguments)}"
        values: dict[str, Any] = {"message": line, "updated_at": now}
        if last and task.status is Status.QUEUED:
            values["run_at"] = None
        connection.execute(update(ACTIVITY).where(ACTIVITY.c.agent_id == agent_id).values(values))
        connection.execute(INSERT_LOG, [log_row(agent_id, now, task.status, line, task.percentage)])
        return True


def without_open_questions(engine: Engine, agent_ids: Sequence[UUID]) -> list[UUID]:
    """Those of some tasks that wait for no answer."""
    query = select(APPROVAL.c.agent_id).where(
        APPROVAL.c.agent_id.in_(agent_ids), APPROVAL.c.status == PENDING
    )
    with reading(engine) as connection:
        waiting = set(connection.execute(query).scalars())
    return [agent_id for agent_id in agent_ids if agent_id not in waiting]


def tasks_to_wake(engine: Engine, queue: str, before: datetime, limit: int) -> list[UUID]:
    """Tasks whose answers came before a moment, and whose queue was not told."""
    query = (
        select(APPROVAL.c.agent_id)
        .join(ACTIVITY, ACTIVITY.c.agent_id == APPROVAL.c.agent_id)
        .where(APPROVAL.c.wake_at < before, ACTIVITY.c.queue == queue)
        .limit(limit)
    )
    with reading(engine) as connection:
        return list(connection.execute(query).scalars())


def mark_woken(engine: Engine, agent_ids: Sequence[UUID]) -> None:
    """The queue was told of these tasks' answers."""
    chosen = and_(APPROVAL.c.agent_id.in_(agent_ids), APPROVAL.c.wake_at.is_not(None))
    with writing(engine, relaxed=True) as connection:
        connection.execute(update(APPROVAL).where(chosen).values(wake_at=None))


def _is_open(row: Any, now: datetime) -> bool:
    return row.status == PENDING and (row.expires_at is None or row.expires_at > now)


def _rows(connection: Connection, agent_id: UUID) -> list[Any]:
    query = select(APPROVAL).where(APPROVAL.c.agent_id == agent_id)
    return list(connection.execute(query.order_by(APPROVAL.c.created_at, APPROVAL.c.path, APPROVAL.c.seq)))


def _row(agent_id: UUID, question: Question, now: datetime) -> dict[str, Any]:
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
