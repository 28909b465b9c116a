"""Approvals with real workers: the task leaves its slot, survives restarts, and continues after a command."""

from __future__ import annotations

import json

import pytest
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runtime import RUNTIME
from examples.mock_openai import MockOpenAI, call, say
from tests.deployment import Deploy, Deployment, on_one_target, on_targets, run_in_process
from tests.integration.runners.openai.test_limits import agents_worker

everywhere = on_targets("embedded", "valkey+postgres", alternates=False)


def pending_approval(deployment: Deployment, task: ax.Task) -> ax.approvals.ApprovalSchema:
    """Wait until a task has left its worker for an approval, and return that."""
    deployment.wait_for(lambda: deployment.detail(task).logs[-1].message.startswith("Waiting for approval"))
    detail = deployment.detail(task)
    assert (detail.status, detail.attempt) == (ax.Status.QUEUED, 0)
    with Session(RUNTIME.engine) as db:
        [approval] = ax.approvals.list(db, task.agent_id)
    return approval


@pytest.mark.thorough
@everywhere
def test_a_task_waits_without_a_slot_and_continues_after_the_command(
    deploy: Deploy, mock_openai: MockOpenAI
) -> None:
    mock_openai.script([call("send_email", to="Ann"), say("Written.")])
    deployment = deploy(worker_concurrency=1)
    agents_worker(deployment, mock_openai)
    task = deployment.enqueue("mails", "letter")
    approval = pending_approval(deployment, task)
    deployment.wait_for_status(deployment.enqueue("work", "other"), "complete")

    code, printed, _ = run_in_process(deployment, "approvals", "--json")
    assert code == 0
    [listed] = json.loads(printed)
    assert (listed["agent_id"], listed["call_id"], listed["tool"]) == (
        str(task.agent_id),
        approval.call_id,
        "send_email",
    )
    assert approval.call_id in run_in_process(deployment, "approvals", str(task.agent_id))[1]

    # No process holds any part of it.
    for process in deployment.processes():
        process.kill()
    deployment.wait_for(lambda: not deployment.processes())
    agents_worker(deployment, mock_openai)
    printed = f"Approved call {approval.call_id} of task {task.agent_id}.\n"
    assert run_in_process(deployment, "approve", str(task.agent_id), approval.call_id) == (0, printed, "")
    done = deployment.wait_for_status(task, "complete")
    assert done.attempt == 1
    assert ax.get_result_sync(task) == "Written."
    assert deployment.ledger("sent") == {"Ann": 1}
    lines = [line.message.partition("(")[0] for line in done.logs]
    assert lines[:3] == ["Waiting to start.", "Task started.", "Waiting for approval: send_email"]
    # The killed worker may have died before its queue knew of the wait; then the task started and asked again.
    assert sum(line.startswith("Approved by ") for line in lines) == 1
    assert lines[-2:] == ["Resumed at turn 1 ", "Task completed successfully."]
    code, _, error = run_in_process(deployment, "approve", str(task.agent_id), approval.call_id)
    assert (code, "already decided" in error) == (1, True)
    assert run_in_process(deployment, "approvals") == (0, "", "No calls wait for approval.\n")


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_rejections_message_reaches_the_model(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    mock_openai.script([call("send_email", to="Ann"), say("I see.")])
    deployment = deploy(worker_concurrency=1)
    agents_worker(deployment, mock_openai)
    task = deployment.enqueue("mails", "letter")
    approval = pending_approval(deployment, task)
    code, _, _ = run_in_process(
        deployment, "reject", str(task.agent_id), approval.call_id, "-m", "Ann has left."
    )
    assert code == 0
    deployment.wait_for_status(task, "complete")
    assert deployment.ledger("sent") == {}
    assert "Ann has left." in json.dumps(mock_openai.requests()[-1])


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_a_task_continues_when_its_approval_expires(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    mock_openai.script([call("send_email", to="Ann"), say("Then not.")])
    deployment = deploy(worker_concurrency=1)
    agents_worker(deployment, mock_openai)
    task = deployment.enqueue("mails", "letter", seconds=2)
    deployment.wait_for_status(task, "complete")
    assert deployment.ledger("sent") == {}
    assert deployment.ledger("start") == {"letter": 2}


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_an_answer_that_never_reached_the_queue_still_wakes_the_task(
    deploy: Deploy, mock_openai: MockOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    mock_openai.script([call("send_email", to="Ann"), say("Written.")])
    deployment = deploy(worker_concurrency=1)
    agents_worker(deployment, mock_openai)
    task = deployment.enqueue("mails", "letter")
    approval = pending_approval(deployment, task)

    def away(queue: str, agent_ids: object) -> None:
        raise ax.UnavailableError("Not reachable.")

    monkeypatch.setattr(RUNTIME.backend, "make_ready", away)
    assert ax.approve_sync(task, approval.call_id)
    deployment.wait_for_status(task, "complete")
    assert deployment.ledger("sent") == {"Ann": 1}


@pytest.mark.thorough
@on_targets("valkey+postgres")
def test_a_lost_index_does_not_wake_a_waiting_task(deploy: Deploy, mock_openai: MockOpenAI, valkey) -> None:
    mock_openai.script([call("send_email", to="Ann"), say("Written.")])
    deployment = deploy(worker_concurrency=1)
    agents_worker(deployment, mock_openai)
    task = deployment.enqueue("mails", "letter")
    approval = pending_approval(deployment, task)
    valkey.flush()
    deployment.wait_for(lambda: RUNTIME.backend.depth(ax.CONF.queue_name).delayed == 1)
    assert deployment.ledger("start") == {"letter": 1}
    assert ax.approve_sync(task, approval.call_id)
    deployment.wait_for_status(task, "complete")
    assert deployment.ledger("sent") == {"Ann": 1}
