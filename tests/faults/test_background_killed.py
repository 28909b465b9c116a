"""kill -9 of workers whose agents wait for background responses: none is asked for again, and none holds a slot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import agentexec as ax
from tests.deployment import Deploy, on_targets
from tests.responses_server import (
    Behavior,
    finish_answers,
    ledger_of,
    message,
    responses_process,
    set_behavior,
    tool_call,
)
from tests.waiting import patient

MODULE = Path(__file__).parent / "background_module.py"
NEVER = 600.0
TURNS = {"gpt": [[tool_call("look_up", "call_1", topic="tides")], [message("High at noon.")]]}


@pytest.mark.thorough
@on_targets("embedded", "valkey+postgres", "postgres")
def test_a_killed_workers_responses_are_fetched_and_its_slots_were_free(deploy: Deploy) -> None:
    deployment = deploy()
    with responses_process(Behavior(TURNS, seconds=NEVER)) as url:

        def asked(what: str, key: str) -> int:
            return sum(key in line.get("path", line["id"]) for line in ledger_of(url, what))

        command = [sys.executable, "-m", "agentexec", "worker", str(MODULE), "--concurrency", "1"]
        deployment.spawn(command, RESPONSES_URL=url)
        tasks = {
            key: deployment.enqueue("research", key, value=key == "streamed") for key in ("whole", "streamed")
        }
        # The worker has one slot. Both wait for the provider, and a third task runs meanwhile.
        for key in tasks:
            deployment.wait_for(lambda key=key: asked("create", key) == 1)
        assert ax.get_result_sync(deployment.enqueue("quick", "third"), timeout=patient(30)) == "done"
        deployment.wait_for(
            lambda: all("Waiting for background" in str(deployment.detail(task)) for task in tasks.values())
        )
        victim = deployment.process_of("whole")
        victim.kill()
        set_behavior(url, Behavior(TURNS, seconds=0.3))
        finish_answers(url)
        for task in tasks.values():
            assert ax.get_result_sync(task, timeout=patient(60)) == "High at noon."
        for key, task in tasks.items():
            assert asked("create", key) == 2, "one for each of the two turns"
            assert deployment.detail(task).requests == 2
            assert deployment.ledger("tool")[key] == 1
        # Canceled while it waits, a task cancels its response at the provider.
        set_behavior(url, Behavior(TURNS, seconds=NEVER))
        task = deployment.enqueue("research", "canceled")
        deployment.wait_for(lambda: "Waiting for background" in str(deployment.detail(task)))
        assert ax.cancel_sync(task)
        deployment.wait_for(lambda: len(ledger_of(url, "cancel")) == 1)
