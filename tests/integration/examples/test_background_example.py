"""The example of background responses: its worker is killed while the model thinks, and nothing is asked for twice."""

from __future__ import annotations

import sys

import pytest

import agentexec as ax
from tests.deployment import REPOSITORY, Deploy, on_targets
from tests.responses_server import Behavior, ResponsesServer, message, tool_call
from tests.waiting import patient

TURNS = [[tool_call("look_up", "call_1", topic="tides")], [message("At noon.")]]


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_killed_worker_costs_no_second_response(deploy: Deploy) -> None:
    deployment = deploy(num_workers=1)
    worker = REPOSITORY / "examples" / "background" / "worker.py"
    with ResponsesServer(Behavior({"gpt-5.2": TURNS}, seconds=600)) as server:
        command = [sys.executable, "-m", "agentexec", "worker", str(worker)]
        deployment.spawn(command, OPENAI_BASE_URL=server.url, OPENAI_API_KEY="test")
        task = ax.enqueue_sync("investigate", {"question": "When do the tides turn?"})
        deployment.wait_for(lambda: "Waiting for background" in str(deployment.detail(task)))
        deployment.workers()[0].kill()
        server.behavior.seconds = 0
        server.finish()
        assert ax.get_result_sync(task, timeout=patient(30)) == "At noon.", deployment.log
        assert server.count("create") == 2
