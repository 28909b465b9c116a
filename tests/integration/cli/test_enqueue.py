"""`agentexec enqueue`, with a worker that runs all the time."""

from __future__ import annotations

import json

import pytest
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.cli.serving import serving_workers
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, Deployment, on_targets, run_agentexec, run_in_process
from tests.waiting import patient


def enqueue(running: Deployment, *arguments: str, text: str = "") -> tuple[int, str, str]:
    return run_in_process(running, "enqueue", *arguments, text=text)


def test_enqueue_prints_the_agent_id(running: Deployment) -> None:
    variables = {name: value for name, value in running.environment.items() if name.startswith("AGENTEXEC_")}
    options = ("--metadata", "tenant=t1", "-m", "of=a=b")
    done = run_agentexec("enqueue", "work", '{"key": "a"}', *options, cwd=running.folder, **variables)
    assert done.returncode == 0
    task = done.stdout.strip()
    assert ax.get_result_sync(task, patient(10)) == "a"
    with Session(RUNTIME.engine) as db:
        detail = ax.activity.detail(db, task)
    assert detail.metadata == {"tenant": "t1", "of": "a=b"}


def test_enqueue_waits_for_a_text_and_prints_it_unchanged(running: Deployment) -> None:
    code, out, err = enqueue(running, "work", '{"key": "Zoë"}', "--wait")
    assert (code, out) == (0, "Zoë\n")
    assert "waiting for its result" in err


@pytest.mark.thorough
def test_enqueue_waits_for_a_value_and_prints_it_as_json(running: Deployment) -> None:
    code, out, _ = enqueue(running, "work", '{"key": "a", "value": {"name": "研究"}}', "--wait")
    assert (code, json.loads(out)) == (0, {"name": "研究"})
    assert "研究" in out, "readable by people"


@pytest.mark.thorough
def test_enqueue_reads_a_context_from_a_file_or_standard_input(running: Deployment) -> None:
    (running.folder / "context.json").write_text('{"key": "from a file"}')
    assert enqueue(running, "work", "@context.json", "--wait")[:2] == (0, "from a file\n")
    assert enqueue(running, "work", "-", "--wait", text='{"key": "from a pipe"}')[:2] == (0, "from a pipe\n")


def test_enqueue_reports_a_failed_task(running: Deployment) -> None:
    code, out, err = enqueue(running, "fail", '{"key": "a"}', "--wait")
    assert (code, out) == (1, "")
    assert "failed after 1 attempt(s): ValueError: no luck with a" in err
    assert "agentexec: Task fail" in err
    assert "Traceback" not in err.split("agentexec: ")[0]


def test_enqueue_reports_a_task_that_is_late(running: Deployment) -> None:
    code, out, err = enqueue(running, "work", '{"key": "a"}', "--delay", "30", "--wait", "--timeout", "0.2")
    assert (code, out) == (1, "")
    assert "has not ended within 0.2 seconds" in err
    assert "Traceback" not in err


@on_targets("embedded", alternates=False)
def test_waiting_for_a_task_that_nobody_will_run_is_said_at_once(deploy: Deploy) -> None:
    deployment = deploy()
    waits = ("enqueue", "work", '{"key": "a"}', "--timeout", "0.2")
    for option in ("--wait", "--follow"):
        code, _, err = run_in_process(deployment, *waits, option)
        assert code == 1
        assert err.startswith(f"No worker serves the queue agentexec_tasks of sqlite:///{deployment.folder}/")
        assert "start one with `agentexec worker`" in err
    deployment.start()
    deployment.wait_for(lambda: serving_workers(ax.CONF.queue_name))
    code, out, err = run_in_process(deployment, "enqueue", "work", '{"key": "b"}', "--wait")
    assert (code, out) == (0, "b\n")
    assert "No worker" not in err
    code, _, err = run_in_process(deployment, *waits, "--wait", "--queue", "other")
    assert err.startswith("No worker serves the queue other of ")
