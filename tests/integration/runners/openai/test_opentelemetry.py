"""Agents in the trace of their task: each model and tool call once, however often it is replayed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, RunConfig, function_tool, set_trace_processors
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tracing.processors import default_processor
from opentelemetry.instrumentation.openai_agents import OpenAIAgentsInstrumentor

import agentexec as ax
from agentexec.config import CONF
from agentexec.runners.openai import tracing as openai_tracing
from agentexec.runtime import RUNTIME
from agentexec.telemetry.tracing import Tracing
from tests.attempts import ReplayableTask
from tests.spans import Exported, attributes, ids

SECRET = "a-private-question"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exported]:
    found = Exported()
    monkeypatch.setattr(CONF, "opentelemetry", True)
    monkeypatch.setattr(RUNTIME, "_tracing", Tracing(found.tracers, found.meters))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", found.tracers)
    if OpenAIAgentsInstrumentor().is_instrumented_by_opentelemetry:  # by a test that ran before
        OpenAIAgentsInstrumentor().uninstrument()
    set_trace_processors([])
    yield found
    OpenAIAgentsInstrumentor().uninstrument()
    set_trace_processors([default_processor()])


@pytest.fixture
def task(sqlite_tables: str) -> Iterator[ReplayableTask]:
    ax.configure(database_url=sqlite_tables)
    yield ReplayableTask()
    RUNTIME.close()


KINDS = {"chat": "model", "text_completion": "model", "execute_tool": "tool"}
"""Operations of the conventions; which of them a model call is depends on the SDK's span for it."""


def operations(spans: list[Any]) -> list[str]:
    names = [str(attributes(span).get("gen_ai.operation.name")) for span in spans]
    return sorted(KINDS[name] for name in names if name in KINDS)


async def test_replayed_steps_make_no_spans_and_attempts_share_the_trace(
    task: ReplayableTask, exported: Exported
) -> None:
    @ax.tool_policy("idempotent")
    @function_tool
    async def look_up(word: str) -> str:
        """Look a word up."""
        return f"{word} is known"

    turns = [[function_call("look_up", {"word": SECRET}, call_id="c")], [assistant_message("Done.")]]

    async def attempt(*remaining: Any) -> None:
        tracing = RUNTIME.tracing
        assert tracing is not None
        model = ScriptedModel(remaining, emit_traces=True)
        with tracing.processing("research", task.agent_id, task.epoch, "queue", None):
            agent = Agent("Researcher", model=model, tools=[look_up])
            await ax.OpenAIRunner(task.agent_id).run(agent, SECRET, run_config=RunConfig())

    await task.attempt(lambda: attempt(*turns))
    assert operations(exported.spans()) == ["model", "model", "tool"]
    before = len(exported.spans())
    *_, (path, seq, _) = task.journal()
    task.delete_entries([(path, seq)])
    await task.attempt(lambda: attempt(*turns[1:]))
    again = exported.spans()[before:]
    assert operations(again) == ["model"]
    await task.attempt(attempt)
    assert operations(exported.spans()[before + len(again) :]) == []
    assert {ids(span)[0] for span in exported.spans()} == {task.agent_id.int}
    assert SECRET not in "".join(span.to_json() for span in exported.spans())
    tools = [
        span for span in exported.spans() if attributes(span).get("gen_ai.operation.name") == "execute_tool"
    ]
    assert attributes(tools[0])["gen_ai.tool.name"] == "look_up"


async def test_without_a_key_of_openai_nothing_is_sent_there(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(openai_tracing.default_exporter(), "_api_key", None, raising=False)
    vars(openai_tracing.default_exporter()).pop("api_key", None)
    set_trace_processors([default_processor()])
    openai_tracing.patch_tracing()
    provider: Any = openai_tracing.get_trace_provider()
    processors = provider._multi_processor._processors
    assert default_processor() not in processors and len(processors) == 1
