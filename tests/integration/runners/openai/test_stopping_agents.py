"""Running agents are stopped by a cancel from the command line, or by their time limit."""

from __future__ import annotations

import json
import time
from uuid import uuid4

import pytest

import agentexec as ax
from examples.mock_openai import MockOpenAI, call, say
from tests.deployment import Deploy, Deployment, on_one_target, on_targets, run_in_process
from tests.integration.runners.openai.test_limits import agents_worker
from tests.waiting import patient

everywhere = on_targets("embedded", "valkey+postgres", alternates=False)

AT_ONCE = 5.0
"""Seconds within which a running agent stops on a busy machine: less than its tool or its model call takes."""


def cancel(deployment: Deployment, *arguments: str) -> tuple[int, str, str]:
    return run_in_process(deployment, "cancel", *arguments)


def seconds_until_free(deployment: Deployment, key: str) -> float:
    """Return the seconds until the worker's only slot is free."""
    started = time.monotonic()
    deployment.enqueue("work", key)
    deployment.wait_for_start(key)
    return time.monotonic() - started


@everywhere
def test_an_agent_within_a_model_call_is_stopped(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    mock_openai.script([say("Too late.").after(30)])
    deployment = deploy(worker_concurrency=1)
    agents_worker(deployment, mock_openai)
    task = deployment.enqueue("ask", "model")
    deployment.wait_for(mock_openai.delayed)
    assert cancel(deployment, str(task.agent_id)) == (0, f"Canceled task {task.agent_id}.\n", "")
    assert seconds_until_free(deployment, "next") < AT_ONCE
    detail = deployment.detail(task)
    assert (detail.status, detail.attempt) == (ax.Status.CANCELED, 1)
    assert [line.message for line in detail.logs] == ["Waiting to start.", "Task started.", "Canceled."]
    assert deployment.ledger("end") == deployment.ledger("caught") == {}
    with pytest.raises(ax.TaskCanceledError):
        ax.get_result_sync(task, patient(5))


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_an_agent_within_a_tool_in_a_thread_is_stopped(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    """The thread cannot be interrupted, but the agent does not wait for it and calls no model again."""
    mock_openai.script([call("slow_tool", key="tool", seconds=8), say("Too late.")])
    deployment = deploy(worker_concurrency=1)
    agents_worker(deployment, mock_openai)
    task = deployment.enqueue("ask", "tool")
    deployment.wait_for(lambda: deployment.ledger("tool")["tool"])
    code, out, _ = cancel(deployment, str(task.agent_id), "--json")
    assert (code, json.loads(out)) == (
        0,
        {"agent_id": str(task.agent_id), "canceled": True, "status": "canceled"},
    )
    assert seconds_until_free(deployment, "next") < AT_ONCE
    assert deployment.ledger("tool_end") == {}
    deployment.wait_for(lambda: deployment.ledger("tool_end")["tool"])
    assert deployment.endings([task]) == [["canceled"]]
    assert len(mock_openai.requests()) == 1
    # The usage before the cancel stays on the record.
    assert deployment.detail(task).usage.requests == 1
    assert deployment.ledger("end") == {}


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_a_queued_task_never_starts(deploy: Deploy) -> None:
    deployment = deploy()
    task = deployment.enqueue("work", "queued")
    assert cancel(deployment, str(task.agent_id))[0] == 0
    deployment.start()
    last = deployment.enqueue("work", "last")
    deployment.wait_for_status(last, "complete")
    assert deployment.status(task) == "canceled"
    assert deployment.ledger("start")["queued"] == 0


@pytest.mark.thorough
@on_targets("embedded")
def test_a_cancel_that_is_impossible_is_reported(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.start()
    task = deployment.enqueue("work", "done")
    deployment.wait_for_status(task, "complete")
    said = f"agentexec: Task {task.agent_id} has already ended: it is complete.\n"
    assert cancel(deployment, str(task.agent_id)) == (1, "", said)
    code, out, err = cancel(deployment, "--json", str(task.agent_id))
    assert (code, json.loads(out)["canceled"], json.loads(out)["status"], err) == (1, False, "complete", "")
    other = uuid4()
    assert cancel(deployment, str(other)) == (
        1,
        "",
        f"agentexec: There is no activity with agent_id {other}.\n",
    )
    code, _, err = cancel(deployment, "seven")
    assert code == 2
    assert err.startswith("agentexec: 'seven' is not an agent_id;")


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_an_agent_over_its_time_limit_is_stopped_and_retried(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    mock_openai.script([say("Too late.").after(30)])
    deployment = deploy(worker_concurrency=1)
    agents_worker(deployment, mock_openai)
    task = deployment.enqueue("ask_in_time", "late")
    detail = deployment.wait_for_status(task, "error", timeout=20)
    limit = "TimeoutError: the attempt took longer than 1.0 seconds"
    assert [line.message for line in detail.logs] == [
        "Waiting to start.",
        "Task started.",
        f"Attempt 1 failed with {limit}; attempt 2 of 2 starts in 2 s.",
        "Task started.",
        f"Task failed with error: {limit}",
    ]
    assert detail.attempt == 2
    assert detail.error is not None
    assert detail.error.startswith(limit)
    first, second = (
        (ended.created_at - began.created_at).total_seconds()
        for began, ended in ((detail.logs[1], detail.logs[2]), (detail.logs[3], detail.logs[4]))
    )
    assert 0.9 < first < AT_ONCE
    assert 0.9 < second < AT_ONCE
    assert deployment.ledger("end") == {}
    assert seconds_until_free(deployment, "next") < AT_ONCE


@pytest.mark.thorough
@on_targets("embedded")
def test_a_time_limit_leaves_quick_agents_alone(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    mock_openai.script([say("In time.")])
    deployment = deploy()
    agents_worker(deployment, mock_openai)
    task = deployment.enqueue("ask_in_good_time", "quick")
    assert ax.get_result_sync(task, patient(20)) == "In time."
