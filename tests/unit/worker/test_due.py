"""One query tells maintenance what is due, so that an idle host costs next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, insert

from agentexec.activity.models import FollowUp, WebhookMessage
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.journal.models import Approval, EventWait
from agentexec.registry import Registry
from agentexec.worker.approval_notices import ApprovalNotices
from agentexec.worker.due import Due, DueQuery
from agentexec.worker.follow_ups import FollowUps
from agentexec.worker.index_repair import PUSH_GRACE
from agentexec.worker.reconciler import Reconciler
from tests.unit.worker.record import QUEUE, Record, open_record

NOTHING = Due(False, False, False, False, False)
LONG_AGO = timedelta(minutes=5)


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


def due(record: Record, *indexed: str) -> DueQuery:
    engine, registry = record.runtime.engine, Registry()
    parts = FollowUps(engine, registry, QUEUE), ApprovalNotices(engine, registry, QUEUE)
    return DueQuery(engine, *parts, indexed)


def add(record: Record, model: type, **values: object) -> None:
    with writing(record.runtime.engine) as connection:
        connection.execute(insert(model).values(**values))


def follow_up(record: Record, agent_id: UUID) -> None:
    add(record, FollowUp, agent_id=agent_id, queue=QUEUE, created_at=utc_now(), is_failure=False)


def question(record: Record, agent_id: UUID, **values: object) -> None:
    facts = {
        "path": "Agent#1",
        "seq": 1,
        "call_id": "1",
        "kind": "approval",
        "tool": "pay",
        "arguments": "{}",
        "status": "pending",
    }
    add(record, Approval, agent_id=agent_id, created_at=utc_now(), **facts, **values)


def webhook(record: Record, agent_id: UUID) -> None:
    facts = {"event": "task.complete", "url": "https://example.com", "state": "pending", "attempts": 0}
    times = dict.fromkeys(("created_at", "updated_at", "next_at"), utc_now())
    add(record, WebhookMessage, message_id=uuid4(), agent_id=agent_id, body="{}", **facts, **times)


def event_wait(record: Record, agent_id: UUID) -> None:
    facts = {"name": "paid", "key": "1", "path": "", "created_at": utc_now()}
    add(record, EventWait, agent_id=agent_id, wake_at=utc_now() - LONG_AGO, **facts)


@pytest.mark.parametrize(
    ("make_due", "expected"),
    [
        (follow_up, NOTHING._replace(follow_ups=True)),
        (
            lambda record, task: question(record, task, notice_at=utc_now() - LONG_AGO),
            NOTHING._replace(notices=True),
        ),
        (
            lambda record, task: question(record, task, wake_at=utc_now() - LONG_AGO),
            NOTHING._replace(answers=True),
        ),
        (event_wait, NOTHING._replace(answers=True)),
        (lambda record, task: record.change(task, expires_at=utc_now()), NOTHING._replace(expirations=True)),
        (webhook, NOTHING._replace(webhooks=True)),
    ],
    ids=["follow-up", "notice", "answer", "event", "expiration", "webhook"],
)
def test_each_duty_is_found(record: Record, make_due: Callable[[Record, UUID], None], expected: Due) -> None:
    [task] = record.enqueue(1)
    assert due(record).look(utc_now()) == NOTHING
    make_due(record, task)
    assert due(record).look(utc_now()) == expected


def test_a_turn_without_anything_to_do_takes_one_look_up(record: Record) -> None:
    query = due(record, QUEUE)
    reconciler = Reconciler(record.runtime, Settings(queue_name=QUEUE), "host")
    reconciler.run_once(NOTHING)  # it leads from now on, and has looked at everything
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement.split()[0])

    event.listen(record.runtime.engine, "before_cursor_execute", note)
    reconciler.run_once(query.look(utc_now()))
    assert statements == ["SELECT"], "what is due, and whether a new task may lack its place on the queue"


def test_a_turn_knows_whether_recent_tasks_are_open(record: Record) -> None:
    query, now = due(record, QUEUE, "other"), utc_now()
    pushed = now - timedelta(seconds=PUSH_GRACE)
    [recent, old] = record.enqueue(2)
    record.change(old, created_at=now - LONG_AGO)
    assert query.look(now).none_until == pushed, "the push of the recent one may be on the way"
    record.change(recent, created_at=pushed)
    assert query.look(now).none_until is None
    assert due(record, "other").look(now).none_until == pushed
