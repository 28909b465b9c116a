"""`agentexec webhooks`: what operators see of deliveries, and how they send messages again."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import update

import agentexec as ax
from agentexec.activity.changes.endings import Ending, end
from agentexec.activity.models import Activity, WebhookMessage
from agentexec.db.clock import utc_now
from agentexec.db.transactions import writing
from agentexec.registry import Registry
from agentexec.runtime import RUNTIME
from agentexec.task import Lease, new_agent_id
from agentexec.worker.follow_ups import FollowUps
from tests.deployment import Deploy, Deployment, on_targets, run_in_process


@pytest.fixture
def deployment(deploy: Deploy) -> Generator[Deployment]:
    """Deployment without worker processes."""
    yield deploy()


def fail(url: str = "https://example.com/t0ken") -> UUID:
    """Enqueue a task that fails, and whose message was given up."""
    task = ax.enqueue_sync("work", {}, webhook=url).agent_id
    with writing(RUNTIME.engine) as connection:
        running = {"status": ax.Status.RUNNING, "epoch": 1}
        connection.execute(update(Activity).where(Activity.agent_id == task).values(**running))
        end(
            connection,
            Ending(Lease(task, 1), ax.Status.ERROR, "It failed.", error="no luck"),
            [task],
            utc_now(),
        )
    FollowUps(RUNTIME.engine, Registry(), ax.CONF.queue_name).run_once(utc_now() + timedelta(minutes=2))
    values = {"state": "failed", "next_at": None, "body": None, "attempts": 8, "outcome": "HTTP 500"}
    with writing(RUNTIME.engine) as connection:
        connection.execute(update(WebhookMessage).where(WebhookMessage.agent_id == task).values(**values))
    return task


@on_targets("embedded", "postgres")
def test_deliveries_are_listed_and_sent_again(deployment: Deployment) -> None:
    first, second = fail(), fail()
    code, out, err = run_in_process(deployment, "webhooks", "--state", "failed")
    assert (code, out.count("\n")) == (0, 3)
    assert str(first) in out and "task.failed" in out and "HTTP 500" in out and "t0ken" not in out
    assert "agentexec webhooks resend --failed" in err
    code, out, _ = run_in_process(deployment, "webhooks", "--json", "-n", "1")
    [message] = json.loads(out)
    assert (message["agent_id"], message["state"], message["to"]) == (
        str(second),
        "failed",
        "https://example.com",
    )
    code, out, _ = run_in_process(deployment, "webhooks", "resend", str(first))
    assert (code, out) == (0, f"The message about task {first} is sent again.\n")
    assert str(first) in run_in_process(deployment, "webhooks", "--state", "pending")[1]
    code, out, _ = run_in_process(deployment, "webhooks", "resend", "--failed", "--since", "1h", "--yes")
    assert (code, out) == (0, "The messages about 1 task(s) are sent again.\n")


@on_targets("embedded")
def test_what_cannot_be_sent_again_is_refused_with_a_sentence(deployment: Deployment) -> None:
    quiet = ax.enqueue_sync("work", {}).agent_id
    code, _, err = run_in_process(deployment, "webhooks", "resend", str(quiet))
    assert (code, f"Task {quiet} has not ended, or has no webhook." in err) == (1, True)
    assert run_in_process(deployment, "webhooks", "resend", str(new_agent_id()))[0] == 1
    assert run_in_process(deployment, "webhooks", "resend")[0] == 2
    assert run_in_process(deployment, "webhooks", "resend", str(quiet), "--failed")[0] == 2
    assert "There is no action send" in run_in_process(deployment, "webhooks", "send")[2]
    assert "There is no state" in run_in_process(deployment, "webhooks", "--state", "lost")[2]
    assert run_in_process(deployment, "webhooks", "resend", "--failed")[0] == 1, "nobody has confirmed"
