"""Durable runs with the tools of a real MCP server in a process of its own, over stdio."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent
from agents.mcp import MCPServerStdio
from agents.testing import ScriptedModel, assistant_message, function_call

import agentexec as ax
from agentexec.journal.recorder import Policy
from agentexec.runners.openai.tools import INTERRUPTED_MESSAGE
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask

SERVER = Path(__file__).with_name("mcp_server.py")

LAST_TURN = [assistant_message("Done.")]

CUT_OFF_IN_CALL = [("Clerk#1/call_1", 1), ("Clerk#1", 2)]
"""Facts that are missing if the worker dies in the call."""


@pytest.fixture
def task(sqlite_tables: str) -> Iterator[ReplayableTask]:
    ax.configure(database_url=sqlite_tables)
    yield ReplayableTask()
    RUNTIME.close()


class Office:
    """A handler whose agent uses the server's tools."""

    def __init__(self, task: ReplayableTask, ledger: Path) -> None:
        self._agent_id = task.agent_id
        self._ledger = ledger
        parameters: Any = {"command": sys.executable, "args": [str(SERVER), str(ledger)]}
        self.server = MCPServerStdio(
            parameters,
            client_session_timeout_seconds=60,
            custom_data_extractor=lambda context: {"from": "archive"},
        )
        self.policy: Policy = "fail"
        self.custom_data: list[Any] = []
        call = function_call("look_up", {"topic": "staff"}, call_id="call_1")
        self.model = ScriptedModel([[call], LAST_TURN])

    @property
    def looked_up(self) -> list[str]:
        return self._ledger.read_text().split()

    async def handler(self) -> str:
        agent = Agent("Clerk", model=self.model, mcp_servers=[self.server])
        runner = ax.OpenAIRunner(self._agent_id, tool_policy=self.policy)
        result = await runner.run(agent, "Go.")
        self.custom_data = [
            item.custom_data for item in result.new_items if item.type == "tool_call_output_item"
        ]
        return json.dumps(result.to_input_list())


async def test_a_recorded_call_is_not_made_again(task: ReplayableTask, tmp_path: Path) -> None:
    office = Office(task, tmp_path / "ledger")
    async with office.server:
        before = await task.attempt(office.handler)
        office.model = ScriptedModel()
        assert await task.attempt(office.handler) == before
    assert "staff: 42" in before
    assert office.looked_up == ["staff"]


@pytest.mark.thorough
async def test_what_a_server_attaches_to_an_output_is_the_same_in_a_replay(
    task: ReplayableTask, tmp_path: Path
) -> None:
    office = Office(task, tmp_path / "ledger")
    async with office.server:
        await task.attempt(office.handler)
        assert office.custom_data == [{"from": "archive"}]
        office.model, office.custom_data = ScriptedModel(), []
        await task.attempt(office.handler)
    assert office.custom_data == [{"from": "archive"}]


@pytest.mark.thorough
async def test_the_runners_policy_decides_about_an_mcp_call_that_was_cut_off(
    task: ReplayableTask, tmp_path: Path
) -> None:
    office = Office(task, tmp_path / "ledger")
    async with office.server:
        await task.attempt(office.handler)

        task.delete_entries(CUT_OFF_IN_CALL)
        office.model = ScriptedModel([LAST_TURN])
        assert INTERRUPTED_MESSAGE in await task.attempt(office.handler)
        assert office.looked_up == ["staff"]

        task.delete_entries(CUT_OFF_IN_CALL)
        office.model, office.policy = ScriptedModel([LAST_TURN]), "idempotent"
        assert "staff: 42" in await task.attempt(office.handler)
        assert office.looked_up == ["staff", "staff"]
