"""Handlers of failures and webhooks are called by real workers, also when every process was killed right after the failure."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook

import agentexec as ax
from tests.deployment import Deploy, on_targets, run_in_process
from tests.unit.webhooks.receiver import Receiver, open_receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MODULE = """
import os, signal
import agentexec as ax

pool = ax.Pool()


@pool.on_failure
def note(agent_id, context: ax.TaskFailure):
    with open("failures", "a") as file:
        file.write(context.model_dump_json() + "\\n")


@pool.task("raises")
async def raises(agent_id, context):
    raise ValueError("no luck")


@pool.task("dies")
async def dies(agent_id, context):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with open_receiver() as receiver:
        yield receiver


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_failures_and_crashes_call_handlers_and_webhooks_although_everything_is_killed(
    deploy: Deploy, receiver: Receiver
) -> None:
    settings = {"webhook_secret": SECRET, "webhook_private_addresses": True}
    deployment = deploy(max_crashes=2, **settings)
    (deployment.folder / "my_worker.py").write_text(MODULE)
    command = [sys.executable, "-m", "agentexec", "worker", "my_worker"]
    told = deployment.folder / "failures"
    deployment.spawn(command)
    raises = ax.enqueue_sync("raises", {"n": 1}, webhook=receiver.url + "/t0ken")
    deployment.wait_for(lambda: deployment.status(raises) == "error")
    for process in deployment.processes():
        process.kill()
    deployment.spawn(command)

    def is_told_of(task: ax.Task) -> bool:
        return told.exists() and str(task.agent_id) in told.read_text()

    deployment.wait_for(lambda: is_told_of(raises), timeout=30)
    dies = ax.enqueue_sync("dies")
    deployment.wait_for(lambda: is_told_of(dies), timeout=30)
    failures = [json.loads(line) for line in told.read_text().splitlines()]
    by_task = {failure["agent_id"]: failure for failure in failures}
    assert by_task[str(raises.agent_id)]["error"] == "ValueError: no luck"
    assert by_task[str(raises.agent_id)]["context"] == {"n": 1}
    assert "worker process" in by_task[str(dies.agent_id)]["error"]

    def show(*options: str) -> str:
        return run_in_process(deployment, "show", str(raises.agent_id), *options)[1]

    deployment.wait_for(lambda: "webhook:   task.failed to http://127.0.0.1: delivered" in show(), timeout=90)
    [message] = json.loads(show("--json"))["webhooks"]
    assert (message["state"], message["outcome"], message["to"]) == (
        "delivered",
        "HTTP 204",
        "http://127.0.0.1",
    )
    assert "t0ken" not in show() + show("--json") + deployment.log
    for request in receiver.received:
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert Webhook(SECRET).verify(request.body, headers)["data"]["agent_id"] == str(raises.agent_id)
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 1
