"""Webhook messages are listed, and sent again on request: made from the record, under their old ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity, ActivityResult, WebhookMessage
from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.runtime import RUNTIME
from agentexec.task import new_agent_id
from agentexec.testing import Harness
from agentexec.worker.webhook_sender import WebhookSender
from tests.unit.webhooks.receiver import Receiver, open_receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

pool = ax.Pool()


@pool.task("work")
async def work(agent_id: UUID, context: dict[str, Any]) -> str:
    if context.get("fails"):
        raise ValueError("no luck")
    return "done"


@pytest.fixture
def harness() -> Iterator[Harness]:
    with ax.testing.harness(pool) as harness:
        yield harness


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with open_receiver() as receiver:
        yield receiver


def ended(harness: Harness, url: str, **options: Any) -> UUID:
    task = harness.enqueue("work", options.pop("context", {}), webhook=url, **options)
    harness.run_all()
    return task.agent_id


def send() -> int:
    settings = Settings(webhook_secret=SECRET, webhook_private_addresses=True)
    return WebhookSender(RUNTIME.engine, settings).run_once()


def listed(**options: Any) -> list[Any]:
    with Session(RUNTIME.engine) as db:
        return ax.webhooks.list(db, **options)


def give_up(*agent_ids: UUID) -> None:
    values = {"state": "failed", "next_at": None, "body": None, "attempts": 8, "outcome": "HTTP 500"}
    with RUNTIME.engine.begin() as connection:
        connection.execute(
            update(WebhookMessage).where(WebhookMessage.agent_id.in_(agent_ids)).values(**values)
        )


def data(receiver: Receiver, place: int = -1) -> Any:
    return json.loads(receiver.received[place].body)["data"]


def test_messages_are_listed_without_the_secrets_in_their_urls(harness: Harness) -> None:
    first = ended(harness, "https://example.com/t0ken", metadata={"tenant": "a"})
    second = ended(harness, "https://example.org/t0ken", context={"fails": True})
    assert [(message.agent_id, message.event) for message in listed()] == [
        (second, "task.failed"),
        (first, "task.completed"),
    ]
    assert "t0ken" not in str(listed()) and listed()[1].to == "https://example.com"
    assert [message.agent_id for message in listed(metadata_filter={"tenant": "a"})] == [first]
    assert [message.agent_id for message in listed(task=second)] == [second]
    assert listed(state="failed") == listed(task_name="other") == []
    assert len(listed(limit=1)) == 1
    with pytest.raises(ax.UsageError, match="the states are pending, delivered, failed"):
        listed(state="lost")


def test_a_message_that_was_given_up_is_sent_again_with_its_id_and_new_attempts(
    harness: Harness, receiver: Receiver
) -> None:
    task = ended(harness, receiver.url)
    assert send() == 1
    give_up(task)
    assert send() == 0
    assert ax.webhooks.resend_sync(task)
    assert (listed()[0].state, listed()[0].attempts) == ("pending", 0)
    assert send() == 1
    assert (listed()[0].state, listed()[0].attempts) == ("delivered", 1)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == listed()[0].webhook_id
    assert first.body == second.body


def test_a_pending_message_is_tried_now(harness: Harness, receiver: Receiver) -> None:
    task = ended(harness, receiver.url)
    receiver.answers = [(500, {})]
    assert (send(), send()) == (1, 0)
    assert ax.webhooks.resend_sync(task)
    assert send() == 1 and listed()[0].attempts == 2


def test_a_result_that_was_removed_is_said_to_be_left_out(harness: Harness, receiver: Receiver) -> None:
    task = ended(harness, receiver.url)
    send()
    with RUNTIME.engine.begin() as connection:
        connection.execute(delete(ActivityResult))
        connection.execute(update(Activity).values(finished_at=utc_now() - timedelta(days=1)))
    assert ax.webhooks.resend_sync(task) and send() == 1
    assert "result_omitted" not in data(receiver, 0)
    assert (data(receiver)["result"], data(receiver)["result_omitted"]) == (None, True)


def test_what_has_no_message_is_not_sent(harness: Harness) -> None:
    with pytest.raises(ax.ActivityNotFoundError):
        ax.webhooks.resend_sync(new_agent_id())
    quiet = harness.run("work", {})
    assert not ax.webhooks.resend_sync(quiet.agent_id)
    waiting = harness.enqueue("work", {}, webhook="https://example.com")
    assert not ax.webhooks.resend_sync(waiting)
    ended = harness.run("work", {}, webhook="https://example.com")
    assert ax.webhooks.resend_sync(ended.agent_id), "its message is about to be made"
    harness.run_all()
    assert len(listed(task=ended.agent_id)) == 1


def test_a_task_that_was_retried_since_tells_of_its_new_end_only(harness: Harness) -> None:
    task = ended(harness, "https://example.com", context={"fails": True})
    give_up(task)
    assert ax.retry_sync(task)
    assert not ax.webhooks.resend_sync(task)
    harness.run_all()
    assert [message.state for message in listed(task=task)] == ["pending", "failed"]
    assert ax.webhooks.resend_failed_sync() == 1, "the latest message is sent, once"
    assert [message.state for message in listed(task=task)] == ["pending", "failed"]


def test_all_failed_messages_are_sent_again_in_batches(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentexec.webhooks.deliveries.BATCH", 2)
    tasks = [ended(harness, "https://example.com", metadata={"tenant": name}) for name in "aaab"]
    give_up(*tasks[:3])
    assert ax.webhooks.resend_failed_sync(metadata_filter={"tenant": "b"}) == 0
    assert ax.webhooks.resend_failed_sync(since=utc_now() + timedelta(hours=1)) == 0
    assert ax.webhooks.resend_failed_sync() == 3
    assert listed(state="failed") == []
    assert ax.webhooks.resend_failed_sync() == 0
