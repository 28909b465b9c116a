"""Base of all runners: recorded steps, and progress reports that an agent can make itself."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from agentexec.activity.changes.reports import update
from agentexec.errors import AgentexecError
from agentexec.journal.calls import require_policy
from agentexec.journal.recorder import Policy, Scope, scope_of
from agentexec.journal.steps import StepCall, run_step
from agentexec.runtime import RUNTIME
from agentexec.task import parse_agent_id

log = logging.getLogger("agentexec.runners")

ToolT = TypeVar("ToolT")

ReportStatus = Callable[[str, int], Awaitable[str]]

REPORT_STATUS_PROMPT = (
    "Somebody is waiting for this work and sees only what you report. Call the report_status tool when you begin "
    "and whenever you turn to a new step, with a short phrase in the present tense, such as "
    '"Gathering financials", and with the percentage of the whole work that is done. Never report a lower '
    "percentage than before, and do not speak of these reports in your answer."
)
"""Default text of `runner.prompts.report_status`."""

WRAP_UP_PROMPT = (
    "Your turns are used up and your tools are gone. Answer now, as completely as you can, with what you have found "
    "out so far, and say what is missing."
)
"""Default text of `runner.prompts.wrap_up`, for an agent that has used up its turns."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prompts:
    """Texts for an agent: for its instructions, and for its last turn."""

    report_status: str
    wrap_up: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tools(Generic[ToolT]):
    """Tools for an agent, bound to the runner's task, in the form that its SDK takes."""

    report_status: ToolT


class BaseAgentRunner(ABC, Generic[ToolT]):
    """Runner of agents within one task; subclass it to run the agents of another SDK.

    A subclass writes `run`, and `make_tool` if its SDK takes more than a coroutine function as a tool.

    Args:
        agent_id: The task's id, as the handler got it.
        report_status_prompt: Text that replaces the default of `prompts.report_status`.
        wrap_up_prompt: Text that replaces the default of `prompts.wrap_up`.
        tool_policy: Policy of calls without a policy of their own; see `ax.tool_policy`.
        approval_timeout: Seconds, or a timedelta, after which a question to a person (the policy "ask") counts as
            answered with no; None waits without limit.

    Raises:
        UsageError: `agent_id` is not an id, or there is no such policy.
    """

    agent_id: UUID
    prompts: Prompts

    def __init__(
        self,
        agent_id: UUID | str,
        *,
        report_status_prompt: str | None = None,
        wrap_up_prompt: str | None = None,
        tool_policy: Policy = "fail",
        approval_timeout: float | timedelta | None = None,
    ) -> None:
        require_policy(tool_policy)
        self.approval_seconds = (
            approval_timeout.total_seconds() if isinstance(approval_timeout, timedelta) else approval_timeout
        )
        self.tool_policy: Policy = tool_policy
        self.agent_id = parse_agent_id(agent_id)
        self.prompts = Prompts(
            REPORT_STATUS_PROMPT if report_status_prompt is None else report_status_prompt,
            WRAP_UP_PROMPT if wrap_up_prompt is None else wrap_up_prompt,
        )

    @functools.cached_property
    def tools(self) -> Tools[ToolT]:
        """Tools for an agent. They are made on first use: reading their schema off a function takes milliseconds."""
        return Tools(self.make_tool(self._report_status))

    @abstractmethod
    async def run(self, agent: Any, input: Any) -> Any:
        """Run an agent to its end.

        Args:
            agent: An agent of the runner's SDK.
            input: The agent's input, in the form that the SDK takes.

        Returns:
            The result, in the form that the SDK gives.
        """

    def make_tool(self, report_status: ReportStatus) -> ToolT:
        """Return a tool that calls `report_status`, in the form that the SDK takes.

        Args:
            report_status: A coroutine function of a message and a percentage (0 to 100).

        Returns:
            The tool; by default the coroutine function itself.
        """
        return cast(ToolT, report_status)

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        result_type: Any = None,
        policy: Policy | None = None,
    ) -> Any:
        """Call a function once in the life of the task; later attempts get its recorded value.

        Steps are told apart by name, arguments and order. Outside the task's worker this is a plain call.

        Args:
            name: The step's name.
            function: A coroutine function, or a plain one, which runs in a thread.
            *args: The function's arguments.
            result_type: Type as which the value is read back from JSON; None gives plain JSON data.
            policy: Policy for a step that was cut off (see `ax.tool_policy`); None takes the runner's `tool_policy`.

        Returns:
            The function's value after its way through JSON, which is the same in every attempt.

        Raises:
            CallInterruptedError: The step was cut off, and its policy or a person does not let it run again.
            ReplayDivergedError: An earlier attempt called another step here.
            LeaseLostError: Another worker has the task.
            PayloadTooLargeError: The value is larger than AGENTEXEC_MAX_PAYLOAD_BYTES.
            AgentexecError: The value cannot be written as JSON.
            UsageError: There is no such policy.
            Exception: Whatever the function raises.
        """
        policy = self.tool_policy if policy is None else policy
        require_policy(policy)
        return await run_step(self._scope(), StepCall(name, function, args, result_type), policy)

    def _scope(self) -> Scope | None:
        """Return the place of the running code in the task; None outside the task's worker."""
        scope = scope_of(self.agent_id)
        if scope is not None and scope.replay is None:
            scope = dataclasses.replace(
                scope, policy=self.tool_policy, approval_seconds=self.approval_seconds
            )
        return scope

    async def report(self, message: str, percentage: int | None = None) -> None:
        """Report progress: `ax.activity.update` for this task, in a thread if it would block the event loop.

        Args:
            message: Log line, also shown as the task's latest message.
            percentage: Progress, clamped to 0 to 100; None leaves it unchanged.

        Raises:
            ActivityNotFoundError: There is no such task. Raised only outside the task's own worker.
            UnavailableError: The database cannot be reached. Raised only outside the task's own worker.
        """
        writer = RUNTIME.progress_writer
        if writer is not None and writer.holds(self.agent_id):
            update(self.agent_id, message, percentage)
        else:
            # In the context of the task, whose calls wait while the database is away.
            in_context = contextvars.copy_context().run
            await RUNTIME.run_in_thread(in_context, update, self.agent_id, message, percentage)

    async def try_to_report(self, message: str, percentage: int | None = None) -> bool:
        """Report progress like `report`, but log an error instead of raising it: a lost report must not stop the work.

        Args:
            message: Log line, also shown as the task's latest message.
            percentage: Progress, clamped to 0 to 100; None leaves it unchanged.

        Returns:
            False if the report is lost.
        """
        try:
            await self.report(message, percentage)
        except AgentexecError as error:
            log.warning("A report of task %s is lost: %s", self.agent_id, error)
            return False
        except Exception:
            # An agent's SDK would hide the error: only the model would learn of it.
            log.exception("A report of task %s is lost.", self.agent_id)
            return False
        return True

    async def _report_status(self, message: str, percentage: int) -> str:
        """Tell the person who is waiting what you are doing now.

        Args:
            message: A short phrase in the present tense, such as "Gathering financials".
            percentage: How much of the whole work is done, from 0 to 100.
        """
        if await self.try_to_report(message, percentage):
            return "Reported."
        # The model should not try again: a report is not worth a turn.
        return "The report was lost; go on without it."
