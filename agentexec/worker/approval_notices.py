"""Notices of questions: `on_approval` handlers and webhooks are told of each call that waits for a person, and reminded.

Every host does this for the tasks that its module has, as with follow-ups. A question's next notice is set in the
transaction that acts on the last one, so each happens once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Select, and_, bindparam, or_, select, update

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.changes.statements import ACTIVITY
from agentexec.activity.models import Activity
from agentexec.activity.schemas import ApprovalRequest
from agentexec.client.enqueue import enqueue_in_transaction
from agentexec.db.clock import utc_now
from agentexec.db.columns import text_in
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import looking_up, writing
from agentexec.journal.question_rows import APPROVAL
from agentexec.journal.questions import APPROVED, PENDING
from agentexec.registry import Registry
from agentexec.task import new_agent_id
from agentexec.webhooks.messages import make_notice
from agentexec.webhooks.record import add_notice

CHUNK = 100
"""Questions in one transaction. Each may have arguments of a megabyte."""

MAX_CHUNKS = 10
"""Transactions of one turn, so that other duties have theirs."""

MAX_NOTICES = 21
"""Notices of one question: the first, and twenty reminders."""

FOREIGN_SECONDS = 60.0
"""Seconds for which the questions of a task that this host's module lacks are left to hosts that have it."""


class ApprovalNotices:
    """Enqueues the `on_approval` handlers of questions of some queues, or of all, and notes their webhook messages."""

    def __init__(self, engine: Engine, registry: Registry, *queues: str) -> None:
        self._engine = engine
        self._registry = registry
        self._queues = queues
        self.query = _due_query(engine.dialect.name, of_queues=bool(queues))
        """Query of what is due; see `values`."""

    def run_once(self, now: datetime | None = None) -> int:
        """Do what is due, an index look-up if nothing is, and return the number of tasks enqueued. Raises UnavailableError."""
        now, enqueued = now or utc_now(), 0
        for _ in range(MAX_CHUNKS):
            keys = self._due(now)
            if not keys:
                break
            noted, pushed = self._notify(keys, now)
            enqueued += pushed
            if len(keys) < CHUNK or not noted:
                break
        return enqueued

    def values(self, now: datetime) -> dict[str, Any]:
        """Return the parameters of the query."""
        return {
            "names": list(self._registry.names()),
            "queues": list(self._queues),
            "now": now,
            "foreign_question": now - timedelta(seconds=FOREIGN_SECONDS),
        }

    def _due(self, now: datetime) -> Sequence[Any]:
        with looking_up(self._engine) as connection:
            return connection.execute(self.query, self.values(now)).all()

    @retry_on_deadlock
    def _notify(self, keys: Sequence[Any], now: datetime) -> tuple[int, int]:
        """Tell of these questions; return the number of those told of here, and that of the tasks enqueued."""
        pushes: list[Callable[[], None]] = []
        noted = 0
        with writing(self._engine) as connection:
            for key in sorted(keys):
                # The task first, as those who answer do. Another host may have it locked and be frozen.
                locked = _TASK.where(Activity.agent_id == key.agent_id).with_for_update(skip_locked=True)
                task = connection.execute(locked).one_or_none()
                question = None if task is None else _find(connection, key, now)
                if question is None:
                    continue
                noted += 1
                if _is_open(question, task, now):
                    pushes += self._tell(connection, question, task, now)
                _set_next(connection, question, task, now)
        for push in pushes:
            push()
        return noted, len(pushes)

    def _tell(
        self, connection: Connection, question: Any, task: Any, now: datetime
    ) -> list[Callable[[], None]]:
        request = request_of(question, task)
        if question.webhook is not None:
            event, body = make_notice(request, now)
            add_notice(connection, question.agent_id, question.webhook, event, body, now)
        handlers = self._registry.handlers_of_approval(task.agent_type)
        return [enqueue_in_transaction(connection, self._call_of(name, request, task)) for name in handlers]

    def _call_of(self, handler: str, request: ApprovalRequest, task: Any) -> NewTask:
        """Return the task that calls a handler. It belongs to the same tenant, and has the same priority."""
        definition = self._registry.find(handler)
        own_queue = None if definition is None else definition.queue
        return NewTask(
            agent_id=new_agent_id(),
            task_name=handler,
            context=request.model_dump_json(),
            queue=own_queue or task.queue,
            priority=task.priority,
            run_at=None,
            metadata=task.labels,
            idempotency_key=None,
            fairness_key=task.fairness_key,
            fairness_weight=task.fairness_weight or 1.0,
            message=f"Called because task {task.agent_type} ({request.agent_id}) asks for approval.",
        )


_TASK = select(
    Activity.agent_type,
    Activity.queue,
    Activity.status,
    Activity.priority,
    Activity.metadata_.label("labels"),
    Activity.fairness_key,
    Activity.fairness_weight,
)


def _find(connection: Connection, key: Any, now: datetime) -> Any | None:
    """Return a question that is to be told of now; None if another host has been quicker."""
    mine = and_(APPROVAL.c.agent_id == key.agent_id, APPROVAL.c.path == key.path, APPROVAL.c.seq == key.seq)
    query = select(APPROVAL).where(mine, APPROVAL.c.notice_at <= now).with_for_update()
    return connection.execute(query).one_or_none()


def _is_open(question: Any, task: Any, now: datetime) -> bool:
    has_time = question.expires_at is None or question.expires_at > now
    return question.status == PENDING and has_time and not task.status.final and task.queue is not None


def _set_next(connection: Connection, question: Any, task: Any, now: datetime) -> None:
    """Set when the question is told of again, from now: reminders that were missed are not made up for."""
    told, seconds = (question.notices or 0) + 1, question.reminder_seconds
    has_next = seconds and seconds > 0 and told < MAX_NOTICES and _is_open(question, task, now)
    next_at = now + timedelta(seconds=seconds) if has_next else None
    mine = and_(
        APPROVAL.c.agent_id == question.agent_id,
        APPROVAL.c.path == question.path,
        APPROVAL.c.seq == question.seq,
    )
    connection.execute(update(APPROVAL).where(mine).values(notice_at=next_at, notices=told))


def request_of(question: Any, task: Any) -> ApprovalRequest:
    """Return a question as its handlers get it."""
    return ApprovalRequest(
        agent_id=question.agent_id,
        task_name=task.agent_type,
        queue_name=task.queue,
        call_id=question.call_id,
        kind="repeat" if question.kind == "repeat" else "approval",
        tool=question.tool,
        arguments=question.arguments,
        metadata=task.labels,
        asked_at=question.created_at,
        expires_at=question.expires_at,
        default="approve" if question.default_answer == APPROVED else "reject",
        reminder=question.notices or 0,
    )


def _due_query(dialect: str, *, of_queues: bool) -> Select[Any]:
    """Return the query of the questions that are due, which is part of one that is made every second."""
    c, moment = APPROVAL.c, APPROVAL.c.notice_at.type
    ours = or_(
        text_in(ACTIVITY.c.agent_type, "names", dialect),
        c.notice_at < bindparam("foreign_question", type_=moment),
    )
    query = (
        select(c.agent_id, c.path, c.seq)
        .join(ACTIVITY, ACTIVITY.c.agent_id == c.agent_id)
        .where(c.notice_at <= bindparam("now", type_=moment), ours)
        .order_by(c.notice_at)
        .limit(CHUNK)
    )
    return query.where(text_in(ACTIVITY.c.queue, "queues", dialect)) if of_queues else query
