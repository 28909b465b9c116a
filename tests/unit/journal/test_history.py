"""Log lines about recorded runs that an attempt did not ask for."""

from __future__ import annotations

from uuid import UUID

import agentexec as ax
from tests.office import Job, Office


class Steps(ax.BaseAgentRunner[None]):
    async def run(self, *_arguments: object) -> None:
        raise NotImplementedError


def test_the_log_names_recorded_runs_that_an_attempt_did_not_ask_for(office: Office) -> None:
    @office.pool.task("renamed", retries=1)
    async def renamed(agent_id: UUID, context: Job) -> int:
        office.run("renamed")
        value = await Steps(agent_id).step(f"ask {office.ran['renamed']}", lambda: 1)
        if office.ran["renamed"] == 1:
            ax.activity.update(agent_id, "Half of it.", percentage=50)
            raise ConnectionError("gone")
        return value

    with ax.testing.harness(office.pool) as harness:
        task = harness.run("renamed")
        assert task.result == 1
        told = {line.message: line.percentage for line in task.log}
    assert [line for line in told.items() if line[0].startswith(("Half", "Task started"))] == [
        ("Task started.", 50),  # the second start: it has not lost what was reported before it
        ("Half of it.", 50),
    ]
    [words] = [message for message in told if "did not ask for" in message]
    assert words.startswith("An earlier attempt recorded step:ask 1#1, which this attempt did not ask for")
