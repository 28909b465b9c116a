"""Webhook messages are delivered from the record: signed, retried, at least once."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select, update
from standardwebhooks import Webhook

from agentexec.activity.changes.endings import Ending, end
from agentexec.activity.models import ActivityResult, WebhookMessage
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading, writing
from agentexec.registry import Registry
from agentexec.task import Lease, Status
from agentexec.webhooks.messages import BACKOFF, MAX_RESULT
from agentexec.webhooks.record import CLAIM_SECONDS, claim_due
from agentexec.worker.follow_ups import FollowUps
from agentexec.worker.webhook_sender import WebhookSender
from tests.unit.webhooks.receiver import Receiver, open_receiver
from tests.unit.worker.record import QUEUE, Record, open_record

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


@pytest.fixture
def receiver() -> Generator[Receiver]:
    with open_receiver() as receiver:
        yield receiver


def ended(
    record: Record,
    url: str,
    status: Status = Status.COMPLETE,
    result: str | None = '{"answer": 42}',
    **values: Any,
) -> UUID:
    [task] = record.start(1)
    record.change(task, webhook=url, **values)
    error = None if status is Status.COMPLETE else "ValueError: no luck\nTraceback: secrets"
    with writing(record.runtime.engine) as connection:
        end(connection, Ending(Lease(task, 1), status, "It ended.", error=error), [task], utc_now())
        if result is not None and status is Status.COMPLETE:
            row = {"agent_id": task, "value": result, "expires_at": utc_now()}
            connection.execute(insert(ActivityResult).values(row))
    FollowUps(record.runtime.engine, Registry(), QUEUE).run_once(utc_now() + timedelta(minutes=2))
    return task


def sender(record: Record, **settings: Any) -> WebhookSender:
    given = {"webhook_secret": SECRET, "webhook_private_addresses": True, **settings}
    return WebhookSender(record.runtime.engine, Settings(**given))


def messages(record: Record) -> list[Any]:
    table: Any = WebhookMessage.__table__
    with reading(record.runtime.engine) as connection:
        return list(connection.execute(select(table).order_by(table.c.created_at)))


def make_due(record: Record) -> datetime:
    """Let the next attempts be due, and return when they would have been."""
    [before] = [message.next_at for message in messages(record) if message.next_at is not None]
    with writing(record.runtime.engine) as connection:
        connection.execute(update(WebhookMessage).values(next_at=utc_now()))
    return before


def test_a_completed_task_is_told_with_its_result_and_a_signature(record: Record, receiver: Receiver) -> None:
    task = ended(record, receiver.url, metadata_={"tenant": "a"}, attempt=2)
    assert sender(record).run_once() == 1
    [request] = receiver.received
    told = Webhook(SECRET).verify(
        request.body, {name.lower(): value for name, value in request.headers.items()}
    )
    assert told == json.loads(request.body)
    assert told["type"] == "task.completed"
    finished = told["data"].pop("finished_at")
    assert told["timestamp"] == finished and finished.endswith("Z")
    assert told["data"] == {
        "agent_id": str(task),
        "task_name": "work",
        "queue_name": QUEUE,
        "status": "complete",
        "attempts": 2,
        "metadata": {"tenant": "a"},
        "result": {"answer": 42},
    }
    [message] = messages(record)
    assert (message.state, message.attempts, message.outcome) == ("delivered", 1, "HTTP 204")
    assert message.next_at is None and message.body is None
    assert sender(record).run_once() == 0


def test_a_failure_tells_its_reason_without_the_traceback(record: Record, receiver: Receiver) -> None:
    ended(record, receiver.url, Status.ERROR)
    ended(record, receiver.url, Status.CANCELED)
    sender(record).run_once()
    told = sorted((json.loads(request.body) for request in receiver.received), key=lambda told: told["type"])
    assert [message["type"] for message in told] == ["task.canceled", "task.failed"]
    assert told[1]["data"]["error"] == "ValueError: no luck"
    assert "Traceback" not in str(told)


def test_a_large_result_is_left_out(record: Record, receiver: Receiver) -> None:
    ended(record, receiver.url, result=json.dumps("x" * MAX_RESULT), metadata_={"text": "x" * 20_000})
    sender(record).run_once()
    data = json.loads(receiver.received[0].body)["data"]
    assert (data["result"], data["result_omitted"]) == (None, True)
    assert (data["metadata"], data["metadata_omitted"]) == (None, True)


def test_attempts_are_repeated_for_a_day_with_the_same_id_and_body(
    record: Record, receiver: Receiver
) -> None:
    ended(record, receiver.url)
    receiver.answers = [(500, {})] * 20
    waits = []
    for _ in range(len(BACKOFF) + 1):
        asked = utc_now()
        sender(record).run_once()
        if messages(record)[0].next_at is not None:
            waits.append((make_due(record) - asked).total_seconds())
    assert all(low <= wait <= low * 1.1 + 60 for low, wait in zip(BACKOFF, waits, strict=True))
    assert 86_400 < sum(BACKOFF) < 2 * 86_400
    [message] = messages(record)
    assert (message.state, message.attempts, message.outcome) == ("failed", 8, "HTTP 500")
    assert sender(record).run_once() == 0
    ids = {request.headers["webhook-id"] for request in receiver.received}
    assert len(receiver.received) == 8
    assert ids == {f"msg_{message.message_id.hex}"}
    assert len({request.body for request in receiver.received}) == 1


def test_a_receiver_may_ask_for_a_longer_pause(record: Record, receiver: Receiver) -> None:
    ended(record, receiver.url)
    receiver.answers = [(429, {"retry-after": "900"})]
    asked = utc_now()
    sender(record).run_once()
    assert 900 <= (messages(record)[0].next_at - asked).total_seconds() < 1100


def test_410_ends_every_message_to_the_url(record: Record, receiver: Receiver) -> None:
    ended(record, receiver.url)
    receiver.answers = [(500, {})]
    sender(record).run_once()
    ended(record, receiver.url)
    ended(record, receiver.url + "/other")
    receiver.answers = [(410, {}), (410, {})]
    sender(record).run_once()
    states = {message.url[-6:]: message.state for message in messages(record)}
    assert set(states.values()) == {"failed"}
    assert all(message.next_at is None for message in messages(record))


def test_a_message_whose_sender_died_is_sent_again(record: Record, receiver: Receiver) -> None:
    ended(record, receiver.url)
    engine = record.runtime.engine
    [claimed] = claim_due(engine, utc_now(), 10)  # and then it was killed
    assert claim_due(engine, utc_now(), 10) == [], "another process leaves it alone at first"
    later = utc_now() + timedelta(seconds=CLAIM_SECONDS + 1)
    [again] = claim_due(engine, later, 10)
    assert again == claimed._replace(attempts=2)


def test_without_permission_private_addresses_get_nothing(
    record: Record, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    ended(record, receiver.url + "/t0ken")
    sender(record, webhook_private_addresses=False).run_once()
    [message] = messages(record)
    assert message.state == "pending", "whoever forgot the setting may add it"
    assert "127.0.0.1, which is not public; AGENTEXEC_WEBHOOK_PRIVATE_ADDRESSES=true" in message.outcome
    assert receiver.received == []
    assert "t0ken" not in caplog.text


def test_a_missing_secret_and_a_receiver_that_is_away_are_waited_for(
    record: Record, receiver: Receiver
) -> None:
    ended(record, receiver.url)
    sender(record, webhook_secret=None).run_once()
    [message] = messages(record)
    assert (message.state, message.attempts) == ("pending", 1)
    assert message.outcome == "AGENTEXEC_WEBHOOK_SECRET is not set where the workers run"
    with writing(record.runtime.engine) as connection:
        connection.execute(update(WebhookMessage).values(url="http://127.0.0.1:1/", next_at=utc_now()))
    sender(record).run_once()
    [message] = messages(record)
    assert (message.state, message.outcome) == ("pending", "127.0.0.1: Connection refused")


def test_a_row_that_somebody_else_wrote_harms_no_other(record: Record, receiver: Receiver) -> None:
    for url in ("gopher://x", "http://[", "http://127.0.0.1:99999/", receiver.url):
        ended(record, url, result="{")
    with writing(record.runtime.engine) as connection:
        connection.execute(update(WebhookMessage).where(WebhookMessage.url == "gopher://x").values(body=None))
    sender(record).run_once()
    assert len(receiver.received) == 1


def test_the_thread_sends_and_stops(record: Record, receiver: Receiver) -> None:
    ended(record, receiver.url)
    thread = sender(record)
    thread.start()
    deadline = time.monotonic() + 30
    while not receiver.received and time.monotonic() < deadline:
        time.sleep(0.01)
    thread.stop()
    assert len(receiver.received) == 1
