"""A worker whose queue is in DynamoDB: tasks run, also those of a process that was killed."""

from __future__ import annotations

import pytest

import agentexec as ax
from agentexec.state import dynamodb_backend
from tests.deployment import Deploy, on_targets
from tests.servers import DynamoDB

BACKEND = "agentexec.state.dynamodb_backend"


@pytest.mark.thorough
@on_targets("embedded")
def test_tasks_of_a_killed_process_run_again(
    deploy: Deploy, dynamodb: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ax.CONF.model_copy(update={"state_backend": BACKEND, "dynamodb_table": "worker"})
    monkeypatch.setattr(ax.CONF, "dynamodb_table", settings.dynamodb_table)
    monkeypatch.setattr(ax.CONF, "state_backend", BACKEND)
    dynamodb_backend.create_storage(settings)
    deployment = deploy(state_backend=BACKEND, dynamodb_table="worker")
    deployment.environment.update(dynamodb.environment)
    waiting = deployment.enqueue("work", "early")
    deployment.start()
    deployment.wait_for_ends([waiting])
    task = deployment.enqueue("work", "a", seconds=1.0)
    deployment.wait_for_start("a")
    deployment.process_of("a").kill()
    deployment.wait_for_ends([task])
    assert deployment.endings([task]) == [["complete"]]
    assert deployment.ledger("start")["a"] == 2
    deployment.wait_for(lambda: deployment.depth() == 0)
