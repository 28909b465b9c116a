"""OpenAIRunner with real agents against a model server on loopback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from agents import (
    Agent,
    AgentHooks,
    GuardrailFunctionOutput,
    MaxTurnsExceeded,
    Model,
    ModelSettings,
    OpenAIResponsesModel,
    RunConfig,
    RunErrorHandlerInput,
    RunHooks,
    RunResult,
    RunResultStreaming,
    SQLiteSession,
    Trace,
    function_tool,
    output_guardrail,
    set_trace_processors,
    trace,
)
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tracing.processor_interface import TracingProcessor
from agents.tracing.processors import default_exporter, default_processor
from openai import AsyncOpenAI
from pydantic import BaseModel
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.runners.base import WRAP_UP_PROMPT
from agentexec.runners.openai.recovery import WRAP_UP_MESSAGE
from agentexec.runtime import RUNTIME
from examples.mock_openai import MockOpenAI, call, say, together
from tests.conftest import Servers
from tests.waiting import patient

Mode = Literal["run", "run_streamed"]

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])

LOOKS = [call("look_up", topic="revenue"), call("look_up", topic="staff")]
"""Two turns that call a tool: with `max_turns=2` the agent never reaches its answer."""


class Finding(BaseModel):
    company: str
    employees: int


@function_tool
def look_up(topic: str) -> str:
    """Look a topic up."""
    return f"{topic}: 42"


@pytest.fixture
def openai(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> MockOpenAI:
    """Return the model server, reset, with no key in the environment."""
    server = servers.mock_openai
    server.reset()
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return server


@pytest.fixture
async def model(openai: MockOpenAI) -> AsyncIterator[Model]:
    async with AsyncOpenAI(base_url=openai.base_url, api_key="test", max_retries=0) as client:
        yield OpenAIResponsesModel("gpt-4o-mini", client)


@pytest.fixture(autouse=True)
def database(sqlite_tables: str) -> Iterator[None]:
    ax.configure(database_url=sqlite_tables)
    yield
    RUNTIME.close()


@pytest.fixture
def agent_id() -> UUID:
    return ax.activity.create("research")


async def finish(
    runner: ax.OpenAIRunner, mode: Mode, agent: Agent[Any], **options: Any
) -> RunResult | RunResultStreaming:
    """Run an agent to its end in either mode."""
    if mode == "run":
        return await runner.run(agent, **options)
    result = await runner.run_streamed(agent, **options)
    async for _ in result.stream_events():
        pass
    return result


def reports_of(agent_id: UUID) -> list[tuple[str, int | None]]:
    """Return the reports, without the line that `create` writes."""
    with Session(RUNTIME.engine) as db:
        return [(log.message, log.percentage) for log in ax.activity.detail(db, agent_id=agent_id).logs][1:]


def text_of(message: Any) -> str:
    return message["content"][0]["text"]


def last_body(openai: MockOpenAI) -> dict[str, Any]:
    return openai.requests()[-1]["body"]


# ---- runs --------------------------------------------------------------------------------------------------


@both_modes
async def test_an_agent_reports_its_own_progress(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script(
        [
            call("report_status", message="Gathering financials", percentage=40),
            together(
                call("look_up", topic="staff"),
                call("report_status", message="Counting staff", percentage=80),
            ),
            say("All good."),
        ]
    )
    runner = ax.OpenAIRunner(agent_id)
    agent = Agent(
        name="Research Agent",
        instructions=f"Research Acme. {runner.prompts.report_status}",
        tools=[runner.tools.report_status, look_up],
        model=model,
    )
    result = await finish(runner, mode, agent, input="Begin research")
    assert result.final_output == "All good."
    assert result.last_agent is agent
    assert result.context_wrapper.usage.requests == 3
    assert reports_of(agent_id) == [("Gathering financials", 40), ("Counting staff", 80)]
    assert runner.prompts.report_status in last_body(openai)["instructions"]


@both_modes
async def test_a_run_without_an_input_starts_with_begin(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([say("You said: {prompt}")])
    result = await finish(
        ax.OpenAIRunner(agent_id=agent_id), mode, Agent(name="A", model=model), max_turns=15
    )
    assert result.final_output == "You said: Begin."


async def test_a_streamed_run_yields_its_events_while_it_runs(
    openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([call("look_up", topic="staff"), say("There are forty-two of them.")])
    result = await ax.OpenAIRunner(agent_id).run_streamed(
        Agent(name="A", tools=[look_up], model=model), input="How many?"
    )
    deltas: list[str] = []
    items: list[str] = []
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            deltas.append(event.data.delta)
        elif event.type == "run_item_stream_event":
            items.append(event.name)
    assert items == ["tool_called", "tool_output", "message_output_created"]
    assert len(deltas) > 1
    assert "".join(deltas) == result.final_output == "There are forty-two of them."


@pytest.mark.parametrize("busy_with", ["run", "the stream", "an event", "something else"])
async def test_a_canceled_task_stops_its_run(busy_with: str, agent_id: UUID) -> None:
    started = asyncio.Event()
    steps: list[str] = []

    @function_tool
    async def work() -> str:
        """Work for a while."""
        started.set()
        try:
            await asyncio.sleep(0.3)
        except asyncio.CancelledError:
            steps.append("canceled")
            raise
        steps.append("worked")
        return "Done."

    async def handler() -> None:
        model = ScriptedModel([[function_call("work", {}, call_id="c1")], [assistant_message("Never said.")]])
        agent = Agent(name="A", tools=[work], model=model)
        runner = ax.OpenAIRunner(agent_id)
        if busy_with == "run":
            await runner.run(agent)
        result = await runner.run_streamed(agent)
        if busy_with == "something else":
            await asyncio.sleep(60)
        async for _ in result.stream_events():
            if busy_with == "an event":
                await asyncio.sleep(60)

    task = asyncio.create_task(handler())
    await started.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.4)
    assert steps == ["canceled"]


@both_modes
async def test_options_of_the_sdk_are_passed_on(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    ends: list[tuple[Any, Any]] = []

    class Hooks(RunHooks[Any]):
        async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
            ends.append((context.context, output))

    openai.script([say("Fine.")])
    session = SQLiteSession("talk")
    await session.add_items([{"role": "user", "content": "Earlier"}])
    result = await finish(
        ax.OpenAIRunner(agent_id),
        mode,
        Agent(name="A", model="not asked"),
        input="Now",
        context={"tenant": 7},
        hooks=Hooks(),
        run_config=RunConfig(
            model=model, model_settings=ModelSettings(temperature=0.25), tracing_disabled=True
        ),
        session=session,
    )
    assert result.final_output == "Fine."
    assert ends == [({"tenant": 7}, "Fine.")]
    body = last_body(openai)
    assert body["temperature"] == 0.25
    assert [item["content"] for item in body["input"]] == ["Earlier", "Now"]
    assert len(await session.get_items()) == 3


async def test_a_run_config_may_be_a_mapping(openai: MockOpenAI, model: Model, agent_id: UUID) -> None:
    openai.script([say("Fine.")])
    agent = Agent(name="A", model="not asked")
    settings = {"model": model, "tracing_disabled": True}
    result = await ax.OpenAIRunner(agent_id).run(agent, "Go", run_config=settings)
    assert result.final_output == "Fine."
    assert settings == {"model": model, "tracing_disabled": True}


async def test_an_option_unknown_to_the_sdk_is_refused(agent_id: UUID) -> None:
    with pytest.raises(TypeError, match="max_turn"):
        await ax.OpenAIRunner(agent_id).run(Agent(name="A"), "Go", max_turn=3)


# ---- max-turns recovery ------------------------------------------------------------------------------------


@both_modes
async def test_without_recovery_a_run_fails_at_its_turn_limit(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([*LOOKS, say("Never said.")])
    agent = Agent(name="A", tools=[look_up], model=model)
    with pytest.raises(MaxTurnsExceeded):
        await finish(ax.OpenAIRunner(agent_id), mode, agent, max_turns=2)
    assert len(openai.requests()) == 2


@both_modes
async def test_with_recovery_the_agent_sums_up_at_its_turn_limit(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([*LOOKS, say("In short, 42.")])
    agent = Agent(
        name="A",
        instructions="Research Acme.",
        tools=[look_up],
        handoffs=[Agent(name="Another")],
        model=model,
    )
    result = await finish(ax.OpenAIRunner(agent_id, max_turns_recovery=True), mode, agent, max_turns=2)
    assert result.final_output == "In short, 42."
    assert result.last_agent is agent
    assert agent.tools == [look_up]
    assert text_of(result.to_input_list()[-1]) == "In short, 42."

    requests = openai.requests()
    body = requests[-1]["body"]
    assert len(requests) == 3
    assert not body["tools"]
    assert body["instructions"] == "Research Acme."
    assert [item.get("output") for item in body["input"] if "output" in item] == ["revenue: 42", "staff: 42"]
    assert body["input"][-1] == {"role": "user", "content": WRAP_UP_PROMPT}
    assert reports_of(agent_id) == [(WRAP_UP_MESSAGE, None)]


@both_modes
async def test_the_tokens_of_the_wrap_up_are_counted(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([*LOOKS, say("In short, 42.")])
    agent = Agent(name="A", tools=[look_up], model=model)
    result = await finish(ax.OpenAIRunner(agent_id, max_turns_recovery=True), mode, agent, max_turns=2)
    usage = result.context_wrapper.usage
    assert usage.requests == len(usage.request_usage_entries) == 3
    assert usage.total_tokens == sum(entry.total_tokens for entry in usage.request_usage_entries)


async def test_an_agent_that_ends_in_time_needs_no_recovery(
    openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([*LOOKS, say("Done in three.")])
    agent = Agent(name="A", tools=[look_up], model=model)
    result = await ax.OpenAIRunner(agent_id, max_turns_recovery=True).run(agent, max_turns=3)
    assert result.final_output == "Done in three."
    assert len(openai.requests()) == 3


@both_modes
async def test_the_wrap_up_prompt_can_be_replaced(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([*LOOKS, say("{prompt} So be it.")])
    runner = ax.OpenAIRunner(
        agent_id, max_turns_recovery=True, wrap_up_prompt="Please summarize your findings."
    )
    result = await finish(runner, mode, Agent(name="A", tools=[look_up], model=model), max_turns=2)
    assert result.final_output == "Please summarize your findings. So be it."


def looking_up(*topics: str) -> ScriptedModel:
    """Return a model that looks up each topic in a turn of its own, and then answers."""
    calls = [[function_call("look_up", {"topic": topic}, call_id=f"call_{topic}")] for topic in topics]
    return ScriptedModel([*calls, [assistant_message("In short, 42.")]])


@both_modes
async def test_with_recovery_turns_the_agent_keeps_its_tools_until_the_last_one(
    mode: Mode, agent_id: UUID
) -> None:
    model = looking_up("revenue", "staff", "debt", "cash")
    runner = ax.OpenAIRunner(agent_id, max_turns_recovery=True, recovery_turns=3, wrap_up_prompt="Finish.")
    assert runner.prompts.wrap_up == "Finish."
    agent = Agent(name="A", tools=[look_up], handoffs=[Agent(name="Another")], model=model)
    result = await finish(runner, mode, agent, max_turns=2)
    assert result.final_output == "In short, 42."
    assert result.last_agent is agent
    assert result.context_wrapper.usage.requests == 5
    assert [(len(call.tools), len(call.handoffs)) for call in model.calls] == [(1, 1)] * 2 + [(1, 0)] * 2 + [
        (0, 0)
    ]
    outputs = [item["output"] for item in model.calls[-1].input if "output" in item]
    assert outputs == ["revenue: 42", "staff: 42", "debt: 42", "cash: 42"]
    assert model.calls[-1].input[-1] == {"role": "user", "content": "Finish."}
    assert reports_of(agent_id) == [(WRAP_UP_MESSAGE, None)]


async def test_an_agent_may_answer_before_its_recovery_turns_are_used_up(agent_id: UUID) -> None:
    model = looking_up("revenue", "staff")
    runner = ax.OpenAIRunner(agent_id, max_turns_recovery=True, recovery_turns=5)
    result = await runner.run(Agent(name="A", tools=[look_up], model=model), max_turns=2)
    assert result.final_output == "In short, 42."
    assert "5 more turns" in model.calls[-1].input[-1]["content"]


@pytest.mark.parametrize("turns", [0, -1, 1.5, True, "3"])
def test_recovery_turns_are_a_positive_number(turns: Any, agent_id: UUID) -> None:
    with pytest.raises(ax.UsageError, match=r"^recovery_turns= must be 1 or more"):
        ax.OpenAIRunner(agent_id, recovery_turns=turns)


@both_modes
async def test_the_callers_own_error_handler_wins(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    def handler(data: RunErrorHandlerInput[Any]) -> str:
        return f"The caller's answer after {len(data.run_data.raw_responses)} responses"

    openai.script([*LOOKS, say("Never said.")])
    result = await finish(
        ax.OpenAIRunner(agent_id, max_turns_recovery=True),
        mode,
        Agent(name="A", tools=[look_up], model=model),
        max_turns=2,
        error_handlers={"max_turns": handler},
    )
    assert result.final_output == "The caller's answer after 2 responses"
    assert len(openai.requests()) == 2


@both_modes
async def test_a_wrapped_up_answer_has_the_agents_output_type(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([*LOOKS, say('{"company": "Acme", "employees": 42}')])
    agent = Agent(name="A", tools=[look_up], model=model, output_type=Finding)
    result = await finish(ax.OpenAIRunner(agent_id, max_turns_recovery=True), mode, agent, max_turns=2)
    assert result.final_output == Finding(company="Acme", employees=42)


@both_modes
async def test_a_wrapped_up_answer_may_be_a_list(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([*LOOKS, say('{"response": [{"company": "Acme", "employees": 42}]}')])
    agent = Agent(name="A", tools=[look_up], model=model, output_type=list[Finding])
    result = await finish(ax.OpenAIRunner(agent_id, max_turns_recovery=True), mode, agent, max_turns=2)
    assert result.final_output == [Finding(company="Acme", employees=42)]


@both_modes
async def test_after_a_handoff_the_last_agent_sums_up(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([call("transfer_to_writer"), call("look_up", topic="style"), say("Written.")])
    writer = Agent(name="Writer", instructions="You write.", tools=[look_up], model=model)
    first = Agent(name="First", instructions="You hand over.", handoffs=[writer], model=model)
    result = await finish(ax.OpenAIRunner(agent_id, max_turns_recovery=True), mode, first, max_turns=2)
    assert result.final_output == "Written."
    assert result.last_agent is writer
    assert last_body(openai)["instructions"] == "You write."


@both_modes
async def test_a_session_holds_the_wrapped_up_answer_but_not_its_prompt(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    openai.script([*LOOKS, say("In short, 42.")])
    session = SQLiteSession("talk")
    await session.add_items([{"role": "user", "content": "Remember Acme."}])
    agent = Agent(name="A", tools=[look_up], model=model)
    runner = ax.OpenAIRunner(agent_id, max_turns_recovery=True)
    await finish(runner, mode, agent, input="Go", max_turns=2, session=session)
    seen = [item.get("content") for item in last_body(openai)["input"] if item.get("role") == "user"]
    assert seen == ["Remember Acme.", "Go", WRAP_UP_PROMPT]
    kept = await session.get_items()
    assert [item.get("content") for item in kept if item.get("role") == "user"] == ["Remember Acme.", "Go"]
    assert text_of(kept[-1]) == "In short, 42."


@both_modes
async def test_the_wrap_up_is_seen_by_guardrails_once_and_by_hooks_as_a_model_call(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID
) -> None:
    seen: list[str] = []

    @output_guardrail
    async def check(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        seen.append("guardrail")
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    class Hooks(RunHooks[Any]):
        async def on_agent_start(self, context: Any, agent: Any) -> None:
            seen.append("start")

        async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
            seen.append("end")

        async def on_llm_start(
            self, context: Any, agent: Any, system_prompt: str | None, input_items: list[Any]
        ) -> None:
            seen.append("model" if agent is first else "model of another")

    class HooksOfTheAgent(AgentHooks[Any]):
        async def on_start(self, context: Any, agent: Any) -> None:
            seen.append("agent start")

        async def on_end(self, context: Any, agent: Any, output: Any) -> None:
            seen.append("agent end")

        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            seen.append("answer" if agent is first else "answer of another")

    openai.script([*LOOKS, say("In short, 42.")])
    first = Agent(name="A", tools=[look_up], model=model, output_guardrails=[check], hooks=HooksOfTheAgent())
    runner = ax.OpenAIRunner(agent_id, max_turns_recovery=True)
    await finish(
        runner, mode, first, max_turns=2, hooks=Hooks(), run_config=RunConfig(output_guardrails=[check])
    )
    calls = ["model", "answer"] * 3
    assert seen == ["start", "agent start", *calls, "end", "agent end", "guardrail", "guardrail"]


@both_modes
async def test_an_agent_that_must_call_a_tool_can_still_sum_up(mode: Mode, agent_id: UUID) -> None:
    model = ScriptedModel(
        [[function_call("look_up", {"topic": "a"}, call_id="c1")], [assistant_message("42")]]
    )
    agent = Agent(
        name="A",
        tools=[look_up],
        model=model,
        model_settings=ModelSettings(tool_choice="required", parallel_tool_calls=True, temperature=0.5),
        reset_tool_choice=False,
    )
    runner = ax.OpenAIRunner(agent_id, max_turns_recovery=True)
    result = await finish(
        runner, mode, agent, max_turns=1, run_config=RunConfig(model_settings=ModelSettings(max_tokens=9))
    )
    assert result.final_output == "42"
    settings = model.calls[-1].model_settings
    assert (settings.tool_choice, settings.parallel_tool_calls) == (None, None)
    assert (settings.temperature, settings.max_tokens) == (0.5, 9)


@both_modes
async def test_an_agent_that_does_not_sum_up_fails_at_its_turn_limit(
    mode: Mode, agent_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    model = ScriptedModel([[function_call("look_up", {"topic": "a"}, call_id=f"c{n}")] for n in range(3)])
    agent = Agent(name="Stubborn", tools=[look_up], model=model)
    with pytest.raises(MaxTurnsExceeded):
        await finish(ax.OpenAIRunner(agent_id, max_turns_recovery=True), mode, agent, max_turns=2)
    assert "Stubborn could not sum up" in caplog.text


@both_modes
async def test_an_error_of_the_wrap_up_call_is_not_hidden(mode: Mode, agent_id: UUID) -> None:
    model = ScriptedModel(
        [[function_call("look_up", {"topic": "a"}, call_id="c1")], ConnectionError("no way out")]
    )
    agent = Agent(name="A", tools=[look_up], model=model)
    with pytest.raises(ConnectionError, match="no way out"):
        await finish(ax.OpenAIRunner(agent_id, max_turns_recovery=True), mode, agent, max_turns=1)


@both_modes
@pytest.mark.parametrize(
    ("options", "conversation"),
    [
        ({"auto_previous_response_id": True}, (None, "resp-2")),
        ({"previous_response_id": "resp-0"}, (None, "resp-2")),
        ({"conversation_id": "conv-1"}, ("conv-1", None)),
    ],
)
async def test_the_wrap_up_continues_a_conversation_that_openai_keeps(
    mode: Mode, options: dict[str, Any], conversation: tuple[str | None, str | None], agent_id: UUID
) -> None:
    model = ScriptedModel(
        [
            {"output": [function_call("look_up", {"topic": "a"}, call_id="c1")], "response_id": "resp-1"},
            {
                "output": [
                    function_call("look_up", {"topic": "b"}, call_id="c2"),
                    function_call("look_up", {"topic": "c"}, call_id="c3"),
                ],
                "response_id": "resp-2",
            },
            {"output": [assistant_message("42")], "response_id": "resp-3"},
        ]
    )
    agent = Agent(name="A", tools=[look_up], model=model)
    runner = ax.OpenAIRunner(agent_id, max_turns_recovery=True)
    result = await finish(runner, mode, agent, max_turns=2, **options)
    assert result.final_output == "42"
    wrap_up = model.calls[-1]
    assert (wrap_up.conversation_id, wrap_up.previous_response_id) == conversation
    assert [item.get("call_id") for item in wrap_up.input] == ["c2", "c3", None]


# ---- tracing -----------------------------------------------------------------------------------------------


class Collector(TracingProcessor):
    """Collector of this process's traces, in place of an exporter."""

    def __init__(self) -> None:
        self.traces: list[dict[str, Any]] = []
        self.traced: set[str] = set()

    def on_trace_start(self, trace: Trace) -> None:
        self.traces.append(trace.export() or {})

    def on_span_start(self, span: Any) -> None:
        self.traced.add(span.trace_id)

    def on_trace_end(self, trace: Trace) -> None: ...
    def on_span_end(self, span: Any) -> None: ...
    def shutdown(self) -> None: ...
    def force_flush(self) -> None: ...


@pytest.fixture
def collector(openai: MockOpenAI) -> Iterator[Collector]:
    collector = Collector()
    set_trace_processors([collector])
    default_exporter().api_key = None  # It keeps a key that an earlier test has had in the environment.
    yield collector
    set_trace_processors([default_processor()])
    default_exporter().api_key = None


@both_modes
async def test_without_a_key_nothing_is_traced(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID, collector: Collector
) -> None:
    openai.script([say("Fine.")])
    await finish(ax.OpenAIRunner(agent_id), mode, Agent(name="A", model=model))
    assert collector.traces == []


@both_modes
async def test_with_a_key_a_trace_is_grouped_by_its_task(
    mode: Mode,
    openai: MockOpenAI,
    model: Model,
    agent_id: UUID,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    openai.script([*LOOKS, say("Fine.")])
    agent = Agent(name="A", model=model, tools=[look_up])
    await finish(ax.OpenAIRunner(agent_id, max_turns_recovery=True), mode, agent, max_turns=2)
    assert [(t["group_id"], t["metadata"]) for t in collector.traces] == [
        (str(agent_id), {"agent_id": str(agent_id)})
    ]


@both_modes
async def test_the_callers_run_config_decides_about_tracing(
    mode: Mode, openai: MockOpenAI, model: Model, agent_id: UUID, collector: Collector
) -> None:
    openai.script([say("Fine.")])
    config = RunConfig(
        workflow_name="mine", group_id="chat 7", trace_metadata={"agent_id": "x", "tenant": "7"}
    )
    await finish(ax.OpenAIRunner(agent_id), mode, Agent(name="A", model=model), run_config=config)
    assert [(t["workflow_name"], t["group_id"], t["metadata"]) for t in collector.traces] == [
        ("mine", "chat 7", {"agent_id": "x", "tenant": "7"})
    ]
    off = RunConfig(tracing_disabled=True)
    await finish(ax.OpenAIRunner(agent_id), mode, Agent(name="A", model=model), run_config=off)
    assert len(collector.traces) == 1


async def test_a_trace_that_the_caller_has_opened_is_used(
    openai: MockOpenAI, model: Model, agent_id: UUID, collector: Collector
) -> None:
    openai.script([say("Fine.")])
    with trace("the caller's") as opened:
        result = await ax.OpenAIRunner(agent_id).run(Agent(name="A", model=model))
    assert [t["id"] for t in collector.traces] == [opened.trace_id]
    assert collector.traced == {opened.trace_id}
    assert result.final_output == "Fine."


@pytest.mark.thorough
def test_without_a_key_a_run_leaves_no_thread_no_output_and_no_delay(
    openai: MockOpenAI, tmp_path: Path
) -> None:
    openai.script([*LOOKS, say("Fine.")])
    program = """
import atexit, time
atexit.register(lambda: print(time.time()))  # the first that is registered is the last that is called
import asyncio, threading
from agents import Agent, OpenAIResponsesModel, function_tool
from openai import AsyncOpenAI
import agentexec as ax

async def main():
    ax.Base.metadata.create_all(ax.get_engine())
    agent_id = ax.activity.create("research")
    async with AsyncOpenAI(api_key="test") as client:
        agent = Agent(name="A", model=OpenAIResponsesModel("gpt-4o-mini", client))
        runner = ax.OpenAIRunner(agent_id)
        print((await runner.run(agent, "Go")).final_output)
        result = await runner.run_streamed(agent, "Go")
        async for _ in result.stream_events():
            pass
        print(result.final_output)

asyncio.run(main())
names = [thread.name for thread in threading.enumerate() if not thread.name.startswith("agentexec")]
assert names == ["MainThread"], names
print(time.time())
"""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "AGENTEXEC_"))
    }
    environment |= {
        "OPENAI_BASE_URL": openai.base_url,
        "AGENTEXEC_DATABASE_URL": f"sqlite:///{tmp_path / 'own.db'}",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=patient(60),
    )
    lines = done.stdout.split("\n")
    assert (done.returncode, done.stderr, lines[:2]) == (0, "", ["Fine.", "Fine."])
    ending = float(lines[3]) - float(lines[2])
    assert ending < 4, "the tracing of the SDK would wait five seconds for its server"
