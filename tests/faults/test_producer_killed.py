"""kill -9 of a process that enqueues, around its commit."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, on_targets


@pytest.mark.thorough
@on_targets("valkey+sqlite")
def test_a_task_whose_producer_was_killed_between_commit_and_push_is_run_in_a_few_seconds(
    deploy: Deploy,
) -> None:
    deployment = deploy()
    deployment.start()
    assert deployment.produce("work", "a", kill_at="before-push").returncode == -9
    deployment.wait_for(lambda: deployment.ledger("end") == {"a": 1}, timeout=8)


@pytest.mark.thorough
@on_targets("embedded")
def test_a_task_whose_producer_was_killed_before_it_woke_a_worker_is_run_in_a_few_seconds(
    deploy: Deploy,
) -> None:
    """On PostgreSQL there is no such moment: the notification is sent together with the transaction."""
    deployment = deploy()
    deployment.start()
    assert deployment.produce("work", "a", kill_at="before-wake").returncode == -9
    deployment.wait_for(lambda: deployment.ledger("end") == {"a": 1}, timeout=8)


@on_targets("embedded")
def test_a_task_whose_producer_was_killed_before_its_commit_was_never_accepted(deploy: Deploy) -> None:
    deployment = deploy()
    assert deployment.produce("work", "a", kill_at="before-push").returncode == -9
    with Session(RUNTIME.engine) as db:
        assert ax.activity.list(db).total == 0
    assert deployment.depth() == 0
