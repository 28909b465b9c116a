"""OpenAIRunner, which runs agents of the OpenAI Agents SDK within a task."""

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

from agentexec.config import CONF
from agentexec.errors import UsageError
from agentexec.journal.calls import tool_policy as mark_policy
from agentexec.journal.recorder import Policy, ReplayProgress
from agentexec.journal.scopes import SCOPE
from agentexec.journal.steps import run_step_once
from agentexec.runners.base import WRAP_UP_PROMPT, BaseAgentRunner, ReportStatus
from agentexec.runners.openai.approvals import ResumableStream, resolve_interruptions
from agentexec.runners.openai.durable import patch_sdk, run_of
from agentexec.runners.openai.recovery import FINISH_PROMPT, WrapUp
from agentexec.runners.openai.tools import NO_INTENT_MARK
from agentexec.runners.openai.tracing import trace_id_of

ContextT = TypeVar("ContextT")

BEGIN = "Begin."
"""Default input of a run: the API requires at least one message besides the instructions."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunPlan(Generic[ContextT]):
    """Everything that the SDK gets for one run. It is made in one place, which adds what every run needs."""

    agent: Agent[ContextT]
    input: str | list[TResponseInputItem] | RunState[ContextT]
    options: RunOptions[ContextT]


class OpenAIRunner(BaseAgentRunner[FunctionTool]):
    """Runner of agents of the OpenAI Agents SDK within one task.

    Put `prompts.report_status` into an agent's instructions and `tools.report_status` into its tools, and the agent
    reports its own progress.

    In the task's worker a run is durable: the models' responses and the tools' outputs are recorded. When another
    worker runs the handler again, `run` answers from the record until it comes to something new. A tool with
    `needs_approval` takes the task off its worker until somebody has decided (`ax.approve`, `ax.reject`); then the
    run continues.

    Tracing is off if there is no key to export traces with (OPENAI_API_KEY or `set_tracing_export_api_key`) and no
    trace is open; pass `run_config=RunConfig()` to trace to processors of your own. A task has one trace, whose id is made
    from its agent_id, in all attempts; what a replay repeats is not written again. Traces are grouped by agent_id.

    Args:
        agent_id: The task's id, as the handler got it.
        max_turns_recovery: Ask an agent that has used up `max_turns` once more, without tools, to answer with what it
            has, instead of failing with MaxTurnsExceeded.
        wrap_up_prompt: Text for the agent in that case, also in `prompts.wrap_up`; None takes the default.
        recovery_turns: Turns for that answer. With more than one, the agent keeps its tools for all but the last.
        report_status_prompt: Text that replaces the default of `prompts.report_status`.
        tool_policy: Policy of tools without `@ax.tool_policy`, for calls that were cut off.
        approval_timeout: Seconds, or a timedelta, after which a call that nobody has approved is rejected; None waits
            without limit.
        background: Let OpenAI answer in the background, so that no response is asked for, and paid, twice: another worker
            fetches it. An agent's `ModelSettings(extra_args={"background": …})` comes first.

    Raises:
        UsageError: `agent_id` is not an id, there is no such policy, or `recovery_turns` is not positive.
        AgentexecError: The installed release of openai-agents cannot run durably.
    """

    def __init__(
        self,
        agent_id: UUID | str,
        *,
        max_turns_recovery: bool = False,
        wrap_up_prompt: str | None = None,
        recovery_turns: int = 1,
        report_status_prompt: str | None = None,
        tool_policy: Policy = "fail",
        approval_timeout: float | timedelta | None = None,
        background: bool = False,
    ) -> None:
        if isinstance(recovery_turns, bool) or not isinstance(recovery_turns, int) or recovery_turns < 1:
            raise UsageError(f"recovery_turns= must be 1 or more, not {recovery_turns!r}.")
        patch_sdk()
        if wrap_up_prompt is None:
            wrap_up_prompt = (
                WRAP_UP_PROMPT if recovery_turns == 1 else FINISH_PROMPT.format(turns=recovery_turns)
            )
        super().__init__(
            agent_id,
            report_status_prompt=report_status_prompt,
            wrap_up_prompt=wrap_up_prompt,
            tool_policy=tool_policy,
            approval_timeout=approval_timeout,
        )
        self.background = background
        self.max_turns_recovery = max_turns_recovery
        self.wrap_up_prompt = wrap_up_prompt
        self.recovery_turns = recovery_turns

    async def run(
        self,
        agent: Agent[ContextT],
        input: str | list[TResponseInputItem] | RunState[ContextT] = BEGIN,
        **options: Unpack[RunOptions[ContextT]],
    ) -> RunResult:
        """Run an agent to its end.

        Args:
            agent: The agent that starts.
            input: Text, items, or the state of an interrupted run; by default "Begin.".
            **options: Options of the SDK's `Runner.run`: context, max_turns, hooks, run_config, error_handlers,
                previous_response_id, auto_previous_response_id, conversation_id, session.

        Returns:
            The SDK's result.

        Raises:
            ReplayDivergedError: The handler asks for something other than an earlier attempt recorded.
            LeaseLostError: Another worker has the task.
            RetryLater: A model is rate limited for longer than AGENTEXEC_RATE_LIMIT_WAIT seconds.
            PayloadTooLargeError: A response or output is larger than AGENTEXEC_MAX_PAYLOAD_BYTES.
            Exception: Whatever `Runner.run` raises.
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
        """Start an agent and return at once.

        Iterate `stream_events()` to the end: `final_output` is set, and errors are raised, only there. The answer
        of a max-turns recovery comes as one item, without deltas. The run is canceled with the asyncio task that
        started it.

        Args:
            agent: The agent that starts.
            input: Text, items, or the state of an interrupted run; by default "Begin.".
            **options: Options of `run`.

        Returns:
            The SDK's streamed result, whose events continue after approvals. It raises the errors of `run`.
        """
        plan = self._plan(agent, input, options)

        async def start(input: Any) -> RunResultStreaming:
            async with self._durably():
                result = Runner.run_streamed(plan.agent, input, **plan.options)
            _cancel_with_caller(result)
            return result

        result = await start(plan.input)
        stream: Any = result if run_of(result) is None else ResumableStream(result, start)
        return stream

    def make_tool(self, report_status: ReportStatus) -> FunctionTool:
        """Return the SDK's tool, whose schema and description are read from the function.

        Args:
            report_status: A coroutine function of a message and a percentage (0 to 100).

        Returns:
            The tool, with the policy "idempotent".
        """
        tool = function_tool(report_status, name_override="report_status")
        # A report may be made twice, so its intent is not worth a row. Its outcome keeps a replay from reporting again.
        setattr(tool, NO_INTENT_MARK, True)
        return mark_policy("idempotent")(tool)

    @asynccontextmanager
    async def _durably(self) -> AsyncGenerator[None]:
        """Make the runs that start inside the block durable, if this is the task's own worker."""
        scope = self._scope()
        if scope is None:
            yield
            return
        await scope.recorder.open()
        replay = scope.replay or ReplayProgress(self._report_resumed)
        token = SCOPE.set(
            dataclasses.replace(
                scope, durable=True, replay=replay, background=self.background or scope.background
            )
        )
        try:
            yield
        finally:
            SCOPE.reset(token)

    async def _report_resumed(self, turn: int) -> None:
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
            wrap_up = WrapUp(self.wrap_up_prompt, options, self._report_once, self.recovery_turns)
            options["error_handlers"] = {**handlers, "max_turns": wrap_up}
        return RunPlan(agent, input, options)

    def _run_config(self, given: RunConfig | dict[str, Any] | None) -> RunConfig | dict[str, Any]:
        """Return the caller's settings, with this task's values for those left open.

        The group identifies the task in traces. The SDK also derives its prompt cache key from it, so every attempt
        of a task finds the cache of the previous one.
        """
        task = str(self.agent_id)
        if isinstance(given, RunConfig):
            metadata = {"agent_id": task, **(given.trace_metadata or {})}
            trace_id = given.trace_id or trace_id_of(self.agent_id)
            return dataclasses.replace(
                given, trace_id=trace_id, group_id=given.group_id or task, trace_metadata=metadata
            )
        # Pass a mapping on, not a RunConfig: the SDK closes a model provider after the run only if it made it itself.
        if given is None:
            given = {"tracing_disabled": not _can_trace()}
        metadata = {"agent_id": task, **(given.get("trace_metadata") or {})}
        return {
            **given,
            "trace_id": given.get("trace_id") or trace_id_of(self.agent_id),
            "group_id": given.get("group_id") or task,
            "trace_metadata": metadata,
        }


def _cancel_with_caller(result: RunResultStreaming) -> None:
    """Cancel a streamed run when the task that started it is canceled.

    The SDK does so only while the caller waits for the next event. Otherwise a canceled task would go on calling
    models and tools, perhaps at the same time as the worker that has the task now.
    """

    def cancel_run(task: asyncio.Task[Any]) -> None:
        if task.cancelled() and not result.is_complete:
            result.cancel()

    caller = asyncio.current_task()
    if caller is not None:
        caller.add_done_callback(cancel_run)


def _can_trace() -> bool:
    """Return True if traces have a destination: without a key the SDK starts a thread that logs a line per batch."""
    return bool(default_exporter().api_key) or get_current_trace() is not None or CONF.opentelemetry
