"""What every runner offers to a task: the task's agent_id, and progress reports that an agent can make itself."""

from __future__ import annotations

import dataclasses
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
"""What `runner.prompts.report_status` says unless the runner is given another text."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prompts:
    """Texts to put into an agent's instructions."""

    report_status: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tools(Generic[ToolT]):
    """Tools for an agent, bound to the runner's task, in the form that its SDK wants."""

    report_status: ToolT


class BaseAgentRunner(ABC, Generic[ToolT]):
    """Runs agents within one task. Subclass it to run those of another SDK.

    `agent_id`: the task's, as the handler got it. `report_status_prompt`: replaces the text of
    `prompts.report_status`. `tool_policy`: what happens to a call that was cut off and has no policy of its own; see
    `ax.tool_policy`. `approval_timeout`: seconds, or a timedelta, after which a question to a person (the policy "ask")
    counts as answered with no; None waits for ever. A subclass writes `run`, and `make_tool` where its SDK wants more than a coroutine
    function for a tool.
    """

    agent_id: UUID
    prompts: Prompts
    tools: Tools[ToolT]

    def __init__(
        self,
        agent_id: UUID | str,
        *,
        report_status_prompt: str | None = None,
        tool_policy: Policy = "fail",
        approval_timeout: float | timedelta | None = None,
    ) -> None:
        require_policy(tool_policy)
        self.approval_seconds = (
            approval_timeout.total_seconds() if isinstance(approval_timeout, timedelta) else approval_timeout
        )
        self.tool_policy: Policy = tool_policy
        self.agent_id = parse_agent_id(agent_id)
        self.prompts = Prompts(REPORT_STATUS_PROMPT if report_status_prompt is None else report_status_prompt)
        self.tools = Tools(self.make_tool(self._report_status))

    @abstractmethod
    async def run(self, agent: Any, input: Any) -> Any:
        """Run an agent to its end and return what its SDK calls a result."""

    def make_tool(self, report_status: ReportStatus) -> ToolT:
        """Give `report_status(message, percentage)` the form of a tool; here it stays the coroutine function it is."""
        return cast(ToolT, report_status)

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        result_type: Any = None,
        policy: Policy | None = None,
    ) -> Any:
        """Call a function once in the life of the task: its outcome is recorded, and later attempts get it from there.

        The value comes back through JSON (as `result_type`, where one is given) in every attempt. Steps are told
        apart by name, arguments and order. A plain function runs in a thread. `policy`: what happens if the step
        was cut off; the runner's `tool_policy` where none is given. Outside the task's worker it is a plain call.

        Raises what the function raises, CallInterruptedError, ReplayDivergedError, LeaseLostError,
        PayloadTooLargeError, and AgentexecError for a value that is not JSON.
        """
        policy = self.tool_policy if policy is None else policy
        require_policy(policy)
        return await run_step(self._scope(), StepCall(name, function, args, result_type), policy)

    def _scope(self) -> Scope | None:
        """Where in the task the running code stands; None outside its worker."""
        scope = scope_of(self.agent_id)
        if scope is not None and scope.replay is None:
            scope = dataclasses.replace(
                scope, policy=self.tool_policy, approval_seconds=self.approval_seconds
            )
        return scope

    async def report(self, message: str, percentage: int | None = None) -> None:
        """Report progress from async code: `ax.activity.update` for this task, off the event loop where it would block.

        `percentage` is brought into 0 to 100; None leaves it as it is.
        Raises ActivityNotFoundError and UnavailableError outside the task's own worker.
        """
        writer = RUNTIME.progress_writer
        if writer is not None and writer.holds(self.agent_id):
            update(self.agent_id, message, percentage)
        else:
            await RUNTIME.run_in_thread(update, self.agent_id, message, percentage)

    async def try_to_report(self, message: str, percentage: int | None = None) -> bool:
        """`report` for where a lost report must not stop the work: False, and a line in the log, instead of an error."""
        try:
            await self.report(message, percentage)
        except AgentexecError as error:
            log.warning("A report of task %s is lost: %s", self.agent_id, error)
            return False
        except Exception:
            # An agent's SDK would hide it: the model would be told of an error, and nobody else.
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
        # The model is not to try again: the report is not worth a turn.
        return "The report was lost; go on without it."
