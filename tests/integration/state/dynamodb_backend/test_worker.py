"""A worker whose queue is in DynamoDB: tasks run, also those of a process that was killed."""

from __future__ import annotations

import pytest

import agentexec as ax
from tests.deployment import Deploy, on_targets
from tests.servers import DynamoDB

BACKEND = "agentexec.state.dynamodb_backend"


@pytest.mark.thorough
@on_targets("sqlite")
def test_tasks_of_a_killed_worker_run_again(
    deploy: Deploy, dynamodb: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ax.CONF, "state_backend", BACKEND)
    deployment = deploy(state_backend=BACKEND, dynamodb_table="worker", **{})
    deployment.environment.update(dynamodb.environment)
    monkeypatch.setattr(ax.CONF, "dynamodb_table", "worker")
