"""A warning about a session that tasks of two worker processes use at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.deployment import Deploy, on_targets

AGENTS_MODULE = Path(__file__).parent / "agents_module.py"


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres")
def test_workers_of_two_processes_see_each_others_sessions(deploy: Deploy) -> None:
    deployment = deploy(num_workers=2, worker_concurrency=1)
    deployment.spawn([sys.executable, "-m", "agentexec", "worker", str(AGENTS_MODULE)])
    gate = str(deployment.folder / "gate")
    tasks = [deployment.enqueue("chat", "chat-7", gate=gate)]
    deployment.wait_for(lambda: deployment.ledger("spoken")["chat-7"] == 1)
    tasks.append(deployment.enqueue("chat", "chat-7", gate=gate))
    deployment.wait_for(lambda: deployment.ledger("spoken")["chat-7"] == 2)
    Path(gate).touch()
    deployment.wait_for_ends(tasks)
    assert (
        f"Task chat ({tasks[1].agent_id}): The session 'chat-7' is also used by chat ({tasks[0].agent_id})"
        in (deployment.log)
    )
    assert any("is also used by chat" in line.message for line in deployment.detail(tasks[1]).logs)
    again = deployment.enqueue("chat", "chat-7", gate=gate)
    deployment.wait_for_ends([again])
    assert deployment.log.count("is also used by") == 1
