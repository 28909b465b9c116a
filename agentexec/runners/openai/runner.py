"""OpenAIRunner: runs agents of the OpenAI Agents SDK within a task."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Generic, TypeVar, Unpack
from uuid import UUID

from agents import (
    Agent,
    FunctionTool,
    RunConfig,
    Runner,
    RunResult,
    RunResultStreaming,
    RunState,
    TResponseInputItem,
    function_tool,
    get_current_trace,
)
from agents.run import RunOptions
from agents.tracing.processors import default_exporter

from agentexec.journal.calls import tool_policy as mark_policy
from agentexec.journal.recorder import SCOPE, Policy, ReplayProgress
from agentexec.journal.steps import run_step_once
from agentexec.runners.base import BaseAgentRunner, ReportStatus
from agentexec.runners.openai.approvals import ResumableStream, resolve_interruptions
from agentexec.runners.openai.durable import patch_sdk, run_of
from agentexec.runners.openai.recovery import WRAP_UP_PROMPT, WrapUp
from agentexec.runners.openai.tools import NO_INTENT_MARK

ContextT = TypeVar("ContextT")

BEGIN = "Begin."
"""The input of a run that is given none: the API wants at least one message beside the instructions."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunPlan(Generic[ContextT]):
    """All that the SDK is given for one run. It is made in one place: what goes into every run goes in there."""

    agent: Agent[ContextT]
    input: str | list[TResponseInputItem] | RunState[ContextT]
    options: RunOptions[ContextT]


class OpenAIRunner(BaseAgentRunner[FunctionTool]):
    """Runs agents of the OpenAI Agents SDK within one task.

    `prompts.report_status` goes into an agent's instructions and `tools.report_status` into its tools: then the
    agent reports its own progress.

    `agent_id`: the task's, as the handler got it. `max_turns_recovery`: an agent that has used up `max_turns` is
    asked once more, without tools, to answer with what it has, instead of failing with MaxTurnsExceeded.
    `wrap_up_prompt`: what it is told then. `report_status_prompt`: replaces the text of `prompts.report_status`.
    `tool_policy`: what happens to a tool call that was cut off, for tools without `@ax.tool_policy`.

    `approval_timeout`: seconds, or a timedelta, after which a call that nobody has approved is rejected; None waits
    for ever.

    In the task's worker a run is durable: what models answered and tools returned is recorded, and when another
    worker runs the handler again, `run` gives it from there. Raises ReplayDivergedError when the handler
    then asks for something else. A tool with `needs_approval` takes the task off its worker until somebody has
    decided (`ax.approve`, `ax.reject`); then the run goes on.

    Tracing: off where there is no key to send traces with (OPENAI_API_KEY or `set_tracing_export_api_key`) and no
    trace is open; pass `run_config=RunConfig()` to trace to processors of your own. Traces are grouped by agent_id.
    """

    def __init__(
        self,
        agent_id: UUID | str,
        *,
        max_turns_recovery: bool = False,
        wrap_up_prompt: str | None = None,
        report_status_prompt: str | None = None,
        tool_policy: Policy = "fail",
        approval_timeout: float | timedelta | None = None,
    ) -> None:
        patch_sdk()
        super().__init__(
            agent_id,
            report_status_prompt=report_status_prompt,
            tool_policy=tool_policy,
            approval_timeout=approval_timeout,
        )
        self.max_turns_recovery = max_turns_recovery
        self.wrap_up_prompt = WRAP_UP_PROMPT if wrap_up_prompt is None else wrap_up_prompt

    async def run(
        self,
        agent: Agent[ContextT],
        input: str | list[TResponseInputItem] | RunState[ContextT] = BEGIN,
        **options: Unpack[RunOptions[ContextT]],
    ) -> RunResult:
        """Run an agent to its end.

        `options` are those of the SDK's `Runner.run`: context, max_turns, hooks, run_config, error_handlers,
        previous_response_id, auto_previous_response_id, conversation_id, session. Without an input the agent is
        told "Begin.". Raises what `Runner.run` raises.
        """
        plan = self._plan(agent, input, options)
        async with self._durably():
            result = await Runner.run(plan.agent, plan.input, **plan.options)
            while (state := await resolve_interruptions(result)) is not None:
                result = await Runner.run(plan.agent, state, **plan.options)
        return result

    async def run_streamed(
        self,
        agent: Agent[ContextT],
        input: str | list[TResponseInputItem] | RunState[ContextT] = BEGIN,
        **options: Unpack[RunOptions[ContextT]],
    ) -> RunResultStreaming:
        """Start an agent and return at once; the arguments are those of `run`.

        Iterate `stream_events()` to the end: `final_output` is set, and errors are raised, only there. The answer
        of a max-turns recovery comes as one item, without deltas. The run is canceled with the asyncio task that
        started it.
        """
        plan = self._plan(agent, input, options)

        async def start(begin: Any) -> RunResultStreaming:
            async with self._durably():
                result = Runner.run_streamed(plan.agent, begin, **plan.options)
            _end_with_caller(result)
            return result

        result = await start(plan.input)
        stream: Any = result if run_of(result) is None else ResumableStream(result, start)
        return stream

    def make_tool(self, report_status: ReportStatus) -> FunctionTool:
        """The SDK's tool; its schema and description are read from the function."""
        tool = function_tool(report_status, name_override="report_status")
        # A report may be made twice, so its beginning is not worth a row; its outcome keeps a replay from the log.
        setattr(tool, NO_INTENT_MARK, True)
        return mark_policy("idempotent")(tool)

    @asynccontextmanager
    async def _durably(self) -> AsyncGenerator[None]:
        """Make the runs that start in here durable, if this is the task's own worker."""
        scope = self._scope()
        if scope is None:
            yield
            return
        await scope.recorder.open()
        turns = scope.replay or ReplayProgress(self._resumed)
        token = SCOPE.set(dataclasses.replace(scope, durable=True, replay=turns))
        try:
            yield
        finally:
            SCOPE.reset(token)

    async def _resumed(self, turn: int) -> None:
        scope = self._scope()
        attempt = scope.recorder.attempt if scope is not None else 1
        await self.try_to_report(f"Resumed at turn {turn} (attempt {attempt})")

    async def _report_once(self, message: str) -> bool:
        return await run_step_once(self._scope(), "report", functools.partial(self.try_to_report, message))

    def _plan(
        self,
        agent: Agent[ContextT],
        input: str | list[TResponseInputItem] | RunState[ContextT],
        options: RunOptions[ContextT],
    ) -> RunPlan[ContextT]:
        options["run_config"] = self._run_config(options.get("run_config"))
        handlers = options.get("error_handlers") or {}
        if self.max_turns_recovery and "max_turns" not in handlers:
            wrap_up = WrapUp(self.wrap_up_prompt, options, self._report_once)
            options["error_handlers"] = {**handlers, "max_turns": wrap_up}
        return RunPlan(agent, input, options)

    def _run_config(self, given: RunConfig | dict[str, Any] | None) -> RunConfig | dict[str, Any]:
        """The caller's settings, with what they leave open set for this task.

        The group stands for the task in traces, and the SDK derives its prompt cache key from it: every attempt
        of a task finds the cache of the one before.
        """
        task = str(self.agent_id)
        if isinstance(given, RunConfig):
            metadata = {"agent_id": task, **(given.trace_metadata or {})}
            return dataclasses.replace(given, group_id=given.group_id or task, trace_metadata=metadata)
        # A mapping, not a RunConfig: the SDK closes a model provider after the run only if it made it itself.
        if given is None:
            given = {"tracing_disabled": not _can_trace()}
        metadata = {"agent_id": task, **(given.get("trace_metadata") or {})}
        return {**given, "group_id": given.get("group_id") or task, "trace_metadata": metadata}


def _end_with_caller(result: RunResultStreaming) -> None:
    """Cancel a streamed run when the task that started it is canceled.

    The SDK does so only while the caller waits for the next event; otherwise a canceled task would go on calling
    models and tools, perhaps beside the worker that has it now.
    """

    def ended(task: asyncio.Task[Any]) -> None:
        if task.cancelled() and not result.is_complete:
            result.cancel()

    caller = asyncio.current_task()
    if caller is not None:
        caller.add_done_callback(ended)


def _can_trace() -> bool:
    """True if a trace would go somewhere: without a key the SDK starts a thread that logs a line per batch."""
    return bool(default_exporter().api_key) or get_current_trace() is not None
