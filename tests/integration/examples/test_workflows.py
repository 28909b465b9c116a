"""Examples of workflows, with real agents over HTTP and real workers, one of which is killed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import select

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.db.transactions import reading
from agentexec.runtime import RUNTIME
from examples.mock_openai import MockOpenAI, call, say, together
from tests.deployment import REPOSITORY, Deploy, Deployment, on_one_target


def work(deployment: Deployment, example: str, server: MockOpenAI) -> subprocess.Popen[bytes]:
    module = REPOSITORY / "examples" / example / "worker.py"
    command = [sys.executable, "-m", "agentexec", "worker", str(module)]
    return deployment.spawn(command, OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="test")


def asked(server: MockOpenAI) -> list[str]:
    """Return the names with which the agents' instructions begin, one per request."""
    return [str(request["body"].get("instructions")) for request in server.requests()]


def tasks_named(name: str) -> list[Any]:
    with reading(RUNTIME.engine) as connection:
        query = select(Activity.agent_id, Activity.status).where(Activity.agent_type == name)
        return list(connection.execute(query))


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_the_research_pipeline_resumes_where_it_was_killed(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    mock_openai.script([say("Well liked.")], when="how the brand is seen")
    mock_openai.script([say("Huge.")], when="how big the market is")
    mock_openai.script([say('{"buy": true, "reason": "Growth."}').after(2)], when="Decide whether to buy")
    mock_openai.script([say("Buy Acme.")], when="Write two sentences")
    deployment = deploy(num_workers=1)
    work(deployment, "pipeline", mock_openai)
    task = ax.enqueue_sync("research", {"company": "Acme"})
    deployment.wait_for(
        lambda: any(line.message == "Step 2 of 3: analysis" for line in deployment.detail(task).logs)
    )
    deployment.workers()[0].kill()
    deployment.wait_for_ends([task], timeout=30)
    assert ax.get_result_sync(task) == {"text": "Buy Acme."}, deployment.detail(task).error
    # Only the interrupted call was made again.
    requests = asked(mock_openai)
    assert (
        sum("the brand" in request for request in requests)
        == sum("the market" in request for request in requests)
        == 1
    )
    assert 1 <= sum("whether to buy" in request for request in requests) <= 2
    done = deployment.detail(task)
    assert done.usage.requests == 4
    assert [line.message for line in done.logs][-2:] == [
        "Step 3 of 3: writing",
        "Task completed successfully.",
    ]


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_dynamic_fan_out_ends_in_one_summary(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    calls = [call("queue_research", company=company) for company in ("Ada", "Bob", "Cyd")]
    mock_openai.script([together(*calls[:2]), calls[2], say("Three found.")], when="Name companies")
    mock_openai.script([say("It makes panels.")], when="Describe the company")
    mock_openai.script([say("All make panels.")], when="Summarize the findings")
    deployment = deploy(num_workers=1, worker_concurrency=2)
    work(deployment, "fan_out", mock_openai)
    task = ax.enqueue_sync("discover", {"topic": "solar power"})
    deployment.wait_for_ends([task], timeout=30)
    assert ax.get_result_sync(task) == "Three found.", deployment.detail(task).error
    deployment.wait_for(lambda: [row.status for row in tasks_named("summarize")] == ["complete"], timeout=30)
    assert ax.get_result_sync(tasks_named("summarize")[0].agent_id) == "All make panels."
    assert len(tasks_named("research_lead")) == len(deployment.detail(task).children) == 3


@pytest.mark.thorough
@on_one_target("embedded", "valkey+postgres", alternates=False)
def test_a_batch_of_documents_shows_its_progress(deploy: Deploy, mock_openai: MockOpenAI) -> None:
    mock_openai.script([say('{"score": 9, "clause": "Penalty"}')], when="Contract 3")
    mock_openai.script([say('{"score": 2, "clause": "Term"}')], when="the highest risk")
    deployment = deploy(num_workers=1, worker_concurrency=1)
    work(deployment, "documents", mock_openai)
    task = ax.enqueue_sync("review", {"texts": [f"Contract {number}" for number in range(6)]})
    deployment.wait_for_ends([task], timeout=40)
    assert ax.get_result_sync(task) == {"highest": 9, "unread": 0}, deployment.detail(task).error
    messages = [(line.message, line.percentage) for line in deployment.detail(task).logs]
    assert messages[2:-1] == [(f"Read {n} of 6 contracts", 100 * n // 6) for n in range(1, 7)]
