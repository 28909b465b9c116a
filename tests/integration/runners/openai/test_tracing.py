"""Traces of durable runs: one per task, each recorded step in it once, and all of it exported when a worker stops."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, RunConfig, custom_span, function_tool, set_trace_processors, trace
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tracing import TracingProcessor
from agents.tracing.processors import default_processor

import agentexec as ax
from agentexec.runtime import RUNTIME
from tests.attempts import ReplayableTask
from tests.deployment import REPOSITORY, Deploy, on_targets

AGENTS_MODULE = Path(__file__).parent / "agents_module.py"

both_modes = pytest.mark.parametrize("mode", ["run", "run_streamed"])


class Collector(TracingProcessor):
    """Collector of what would be exported."""

    def __init__(self) -> None:
        self.trace_ids: list[str] = []
        self.open: dict[str, Any] = {}
        self.spans: list[Any] = []

    def on_trace_start(self, trace: Any) -> None:
        self.trace_ids.append(trace.trace_id)

    def on_span_start(self, span: Any) -> None:
        assert span.parent_id is None or span.parent_id in self.open, "a span starts after its parent"
        self.open[span.span_id] = span

    def on_span_end(self, span: Any) -> None:
        del self.open[span.span_id]
        self.spans.append(span)

    def on_trace_end(self, trace: Any) -> None: ...
    def shutdown(self) -> None: ...
    def force_flush(self) -> None: ...

    def names(self, type: str) -> list[str]:
        return [span.span_data.name for span in self.spans if span.span_data.type == type]

    def count(self, type: str) -> int:
        return sum(span.span_data.type == type for span in self.spans)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    set_trace_processors([collector])
    yield collector
    set_trace_processors([default_processor()])


@pytest.fixture
def task(sqlite_tables: str) -> Iterator[ReplayableTask]:
    ax.configure(database_url=sqlite_tables)
    yield ReplayableTask()
    RUNTIME.close()


def researcher(*turns: Any) -> Agent[Any]:
    async def look(topic: str) -> str:
        with custom_span(f"inside {topic}"):
            return topic

    tool = ax.tool_policy("idempotent")(function_tool(look))
    return Agent("A", model=ScriptedModel(turns, emit_traces=True), tools=[tool])


def turns() -> list[Any]:
    calls = [
        [function_call("look", {"topic": topic}, call_id=topic) for topic in topics] for topics in ("ab", "c")
    ]
    return [*calls, [assistant_message("Done.")]]


async def finish(task: ReplayableTask, mode: str, agent: Agent[Any], **options: Any) -> Any:
    runner = ax.OpenAIRunner(task.agent_id)
    options.setdefault("run_config", RunConfig())
    if mode == "run":
        return await runner.run(agent, "Go.", **options)
    result = await runner.run_streamed(agent, "Go.", **options)
    async for _ in result.stream_events():
        pass
    return result


@both_modes
@pytest.mark.parametrize("cut", range(0, 11, 2))
async def test_a_resumed_run_writes_each_step_once_into_the_tasks_only_trace(
    task: ReplayableTask, collector: Collector, mode: str, cut: int
) -> None:
    await task.attempt(lambda: finish(task, mode, researcher(*turns())))
    whole = len(collector.spans)
    rows = task.journal()
    kept, lost = rows[:cut], rows[cut:]
    task.delete_entries([(path, seq) for path, seq, _ in lost])
    collector.spans.clear()
    done = sum(kind == "model" for _, _, kind in kept)
    await task.attempt(lambda: finish(task, mode, researcher(*turns()[done:])))
    recorded = [path.rpartition("/")[2] for path, _, kind in kept if kind == "outcome"]
    again = [topic for topic in "abc" if topic not in recorded]
    assert sorted(collector.names("custom"))[-len(again) or len(collector.spans) :] == [
        f"inside {topic}" for topic in again
    ]
    assert len(collector.names("function")) == len(again)
    assert collector.count("generation") == 3 - done
    assert set(collector.trace_ids) == {f"trace_{task.agent_id.hex}"}
    assert collector.open == {}
    if cut == 0:
        assert len(collector.spans) == whole
    if not lost:
        assert collector.spans == []


@both_modes
async def test_an_agent_that_is_a_tool_is_written_once(
    task: ReplayableTask, collector: Collector, mode: str
) -> None:
    def outer(*turns: Any, inner: Any) -> Agent[Any]:
        return Agent(
            "Outer", model=ScriptedModel(turns, emit_traces=True), tools=[inner.as_tool("ask", "Ask.")]
        )

    ask = [function_call("ask", {"input": "?"}, call_id="q")]
    await task.attempt(
        lambda: finish(task, mode, outer(ask, [assistant_message("Hi.")], inner=researcher(*turns())))
    )
    task.delete_entries([("Outer#1", 2)])
    collector.spans.clear()
    await task.attempt(lambda: finish(task, mode, outer([assistant_message("Hi.")], inner=researcher())))
    assert collector.count("generation") == 1
    assert collector.count("function") == 0
    assert [span.span_data.name for span in collector.spans if span.span_data.type == "agent"] == ["Outer"]


async def test_an_error_in_a_replay_is_written(task: ReplayableTask, collector: Collector) -> None:
    await task.attempt(lambda: finish(task, "run", researcher(*turns())))
    collector.spans.clear()
    with pytest.raises(Exception, match="Max turns"):
        await task.attempt(lambda: finish(task, "run", researcher(), max_turns=1))
    assert [span.span_data.type for span in collector.spans if span.error] == ["agent"]


@pytest.mark.parametrize("as_dict", [False, True])
async def test_the_callers_settings_of_a_trace_win(
    task: ReplayableTask, collector: Collector, as_dict: bool
) -> None:
    own = "trace_" + "7" * 32
    config: Any = {"trace_id": own} if as_dict else RunConfig(trace_id=own)
    await finish(task, "run", researcher([assistant_message("Hi.")]), run_config=config)
    with trace("mine", trace_id="trace_" + "8" * 32):
        await finish(task, "run", researcher([assistant_message("Hi.")]))
    config = {"tracing_disabled": True} if as_dict else RunConfig(tracing_disabled=True)
    await finish(task, "run", researcher([assistant_message("Hi.")]), run_config=config)
    assert collector.trace_ids == [own, "trace_" + "8" * 32]


@pytest.mark.thorough
@on_targets("embedded", alternates=False)
def test_a_worker_that_stops_exports_its_last_traces(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.spawn(
        [sys.executable, "-m", "agentexec", "worker", str(AGENTS_MODULE)], PYTHONPATH=str(REPOSITORY)
    )
    task = deployment.enqueue("traced", "t")
    deployment.wait_for_status(task, "complete")
    assert deployment.ledger("exported") == {}
    assert deployment.stop() == 0
    exported = deployment.ledger("exported")
    assert exported[f"trace_{task.agent_id.hex}"] == 1
    assert (exported["agent"], exported["generation"]) == (1, 1)
