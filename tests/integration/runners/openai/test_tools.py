"""Tool calls that end in another way than with an output: canceled, cut off, too large, made again for their effect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, ModelBehaviorError, RunContextWrapper, Tool, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call

import agentexec as ax
from agentexec.journal.recorder import Policy
from agentexec.runners.openai.tools import INTERRUPTED_MESSAGE
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask

DONE = [assistant_message("Done.")]


@pytest.fixture
def task(sqlite_tables: str) -> Iterator[ReplayableTask]:
    ax.configure(database_url=sqlite_tables)
    yield ReplayableTask()
    RUNTIME.close()


def calls(*names: str) -> list[Any]:
    return [function_call(name, {}, call_id=f"call_{name}") for name in names]


def kinds(task: ReplayableTask, call_id: str) -> list[str]:
    return [kind for path, _, kind in task.journal() if path.endswith(call_id)]


@pytest.mark.parametrize("own_text", [False, True])
async def test_a_tool_that_cancels_itself_is_recorded_with_the_text_that_the_model_got(
    task: ReplayableTask, own_text: bool
) -> None:
    made: list[int] = []

    async def leaky() -> str:
        made.append(1)
        raise asyncio.CancelledError("scope")

    def explain(_: Any, error: Exception) -> str:
        return f"It was canceled, {type(error).__name__}."

    tool = function_tool(leaky, failure_error_function=explain) if own_text else function_tool(leaky)
    agent = Agent("Clerk", model=ScriptedModel([calls("leaky"), DONE]), tools=[tool])
    before = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert kinds(task, "call_leaky") == ["intent", "outcome"]
    task.delete_entries([("Clerk#1", 2)])
    agent.model = ScriptedModel([DONE])
    after = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert json.dumps(after.to_input_list()) == json.dumps(before.to_input_list())
    assert made == [1]


async def test_a_tool_that_cancels_itself_without_a_text_runs_again_like_any_that_raised(
    task: ReplayableTask,
) -> None:
    made: list[int] = []

    async def leaky() -> str:
        made.append(1)
        if len(made) == 1:
            raise asyncio.CancelledError
        return "ok"

    agent = Agent(
        "Clerk",
        model=ScriptedModel([calls("leaky"), DONE]),
        tools=[function_tool(leaky, failure_error_function=None)],
    )
    with pytest.raises(BaseException) as raised:
        await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert isinstance(raised.value, asyncio.CancelledError | Exception)
    result = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert (result.final_output, len(made)) == ("Done.", 2)
    assert kinds(task, "call_leaky") == ["intent", "raised", "intent", "outcome"]


async def test_a_call_that_is_canceled_with_its_task_stays_one_that_was_cut_off(task: ReplayableTask) -> None:
    started = asyncio.Event()

    @function_tool
    async def slow() -> str:
        started.set()
        await asyncio.sleep(60)
        return "never"

    agent = Agent("Clerk", model=ScriptedModel([calls("slow"), DONE]), tools=[slow])
    attempt = asyncio.create_task(task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent)))
    await started.wait()
    for running in asyncio.all_tasks() - {asyncio.current_task()}:
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert kinds(task, "call_slow") == ["intent"]


async def test_a_tool_cut_off_by_its_siblings_error_is_not_told_of_a_restart(task: ReplayableTask) -> None:
    started = asyncio.Event()
    made: list[str] = []

    @function_tool
    async def slow() -> str:
        made.append("slow")
        started.set()
        await asyncio.sleep(60)
        return "never"

    async def broken() -> str:
        made.append("broken")
        await started.wait()
        if made.count("broken") == 1:
            raise ValueError("no luck")
        return "better"

    agent = Agent(
        "Clerk",
        model=ScriptedModel([calls("slow", "broken"), DONE]),
        tools=[slow, function_tool(broken, failure_error_function=None)],
    )
    with pytest.raises(Exception, match="no luck"):
        await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    result = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    outputs = {item.get("call_id"): item.get("output") for item in result.to_input_list()}
    assert outputs["call_slow"] == INTERRUPTED_MESSAGE
    assert outputs["call_broken"] == "better"
    assert "restart" not in INTERRUPTED_MESSAGE
    assert sorted(made) == ["broken", "broken", "slow"]


@pytest.mark.parametrize(
    ("policy", "made_again"), [("fail", False), ("idempotent", True), ("transactional", True)]
)
async def test_an_output_above_the_limit_fails_the_run_in_every_attempt(
    task: ReplayableTask, policy: Policy, made_again: bool
) -> None:
    made: list[int] = []

    @ax.tool_policy(policy)
    @function_tool
    def export() -> str:
        made.append(1)
        if policy == "transactional":
            with ax.transaction():
                pass
        return "x" * 1_200_000

    agent = Agent("Clerk", model=ScriptedModel([calls("export"), DONE]), tools=[export])
    for _ in range(3):
        with pytest.raises(ax.PayloadTooLargeError, match=r"outcome of export is 1200\d\d\d bytes"):
            await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert len(made) == (3 if made_again else 1)


async def test_a_step_above_the_limit_fails_in_every_attempt_and_is_not_made_again(
    task: ReplayableTask,
) -> None:
    made: list[int] = []

    def export() -> str:
        made.append(1)
        return "x" * 1_200_000

    for _ in range(2):
        with pytest.raises(ax.PayloadTooLargeError, match="outcome of export"):
            await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).step("export", export))
    assert made == [1]


class Panic(BaseException):
    """An error that is not an Exception, as a Rust extension raises it."""


async def test_a_tool_that_raises_outside_exception_is_one_that_raised(task: ReplayableTask) -> None:
    made: list[int] = []

    @function_tool
    async def panics() -> str:
        made.append(1)
        if len(made) == 1:
            raise Panic("index out of bounds")
        return "ok"

    agent = Agent("Clerk", model=ScriptedModel([calls("panics"), DONE]), tools=[panics])
    with pytest.raises(Panic):
        await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert (await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))).final_output == "Done."
    assert kinds(task, "call_panics") == ["intent", "raised", "intent", "outcome"]


def skill_loader(agent: Agent[Any], loads: list[str], policy: Policy) -> Tool:
    """Return a tool that adds another tool to its agent."""

    @function_tool
    def add(a: int) -> str:
        loads.append("add")
        return str(a + 1)

    @ax.tool_policy(policy)
    @function_tool
    def load_skill(context: RunContextWrapper[Any]) -> str:
        loads.append("load")
        context.context["skills"].append("arithmetic")
        agent.tools.append(add)
        return f"loaded {len(loads)}"

    return load_skill


ADD = [function_call("add", {"a": 1}, call_id="call_add")]


def clerk(loads: list[str], policy: Policy, *turns: Any) -> Agent[Any]:
    agent: Agent[Any] = Agent("Clerk", model=ScriptedModel(list(turns)))
    agent.tools.append(skill_loader(agent, loads, policy))
    return agent


both_modes = pytest.mark.parametrize("streamed", [False, True])


async def run(task: ReplayableTask, agent: Agent[Any], streamed: bool, context: Any) -> Any:
    runner = ax.OpenAIRunner(task.agent_id)
    if not streamed:
        return await runner.run(agent, "Go.", context=context)
    result = await runner.run_streamed(agent, "Go.", context=context)
    async for _ in result.stream_events():
        pass
    return result


@both_modes
async def test_a_tool_with_an_effect_in_memory_is_called_again_and_keeps_its_output(
    task: ReplayableTask, streamed: bool
) -> None:
    loads: list[str] = []
    agent = clerk(loads, "in_memory", calls("load_skill"), ADD, DONE)
    before = await task.attempt(lambda: run(task, agent, streamed, {"skills": []}))
    assert loads == ["load", "add"]
    task.delete_entries([("Clerk#1", 3)])
    context: dict[str, list[str]] = {"skills": []}
    after = await task.attempt(lambda: run(task, clerk(loads, "in_memory", DONE), streamed, context))
    assert loads == ["load", "add", "load"]
    assert context == {"skills": ["arithmetic"]}
    assert json.dumps(after.to_input_list()) == json.dumps(before.to_input_list())


@both_modes
async def test_a_tool_that_is_missing_in_a_replay_is_named_with_its_remedy(
    task: ReplayableTask, streamed: bool
) -> None:
    loads: list[str] = []
    agent = clerk(loads, "idempotent", calls("load_skill"), ADD, DONE)
    await task.attempt(lambda: run(task, agent, streamed, {"skills": []}))
    task.delete_entries([("Clerk#1", 3)])
    with pytest.raises(
        ax.ReplayDiverged, match=r"agent Clerk calls the tool add, .*tool_policy\(.in_memory.\)"
    ):
        await task.attempt(lambda: run(task, clerk(loads, "idempotent", DONE), streamed, {"skills": []}))


async def test_a_tool_that_the_model_made_up_fails_alike_in_every_attempt(task: ReplayableTask) -> None:
    agent = Agent("Clerk", model=ScriptedModel([calls("dream")]))
    for _ in range(2):
        with pytest.raises(ModelBehaviorError, match="Tool dream not found in agent Clerk"):
            await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))


async def test_a_step_with_an_effect_in_memory_is_made_again_and_keeps_its_value(
    task: ReplayableTask,
) -> None:
    loads: list[int] = []

    def load() -> int:
        loads.append(1)
        return len(loads)

    async def handler() -> Any:
        return await ax.OpenAIRunner(task.agent_id).step("load", load, policy="in_memory")

    assert [await task.attempt(handler) for _ in range(2)] == [1, 1]
    assert len(loads) == 2


@pytest.mark.parametrize("error", [ValueError("no luck"), asyncio.CancelledError("scope")])
@pytest.mark.parametrize("own_text", [False, True])
async def test_an_agent_that_failed_as_a_tool_is_recorded_with_the_text_that_the_model_got(
    task: ReplayableTask, own_text: bool, error: BaseException
) -> None:
    made: list[int] = []

    async def fragile() -> str:
        made.append(1)
        if len(made) == 1:
            raise error
        return "ok"

    def clerk(*turns: Any) -> Agent[Any]:
        inner = Agent(
            "Inner",
            model=ScriptedModel([calls("fragile"), DONE][len(made) :]),
            tools=[function_tool(fragile, failure_error_function=None)],
        )
        options: Any = {"failure_error_function": lambda _, error: f"Sorry: {error}"} if own_text else {}
        ask = inner.as_tool("ask", "Ask.", **options)
        return Agent("Clerk", model=ScriptedModel(list(turns)), tools=[ask])

    question = [function_call("ask", {"input": "Why?"}, call_id="call_ask")]
    before = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(clerk(question, DONE)))
    assert ("Sorry" in json.dumps(before.to_input_list())) == own_text
    task.delete_entries([("Clerk#1", 2)])
    after = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(clerk(DONE)))
    assert json.dumps(after.to_input_list()) == json.dumps(before.to_input_list())
    assert made == [1]
