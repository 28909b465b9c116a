"""Durable runs: a handler that runs again is answered from the journal, and resumes where the journal ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    Model,
    OpenAIProvider,
    RunConfig,
    RunHooks,
    Runner,
    SessionSettings,
    SQLiteSession,
    ToolOutputText,
    function_tool,
    input_guardrail,
)
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from pydantic import BaseModel

import agentexec as ax
from agentexec.journal.scopes import SCOPE
from agentexec.runners.openai.recovery import WRAP_UP_MESSAGE
from agentexec.runners.openai.run import DurableRun
from agentexec.runners.openai.session import canonical_form, journaled_session
from agentexec.runners.openai.tools import INTERRUPTED_MESSAGE
from agentexec.runtime import RUNTIME
from examples.mock_openai import MockOpenAI, call, say, together
from tests.attempts import ReplayableTask

Mode = Literal["run", "run_streamed"]

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


@pytest.fixture(autouse=True)
def database(tables_url: str) -> Iterator[None]:
    ax.configure(database_url=tables_url)
    yield
    RUNTIME.close()


@pytest.fixture
def task(database: None) -> ReplayableTask:
    return ReplayableTask()


class Ledger:
    """Record of the tool calls that were really made."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tool(self, name: str = "look_up", **options: Any) -> Any:
        async def look_up(topic: str) -> str:
            """Look a topic up."""
            self.lines.append(topic)
            return f"{topic}: 42"

        return function_tool(look_up, name_override=name, **options)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


async def finish(
    runner: ax.OpenAIRunner, mode: Mode, agent: Agent[Any], input: Any = "Go.", **options: Any
) -> Any:
    if mode == "run":
        return await runner.run(agent, input, **options)
    result = await runner.run_streamed(agent, input, **options)
    async for _ in result.stream_events():
        pass
    return result


def looks(*topics: str) -> list[Any]:
    """Return turns that call the tool for each topic, and an answer."""
    calls = [[function_call("look_up", {"topic": topic}, call_id=f"call_{topic}")] for topic in topics]
    return [*calls, [assistant_message("Done.")]]


@both_modes
async def test_a_finished_run_is_replayed_without_calling_model_or_tools(
    task: ReplayableTask, ledger: Ledger, mode: Mode
) -> None:
    first, silent = ScriptedModel(looks("a", "b")), ScriptedModel()
    agent = Agent("Researcher", model=first, tools=[ledger.tool()])
    before = await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), mode, agent))
    agent.model = silent
    after = await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), mode, agent))
    assert ledger.lines == ["a", "b"]
    assert after.final_output == "Done."
    assert after.last_agent is agent
    assert json.dumps(after.to_input_list()) == json.dumps(before.to_input_list())
    assert after.context_wrapper.usage == before.context_wrapper.usage
    assert [r.response_id for r in after.raw_responses] == [r.response_id for r in before.raw_responses]


@both_modes
async def test_a_run_resumes_at_the_first_turn_that_is_not_recorded(
    task: ReplayableTask, ledger: Ledger, mode: Mode
) -> None:
    whole = ScriptedModel(looks("a", "b", "c"))
    agent = Agent("Researcher", model=whole, tools=[ledger.tool()])
    result = await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), mode, agent))
    task.delete_entries(
        [("Researcher#1", 3), ("Researcher#1", 4), ("Researcher#1/call_c", 0), ("Researcher#1/call_c", 1)]
    )
    rest = ScriptedModel(looks("a", "b", "c")[2:])
    agent.model = rest
    again = await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), mode, agent))
    assert [call.input for call in rest.calls] == [call.input for call in whole.calls[2:]]
    assert json.dumps(again.to_input_list()) == json.dumps(result.to_input_list())
    assert ledger.lines == ["a", "b", "c", "c"]
    assert task.messages() == ["Resumed at turn 3 (attempt 2)"]


async def test_a_streamed_run_may_be_replayed_without_streaming_and_vice_versa(
    task: ReplayableTask, ledger: Ledger
) -> None:
    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[ledger.tool()])
    before = await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), "run_streamed", agent))
    agent.model = ScriptedModel()
    after = await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), "run", agent))
    assert json.dumps(after.to_input_list()) == json.dumps(before.to_input_list())
    assert after.context_wrapper.usage == before.context_wrapper.usage
    other = ReplayableTask()
    agent.model = ScriptedModel(looks("a"))
    before = await other.attempt(lambda: finish(ax.OpenAIRunner(other.agent_id), "run", agent))
    agent.model = ScriptedModel()
    after = await other.attempt(lambda: finish(ax.OpenAIRunner(other.agent_id), "run_streamed", agent))
    assert json.dumps(after.to_input_list()) == json.dumps(before.to_input_list())
    assert after.context_wrapper.usage == before.context_wrapper.usage


@both_modes
async def test_a_paused_worker_that_comes_back_appends_nothing_and_stops(
    task: ReplayableTask, ledger: Ledger, mode: Mode
) -> None:
    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[ledger.tool()])
    task.take_over()
    task.take_over()
    with pytest.raises(ax.LeaseLostError, match="no longer holds task"):
        await task.run_at_epoch(lambda: finish(ax.OpenAIRunner(task.agent_id), mode, agent), 1)
    assert task.journal() == []
    assert ledger.lines == []


async def test_a_canceled_task_appends_nothing(task: ReplayableTask, ledger: Ledger) -> None:
    @function_tool
    async def look_up(topic: str) -> str:
        await ax.cancel(task.agent_id)
        return topic

    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[look_up])
    with pytest.raises(ax.LeaseLostError):
        await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert [kind for _, _, kind in task.journal()] == ["run", "model", "intent"]


@both_modes
async def test_a_run_with_another_input_is_reported_as_diverged(
    task: ReplayableTask, ledger: Ledger, mode: Mode
) -> None:
    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[ledger.tool()])
    await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), mode, agent, "Monday."))
    with pytest.raises(ax.ReplayDiverged, match=r"the run of agent Researcher \(Researcher#1\)") as raised:
        await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), mode, agent, "Tuesday."))
    assert raised.value.path == "Researcher#1"


async def test_instructions_may_change(task: ReplayableTask, ledger: Ledger) -> None:
    agent = Agent("Researcher", "It is Monday.", model=ScriptedModel(looks("a")), tools=[ledger.tool()])
    agent.instructions = "It is Monday."
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    agent.instructions = "It is Tuesday."
    assert (await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))).final_output == "Done."


async def test_outside_its_task_nothing_is_recorded(task: ReplayableTask, ledger: Ledger) -> None:
    agent = Agent(
        "Researcher", model=ScriptedModel([*looks("a"), *looks("a"), *looks("a")]), tools=[ledger.tool()]
    )
    await ax.OpenAIRunner(task.agent_id).run(agent)
    await task.attempt(lambda: ax.OpenAIRunner(ReplayableTask().agent_id).run(agent))
    await task.attempt(lambda: Runner.run(agent, "Go."))
    assert task.journal() == []
    assert ledger.lines == ["a", "a", "a"]


@pytest.mark.parametrize(
    ("policy", "repeated", "output"),
    [
        ("idempotent", True, "a: 42"),
        ("transactional", True, "a: 42"),
        ("fail", False, INTERRUPTED_MESSAGE),
        (None, False, INTERRUPTED_MESSAGE),
    ],
)
async def test_the_policy_decides_about_a_tool_call_that_was_cut_off(
    task: ReplayableTask, ledger: Ledger, policy: Any, repeated: bool, output: str
) -> None:
    tool = ledger.tool() if policy is None else ax.tool_policy(policy)(ledger.tool())
    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[tool])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    task.delete_entries([("Researcher#1/call_a", 1), ("Researcher#1", 2)])
    agent.model = model = ScriptedModel(looks("a")[1:])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert ledger.lines == (["a", "a"] if repeated else ["a"])
    assert model.calls[0].input[-1]["output"] == output
    # The decision is recorded too.
    agent.model = ScriptedModel()
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id, tool_policy="idempotent").run(agent))
    assert len(ledger.lines) == 1 + repeated


async def test_an_idempotency_key_is_the_same_in_every_attempt_and_unique_to_its_call(
    task: ReplayableTask,
) -> None:
    keys: list[str] = []

    @ax.tool_policy("idempotent")
    @function_tool
    def look_up(topic: str) -> str:
        keys.append(ax.idempotency_key())
        return topic

    agent = Agent("Researcher", model=ScriptedModel(looks("a", "b")), tools=[look_up])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    task.delete_entries([("Researcher#1/call_b", 1), ("Researcher#1", 3)])
    agent.model = ScriptedModel(looks("a", "b")[2:])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert len(keys) == 3
    assert keys[0] != keys[1] == keys[2]
    with pytest.raises(ax.UsageError, match="inside a tool"):
        ax.idempotency_key()


async def test_a_tool_that_raised_runs_again_in_a_later_attempt(task: ReplayableTask) -> None:
    calls: list[str] = []

    async def look_up(topic: str) -> str:
        calls.append(topic)
        if len(calls) == 1:
            raise ValueError("no luck")
        return topic

    tool = function_tool(look_up, failure_error_function=None)
    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[tool])
    with pytest.raises(Exception, match="no luck"):
        await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    result = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert result.final_output == "Done."
    assert calls == ["a", "a"]
    assert [kind for path, _, kind in task.journal() if path.endswith("call_a")] == [
        "intent",
        "raised",
        "intent",
        "outcome",
    ]


class Point(BaseModel):
    x: int


@pytest.mark.parametrize(
    "output",
    ["text", "", {"a": 1.0, "b": [None, True]}, {1: (2, 3)}, [1, 2], 7, None, Point(x=1), b"bytes",
     ToolOutputText(text="part"), [ToolOutputText(text="one"), ToolOutputText(text="two")],
     {"type": "text", "text": "as a mapping"}, "half \ud83d of a pair and \x00"],
)  # fmt: skip
async def test_every_kind_of_output_reaches_the_model_unchanged_on_replay(
    task: ReplayableTask, output: Any
) -> None:
    @function_tool
    async def look_up(topic: str) -> Any:
        return output

    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[look_up])
    before = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    agent.model = ScriptedModel()
    after = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert json.dumps(after.to_input_list()) == json.dumps(before.to_input_list())


async def test_a_tools_timeout_is_recorded_as_its_outcome(task: ReplayableTask) -> None:
    starts: list[str] = []

    @function_tool(timeout=0.05)
    async def look_up(topic: str) -> str:
        starts.append(topic)
        await asyncio.sleep(60)
        return topic

    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[look_up])
    before = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    agent.model = ScriptedModel()
    after = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert json.dumps(after.to_input_list()) == json.dumps(before.to_input_list())
    assert starts == ["a"]


async def test_a_response_above_the_size_limit_is_a_clear_error(
    task: ReplayableTask, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ax.CONF, "max_payload_bytes", 2000)
    agent = Agent("Researcher", model=ScriptedModel([[assistant_message("x" * 3000)]]), tools=[ledger.tool()])
    with pytest.raises(
        ax.PayloadTooLargeError, match=r"A model's response is .* AGENTEXEC_MAX_PAYLOAD_BYTES"
    ):
        await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))


async def test_status_reports_are_not_repeated_on_replay(task: ReplayableTask) -> None:
    runner = ax.OpenAIRunner(task.agent_id)
    report = function_call("report_status", {"message": "Reading", "percentage": 30}, call_id="c1")
    agent = Agent(
        "Researcher",
        model=ScriptedModel([[report], [assistant_message("Done.")]]),
        tools=[runner.tools.report_status],
    )
    await task.attempt(lambda: runner.run(agent))
    agent.model = ScriptedModel()
    await task.attempt(lambda: runner.run(agent))
    assert task.messages() == ["Reading"]


@both_modes
async def test_hooks_see_a_replayed_run_like_any_other(
    task: ReplayableTask, ledger: Ledger, mode: Mode
) -> None:
    class Watch(RunHooks[Any]):
        def __init__(self) -> None:
            self.seen: list[str] = []

        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            self.seen.append("llm")

        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            self.seen.append("tool" if tool is agent.tools[0] else "another tool")

    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[ledger.tool()])
    watches = [Watch(), Watch()]
    for watch in watches:
        await task.attempt(
            lambda watch=watch: finish(ax.OpenAIRunner(task.agent_id), mode, agent, hooks=watch)
        )
    assert watches[0].seen == watches[1].seen == ["llm", "tool", "llm"]


async def test_parallel_runs_of_one_agent_keep_their_own_answers(task: ReplayableTask) -> None:
    """The second attempt starts the runs in another order."""

    def agent_for(topic: str, model: Model) -> Agent[Any]:
        return Agent("Researcher", model=model)

    async def handler(order: list[int], models: dict[int, ScriptedModel]) -> list[str]:
        runner = ax.OpenAIRunner(task.agent_id)
        runs = {
            n: asyncio.create_task(runner.run(agent_for(str(n), models[n]), f"Number {n}")) for n in order
        }
        return [str((await runs[n]).final_output) for n in range(len(order))]

    numbers = list(range(20))
    models = {n: ScriptedModel([[assistant_message(f"Answer {n}")]]) for n in numbers}
    first = await task.attempt(lambda: handler(numbers, models))
    again = await task.attempt(lambda: handler(numbers[::-1], dict.fromkeys(numbers, ScriptedModel())))
    assert first == again == [f"Answer {n}" for n in numbers]


async def test_session_items_are_not_written_twice(
    task: ReplayableTask, ledger: Ledger, tmp_path: Path
) -> None:
    session = SQLiteSession("s", tmp_path / "session.db")
    await session.add_items([{"role": "user", "content": "Earlier"}])
    model = ScriptedModel(looks("a", "b"))
    agent = Agent("Researcher", model=model, tools=[ledger.tool()])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent, "Go.", session=session))
    items = await session.get_items()
    task.delete_entries([("Researcher#1", 3)])
    agent.model = rest = ScriptedModel(looks("a", "b")[2:])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent, "Go.", session=session))
    assert await session.get_items() == items
    assert rest.calls[0].input == model.calls[2].input


class FailingSession(SQLiteSession):
    """Session whose writes fail from a chosen one on, until `fails_at` is reset."""

    def __init__(self, path: Path) -> None:
        super().__init__("s", path)
        self.writes, self.fails_at = 0, 0

    async def add_items(self, items: Any) -> None:
        self.writes += 1
        if self.fails_at and self.writes >= self.fails_at:
            raise ConnectionError("the session's server is unavailable")
        await super().add_items(items)


@both_modes
async def test_a_session_whose_write_failed_holds_every_call_and_answer_once_after_the_retry(
    ledger: Ledger, tmp_path: Path, mode: Mode
) -> None:
    async def attempt(task: ReplayableTask, session: FailingSession, turns: list[Any]) -> ScriptedModel:
        model = ScriptedModel(turns)
        agent = Agent("Researcher", model=model, tools=[ledger.tool()])
        await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), mode, agent, session=session))
        return model

    whole = FailingSession(tmp_path / "whole.db")
    reference = await attempt(ReplayableTask(), whole, looks("a", "b"))
    for fails_at in range(1, whole.writes + 1):
        task, session = ReplayableTask(), FailingSession(tmp_path / f"{fails_at}.db")
        session.fails_at, ledger.lines = fails_at, []
        with pytest.raises(ConnectionError):
            await attempt(task, session, looks("a", "b"))
        done = sum(kind == "model" for _, _, kind in task.journal())
        session.fails_at = 0
        made = (await attempt(task, session, looks("a", "b")[done:])).calls
        assert ledger.lines == ["a", "b"], f"write {fails_at}: no tool runs twice"
        assert [call.input for call in made] == [call.input for call in reference.calls[done:]]
        assert await session.get_items() == await whole.get_items()


async def test_a_guardrail_and_a_tool_may_run_agents(task: ReplayableTask, ledger: Ledger) -> None:
    judge = Agent("Judge", model=ScriptedModel([[assistant_message("Fine.")]]))
    helper = Agent("Helper", model=ScriptedModel([[assistant_message("Helped.")]]))

    @input_guardrail
    async def fine(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
        result = await Runner.run(judge, input)
        return GuardrailFunctionOutput(result.final_output, tripwire_triggered=False)

    @ax.tool_policy("idempotent")
    @function_tool
    async def look_up(topic: str) -> str:
        return (await Runner.run(helper, topic)).final_output

    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[look_up], input_guardrails=[fine])
    before = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    paths = {path for path, _, _ in task.journal()}
    assert paths == {
        "Researcher#1", "Researcher#1/Judge#1", "Researcher#1/call_a", "Researcher#1/call_a/Helper#1",
    }  # fmt: skip
    task.delete_entries([("Researcher#1/call_a", 1), ("Researcher#1", 2)])
    judge.model = helper.model = ScriptedModel()
    agent.model = ScriptedModel(looks("a")[1:])
    after = await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    assert json.dumps(after.to_input_list()) == json.dumps(before.to_input_list())


async def test_a_divergence_inside_an_agent_used_as_a_tool_ends_the_attempt(
    task: ReplayableTask,
) -> None:
    inner = Agent("Inner", model=ScriptedModel([[assistant_message("Inside.")]]))
    tool = inner.as_tool("inner", "Ask it.")
    call = [function_call("inner", {"input": "hello"}, call_id="c1")]
    agent = Agent("Outer", model=ScriptedModel([call, [assistant_message("Done.")]]), tools=[tool])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))
    with RUNTIME.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE agentexec_journal SET input_hash = 'x' WHERE path = 'Outer#1/c1/Inner#1' AND seq = 1"
        )
    with pytest.raises(ax.ReplayDiverged, match="model call 1 of agent Inner's run"):
        await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent))


# ---- over HTTP, with the provider's own models and events --------------------------------------------------


class Report(BaseModel):
    topic: str
    words: int


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
@both_modes
async def test_a_replay_returns_exactly_what_openai_sent(
    mode: Mode, api: Any, task: ReplayableTask, ledger: Ledger, mock_openai: MockOpenAI
) -> None:
    """The SDK's own provider, which a nested run inherits, finds the models by name."""
    provider = OpenAIProvider(use_responses=api == "responses")
    mock_openai.script(
        [
            together(call("look_up", topic="staff"), call("look_up", topic="revenue")),
            call("ask", input="How many?"),
            say('{"topic": "all", "words": 7}'),
        ],
        when="Go.",
    )
    mock_openai.script([call("look_up", topic="inner"), say("Forty-two.")], when="How many?")
    inner = Agent("Inner", model="gpt-4o-mini", tools=[ledger.tool()])
    agent = Agent(
        "Researcher",
        model="gpt-4o-mini",
        tools=[ledger.tool(), inner.as_tool("ask", "Ask.")],
        output_type=Report,
    )
    config = RunConfig(model_provider=provider, tracing_disabled=True)

    async def handler() -> Any:
        return await finish(ax.OpenAIRunner(task.agent_id), mode, agent, run_config=config)

    before = await task.attempt(handler)
    asked = len(mock_openai.requests())
    after = await task.attempt(handler)
    assert len(mock_openai.requests()) == asked == 5
    assert after.final_output == before.final_output == Report(topic="all", words=7)
    assert json.dumps(after.to_input_list()) == json.dumps(before.to_input_list())
    assert after.context_wrapper.usage == before.context_wrapper.usage
    assert task.detail().usage.requests == 5
    assert set(task.detail().usage_by_model) == {"gpt-4o-mini"}
    assert sorted(ledger.lines) == ["inner", "revenue", "staff"]
    # Make the last call again, after a replay of all the others.
    task.delete_entries([("Researcher#1", 3)])
    await task.attempt(handler)
    bodies = [request["body"] for request in mock_openai.requests()]
    key = "input" if api == "responses" else "messages"
    assert json.dumps(bodies[-1][key]) == json.dumps(bodies[-2][key])


@both_modes
async def test_a_run_that_hit_its_turn_limit_is_replayed_with_its_wrap_up(
    task: ReplayableTask, ledger: Ledger, mode: Mode
) -> None:
    agent = Agent(
        "Researcher",
        model=ScriptedModel([*looks("a", "b")[:2], [assistant_message("So far: a and b.")]]),
        tools=[ledger.tool()],
    )

    async def handler() -> Any:
        runner = ax.OpenAIRunner(task.agent_id, max_turns_recovery=True)
        return await finish(runner, mode, agent, max_turns=2)

    before = await task.attempt(handler)
    agent.model = ScriptedModel()
    after = await task.attempt(handler)
    assert after.final_output == before.final_output == "So far: a and b."
    assert task.messages() == [WRAP_UP_MESSAGE]
    assert after.context_wrapper.usage == before.context_wrapper.usage


@both_modes
async def test_the_tools_of_recovery_turns_do_not_run_again_in_a_replay(
    task: ReplayableTask, ledger: Ledger, mode: Mode
) -> None:
    turns = [*looks("a", "b", "c")[:3], [assistant_message("So far: a, b and c.")]]
    agent = Agent("Researcher", model=ScriptedModel(turns), tools=[ledger.tool()])

    async def handler() -> Any:
        runner = ax.OpenAIRunner(task.agent_id, max_turns_recovery=True, recovery_turns=2)
        return await finish(runner, mode, agent, max_turns=2)

    before = await task.attempt(handler)
    agent.model = ScriptedModel()
    after = await task.attempt(handler)
    assert after.final_output == before.final_output == "So far: a, b and c."
    assert ledger.lines == ["a", "b", "c"]
    assert after.context_wrapper.usage == before.context_wrapper.usage


@both_modes
async def test_a_model_call_that_breaks_records_nothing(
    task: ReplayableTask, ledger: Ledger, mode: Mode
) -> None:
    agent = Agent("Researcher", model=ScriptedModel([ConnectionError("cut")]), tools=[ledger.tool()])
    with pytest.raises(ConnectionError, match="cut"):
        await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), mode, agent))
    agent.model = ScriptedModel(looks("a"))
    result = await task.attempt(lambda: finish(ax.OpenAIRunner(task.agent_id), mode, agent))
    assert result.final_output == "Done."
    assert [kind for _, _, kind in task.journal()].count("model") == 2


@both_modes
async def test_a_conversation_on_the_server_continues_after_a_replay(
    task: ReplayableTask, ledger: Ledger, mode: Mode
) -> None:
    turns = [ModelStep(turn, response_id=f"resp_{number}") for number, turn in enumerate(looks("a", "b"))]
    model = ScriptedModel(turns)
    agent = Agent("Researcher", model=model, tools=[ledger.tool()])

    async def handler() -> Any:
        return await finish(ax.OpenAIRunner(task.agent_id), mode, agent, previous_response_id="resp_earlier")

    await task.attempt(handler)
    task.delete_entries([("Researcher#1", 3)])
    agent.model = again = ScriptedModel(turns[2:])
    await task.attempt(handler)
    assert (again.calls[0].input, again.calls[0].previous_response_id) == (model.calls[2].input, "resp_1")
    assert model.calls[2].previous_response_id == "resp_1"


@both_modes
async def test_sync_runs_and_runs_in_threads_are_durable(task: ReplayableTask, mode: Mode) -> None:
    helper = Agent("Helper", model=ScriptedModel([[assistant_message("Helped.")]]))

    @function_tool
    def look_up(topic: str) -> str:
        return Runner.run_sync(helper, topic).final_output

    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[look_up])
    await task.attempt(
        lambda: asyncio.to_thread(asyncio.run, finish(ax.OpenAIRunner(task.agent_id), mode, agent))
    )
    assert ("Researcher#1/call_a/Helper#1", 1, "model") in task.journal()


# ---- sessions ----------------------------------------------------------------------------------------------


class LabeledSession(SQLiteSession):
    """The user's own class of session, with an attribute of its own."""

    label = "mine"


async def test_the_sdk_sees_the_users_class_of_session_in_a_durable_run(task: ReplayableTask) -> None:
    session = LabeledSession("s", session_settings=SessionSettings(limit=2))
    seen: list[Any] = []

    async def handler() -> None:
        run = DurableRun(SCOPE.get().child_scope("", durable=True), Agent("A"), "Go.", {})  # ty: ignore[unresolved-attribute]
        seen.append(journaled_session(session, run))

    await task.attempt(handler)
    proxy = seen[0]
    assert isinstance(proxy, LabeledSession)
    assert (proxy.label, proxy.session_id, proxy.session_settings.limit) == ("mine", "s", 2)


async def test_a_limited_session_shows_its_items_from_the_start_of_the_run(
    task: ReplayableTask, ledger: Ledger
) -> None:
    session = SQLiteSession("s", session_settings=SessionSettings(limit=2))
    await session.add_items([{"role": "user", "content": f"Earlier {number}"} for number in range(5)])
    model = ScriptedModel(looks("a"))
    agent = Agent("Researcher", model=model, tools=[ledger.tool()])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent, "Go.", session=session))
    assert [item["content"] for item in model.calls[0].input] == ["Earlier 3", "Earlier 4", "Go."]
    task.delete_entries([("Researcher#1", 2)])
    agent.model = again = ScriptedModel(looks("a")[1:])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent, "Go.", session=session))
    assert again.calls[0].input == model.calls[1].input
    assert len(await session.get_items(100)) == 5 + 4


async def test_items_that_others_add_to_a_session_cause_no_duplicates(
    task: ReplayableTask, ledger: Ledger
) -> None:
    session = SQLiteSession("s")
    agent = Agent("Researcher", model=ScriptedModel(looks("a")), tools=[ledger.tool()])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent, "Go.", session=session))
    items = await session.get_items()
    await session.clear_session()
    await session.add_items([items[0], {"role": "user", "content": "From elsewhere"}, *items[1:3]])
    task.delete_entries([("Researcher#1", 2)])
    agent.model = ScriptedModel(looks("a")[1:])
    await task.attempt(lambda: ax.OpenAIRunner(task.agent_id).run(agent, "Go.", session=session))
    assert await session.get_items() == [items[0], {"role": "user", "content": "From elsewhere"}, *items[1:]]


def test_session_items_are_compared_without_server_fields() -> None:
    sent = {"role": "assistant", "content": "Hello"}
    stored = {
        "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
    }  # fmt: skip
    assert canonical_form(sent) == canonical_form(stored)
    assert canonical_form({**sent, "content": "Bye"}) != canonical_form(stored)
