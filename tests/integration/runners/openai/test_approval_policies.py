"""Policies of approvals: tools that ask, or are never called, without a mark on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.errors import WaitingForApproval
from agentexec.journal.attempt_approvals import AttemptApprovals
from agentexec.journal.questions import REFUSED_MESSAGE
from agentexec.journal.scopes import SCOPE
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask

DONE = [assistant_message("Done.")]


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


class Shop:
    """A task whose agent calls `look`, `buy`, which asks by itself if so marked, or both."""

    def __init__(self, *turns: list[Any], marked: bool = False) -> None:
        self.task = ReplayableTask()
        self.done: list[str] = []

        @function_tool
        async def look(what: str) -> str:
            """Look at something."""
            self.done.append(f"look {what}")
            return f"a {what}"

        @function_tool(needs_approval=marked)
        async def buy(what: str) -> str:
            """Buy something."""
            self.done.append(f"buy {what}")
            return f"bought {what}"

        self.agent = Agent("Clerk", model=ScriptedModel([*turns, DONE]), tools=[look, buy])

    async def attempt(self, tools: Any, streamed: bool = False) -> Any:
        async def handler() -> Any:
            scope = SCOPE.get()
            assert scope is not None
            scope.recorder.approvals = AttemptApprovals(ax.ApprovalPolicy(tools))
            runner = ax.OpenAIRunner(self.task.agent_id)
            if not streamed:
                return await runner.run(self.agent, "Go.")
            result = await runner.run_streamed(self.agent, "Go.")
            async for _ in result.stream_events():
                pass
            return result

        return await self.task.attempt(handler)

    async def waits(self, tools: Any, **options: Any) -> None:
        with pytest.raises(WaitingForApproval):
            await self.attempt(tools, **options)

    def calls(self) -> list[tuple[str, str, str | None]]:
        with Session(RUNTIME.engine) as db:
            found = ax.approvals.list(db, self.task.agent_id, state="all")
        return [(call.call_id, call.status, call.decided_from) for call in found]


def call(tool: str, call_id: str, what: str = "car") -> Any:
    return function_call(tool, {"what": what}, call_id=call_id)


def outputs(result: Any) -> list[str]:
    return [item["output"] for item in result.to_input_list() if item.get("type") == "function_call_output"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_pattern_makes_a_tool_ask(streamed: bool) -> None:
    shop, tools = Shop([call("buy", "call_1"), call("look", "call_2")]), {"look": "safe", "*": "ask"}
    await shop.waits(tools, streamed=streamed)
    assert shop.done == ["look car"]
    await shop.waits(tools, streamed=streamed)
    await ax.approve(shop.task.agent_id, "call_1", arguments={"what": "bike"})
    result = await shop.attempt(tools, streamed=streamed)
    assert shop.done == ["look car", "buy bike"]
    again = await shop.attempt(tools, streamed=streamed)
    assert again.to_input_list() == result.to_input_list()
    assert shop.done == ["look car", "buy bike"]


async def test_a_tool_that_is_never_called_is_refused_without_asking() -> None:
    shop, tools = Shop([call("buy", "call_1")]), {"b*": "never"}
    result = await shop.attempt(tools)
    assert (shop.done, outputs(result)) == ([], [REFUSED_MESSAGE])
    assert shop.calls() == [("call_1", "rejected", "policy")]
    assert 'Rejected by the policy: buy({"what":"car"})' in shop.task.messages()
    assert (await shop.attempt(tools)).to_input_list() == result.to_input_list()


async def test_the_stricter_of_policy_and_tool_counts() -> None:
    shop = Shop([call("buy", "call_1")], marked=True)
    await shop.waits({"*": "safe"})
    refused = Shop([call("buy", "call_1")], marked=True)
    assert outputs(await refused.attempt({"buy": "never"})) == [REFUSED_MESSAGE]


async def test_the_first_pattern_that_matches_counts() -> None:
    shop = Shop([call("buy", "call_1")])
    assert (await shop.attempt({"b*": "safe", "buy": "never"})).final_output == "Done."


async def test_a_policy_that_comes_later_leaves_what_was_done() -> None:
    shop = Shop([call("look", "call_1")], [call("look", "call_2", "house")])
    result = await shop.attempt({})
    assert (await shop.attempt({"*": "ask"})).to_input_list() == result.to_input_list()
    assert (await shop.attempt({"*": "never"})).to_input_list() == result.to_input_list()
    assert shop.calls() == []


async def test_a_policy_that_is_gone_leaves_what_was_decided() -> None:
    shop = Shop([call("buy", "call_1"), call("look", "call_2")])
    await shop.waits({"buy": "ask"})
    await ax.reject(shop.task.agent_id, "call_1", message="No.")
    result = await shop.attempt({"buy": "safe"})
    assert shop.done == ["look car"]
    assert sorted(outputs(result)) == ["No.", "a car"]


async def test_the_call_of_an_agent_as_a_tool_asks() -> None:
    shop = Shop([call("buy", "inner")])
    outer = ScriptedModel([[function_call("ask", {"input": "x"}, call_id="outer")], DONE])
    shop.agent = Agent("Boss", model=outer, tools=[shop.agent.as_tool("ask", "Ask.")])
    await shop.waits({"*": "ask"})
    await ax.approve(shop.task.agent_id, "outer")
    await shop.waits({"*": "ask"})
    await ax.approve(shop.task.agent_id, "inner")
    result = await shop.attempt({"*": "ask"})
    assert (result.final_output, shop.done) == ("Done.", ["buy car"])
    assert (await shop.attempt({"*": "ask"})).to_input_list() == result.to_input_list()


@pytest.mark.parametrize(
    "options",
    [
        {"tools": {"a": "maybe"}},
        {"tools": ["a"]},
        {"tools": {"": "ask"}},
        {"default": "yes"},
        {"timeout": -1},
        {"reminder": 0.1},
        {"webhook": "ftp://x"},
    ],
)
def test_odd_policies_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ax.UsageError):
        ax.ApprovalPolicy(**options)
    with pytest.raises(ax.UsageError):
        ax.Pool(approvals={"tools": {}})  # type: ignore[arg-type]


def test_a_tasks_policy_comes_before_that_of_its_pool() -> None:
    pool = ax.ApprovalPolicy(
        {"*": "ask", "read": "safe"}, timeout=5, default="approve", webhook="https://a.b"
    )
    task = ax.ApprovalPolicy({"write_*": "never"}, timeout=7)
    both = task.within(pool)
    assert (both.timeout, both.default, both.webhook) == (7, "approve", "https://a.b")
    assert [both.risk_of(tool) for tool in ("write_x", "read", "other")] == ["never", "ask", "ask"]
