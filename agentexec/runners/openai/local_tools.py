"""Calls of the SDK's tools that act on this machine (shell, apply-patch, computer, custom): recorded like other tools.

The SDK has an action class for each kind. While an action runs, the function, editor or computer of its tool answers
from the journal if it can. Outside a durable run they work as ever.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from agents import ComputerTool
from agents.run_internal import tool_actions
from agents.run_internal.tool_execution import format_shell_error
from pydantic_core import to_jsonable_python

from agentexec.errors import AgentexecError, UsageError
from agentexec.journal.calls import CallResult, refuse_call, run_call
from agentexec.journal.current_call import run_unrecorded
from agentexec.journal.facts import fit_path
from agentexec.journal.questions import REFUSED_MESSAGE
from agentexec.journal.recorder import Policy, Scope
from agentexec.journal.scopes import SCOPE
from agentexec.runners.openai.events import tool_output_event
from agentexec.runners.openai.local_outputs import (
    ComputerOutput,
    CustomOutput,
    LocalShellOutput,
    OutputCodec,
    PatchOutput,
    ShellOutput,
)
from agentexec.runners.openai.proxy import SdkProxy
from agentexec.runners.openai.run import DurableRun
from agentexec.runners.openai.tools import INTERRUPTED_MESSAGE, REJECTED_MESSAGE, policy_mark

log = logging.getLogger("agentexec.runners")

CAPTURE = "_execute_action_and_capture"
"""Method with which the SDK carries out the actions of a computer call."""

EDITOR_METHODS = ("create_file", "update_file", "delete_file")


class RecordedToolError(AgentexecError):
    """An error that a tool raised in an earlier attempt, or the text for the model about a call that was cut off."""


class Failure:
    """Value of a call whose error the SDK reports to the model."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Action:
    """One action of the SDK: a call of a local tool, which may consist of several operations."""

    def __init__(self, tool: Any, policy: Policy | None, call_id: str) -> None:
        self.tool = tool
        self.call_id = call_id
        self._policy = policy
        self._ordinals = itertools.count(1)

    async def run(self, operation: Callable[[], Any], codec: OutputCodec, arguments: Any) -> Any:
        """Carry out an operation, through the journal inside a durable run."""
        scope = SCOPE.get()
        if scope is None or not isinstance(scope.run, DurableRun):
            return await run_unrecorded(self.call_id, self._policy or "fail", lambda: result_of(operation))
        ordinal = next(self._ordinals)
        path = f"{scope.run.path}/{self.call_id}" + (f":{ordinal}" if ordinal > 1 else "")
        spec = LocalCall(self, scope.run, operation, codec, arguments)
        path, run_scope = fit_path(path), scope.child_scope(scope.run.path)
        if self._is_refused(scope, path):
            value = await refuse_call(run_scope, path, spec, REFUSED_MESSAGE)
        else:
            value = await run_call(run_scope, path, spec, self._policy or scope.policy)
        if isinstance(value, Failure):
            raise value.error
        return value

    def _is_refused(self, scope: Scope, path: str) -> bool:
        """Decide whether a policy of approvals refuses a call that was not made before.

        Raises UsageError, which ends the attempt, for a tool that should ask and cannot be made to.
        """
        policy, name = scope.recorder.approvals.policy, self.tool.name
        risk = policy.risk_of(name) if policy.tools else "safe"
        if risk == "safe" or scope.recorder.facts(path):
            return False
        if risk == "ask" and getattr(self.tool, "needs_approval", False) is not True:
            raise scope.recorder.stop(
                UsageError(
                    f"A policy cannot make the tool {name} ask for approval; create it with needs_approval=True, or set its "
                    'risk to "safe" or "never".'
                )
            )
        return risk == "never"


ACTION: ContextVar[Action | None] = ContextVar("agentexec_local_action", default=None)
"""The action that the SDK is carrying out."""


class LocalCall:
    """Operation of a local tool, in the form in which the journal makes calls."""

    records_intent = True
    records_cancellation = True

    def __init__(
        self,
        action: Action,
        run: DurableRun,
        operation: Callable[[], Any],
        codec: OutputCodec,
        arguments: Any,
    ) -> None:
        self.name = action.tool.name
        self.arguments = self.display_arguments = json.dumps(arguments, sort_keys=True)
        self._action = action
        self._run = run
        self._operation = operation
        self._codec = codec

    async def make(self) -> CallResult[Any]:
        """Carry out the operation. An error that the SDK reports to the model is its value."""
        self._run.spans.let_through()
        try:
            value = await result_of(self._operation)
        except Exception as error:
            if not self._codec.reports_errors:
                raise
            value = Failure(error)
        failed = isinstance(value, Failure)
        text = format_shell_error(value.error) if failed else self._codec.as_text(value)
        self._run.publish([tool_output_event(self._action.call_id, text)])
        return CallResult(value, failed=failed)

    async def make_again(self) -> None:
        """Carry out the operation for its effect on this process."""
        try:
            await result_of(self._operation)
        except Exception as error:
            if not self._codec.reports_errors:
                raise
            log.warning("The tool %s failed when it was called again: %s", self.name, error)

    def encode(self, answer: CallResult[Any]) -> dict[str, Any]:
        if isinstance(answer.value, Failure):
            return {"raised": format_shell_error(answer.value.error), "error": True}
        return self._codec.encode(answer.value)

    def decode(self, value: dict[str, Any]) -> Any:
        return Failure(RecordedToolError(value["raised"])) if "raised" in value else self._codec.decode(value)

    async def interrupted_value(self) -> Any:
        """Return what the model gets for a call whose outcome is unknown."""
        return await self._unmade(INTERRUPTED_MESSAGE)

    async def rejected_value(self, message: str | None) -> Any:
        """Return what the model gets for a call that a person does not let be repeated."""
        return await self._unmade(message or REJECTED_MESSAGE)

    async def _unmade(self, message: str) -> Any:
        if self._codec.reports_errors:
            return Failure(RecordedToolError(message))
        return await result_of(functools.partial(self._codec.value_of_unmade, message))


async def result_of(operation: Callable[[], Any]) -> Any:
    """Return the value of a function, coroutine function or not."""
    value = operation()
    return await value if inspect.isawaitable(value) else value


class JournaledFunction(SdkProxy):
    """The function of a tool, which asks the journal while the SDK carries out an action."""

    def __init__(self, inner: Any, codec: OutputCodec) -> None:
        super().__init__(inner)
        self._codec = codec

    def __call__(self, *arguments: Any) -> Any:
        action = ACTION.get()
        call = functools.partial(self._inner, *arguments)
        if action is None:
            return call()
        return action.run(call, self._codec, self._codec.describe(*arguments))


class JournaledEditor(SdkProxy):
    """The editor of an apply-patch tool; each of its operations is a call."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        for name in EDITOR_METHODS:
            setattr(self, name, JournaledFunction(getattr(inner, name), PatchOutput()))


class ActionKind(NamedTuple):
    """An action class of the SDK: the names of its argument, of that one's tool, and of what the tool acts with."""

    argument: str
    tool: str
    attribute: str
    codec: OutputCodec | None = None
    """Form of the outputs, if the tool acts with a function."""


KINDS = {
    "ShellAction": ActionKind("call", "shell_tool", "executor", ShellOutput()),
    "LocalShellAction": ActionKind("call", "local_shell_tool", "executor", LocalShellOutput()),
    "CustomToolAction": ActionKind("call", "custom_tool", "on_invoke_tool", CustomOutput()),
    "ApplyPatchAction": ActionKind("call", "apply_patch_tool", "editor"),
    "ComputerAction": ActionKind("action", "computer_tool", "computer"),
}
"""The SDK's action classes by name."""


def patch_local_tools() -> None:
    """Make the SDK's actions ask the journal. Repeated calls have no effect."""
    for name in KINDS:
        action = getattr(tool_actions, name, None)
        if action is None or hasattr(action.execute, "journaled"):
            continue
        action.execute = classmethod(_journaled(action.__dict__["execute"].__func__, name))
        if name == "ComputerAction":
            setattr(action, CAPTURE, classmethod(_journaled_capture(action.__dict__[CAPTURE].__func__)))


def _journaled(execute: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Awaitable[Any]]:
    kind = KINDS[name]

    @functools.wraps(execute)
    async def journaled(cls: Any, **options: Any) -> Any:
        call = options[kind.argument]
        tool = getattr(call, kind.tool)
        _wrap(tool, kind)
        policy = _policy_of(tool, kind.attribute, options["agent"])
        token = ACTION.set(Action(tool, policy, _call_id(call.tool_call)))
        try:
            return await execute(cls, **options)
        finally:
            ACTION.reset(token)
            scope = SCOPE.get()
            if scope is not None:
                # The SDK turns any error in there into a text for the model, even one that must stop the attempt.
                scope.recorder.check()

    journaled.__dict__["journaled"] = True
    return journaled


def _wrap(tool: Any, kind: ActionKind) -> None:
    """Replace what a tool acts with, once for all runs.

    The tool itself stays the same object, because the SDK hands it to hooks. A computer is not replaced: its actions
    are recorded together, where the SDK carries them out.
    """
    inner = getattr(tool, kind.attribute)
    if inner is None or type(inner) in (JournaledFunction, JournaledEditor):
        return
    if kind.codec is not None:
        setattr(tool, kind.attribute, JournaledFunction(inner, kind.codec))
    elif kind.attribute == "editor":
        tool.editor = JournaledEditor(inner)


def _journaled_capture(capture: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(capture)
    async def journaled(cls: Any, computer: Any, tool_call: Any) -> Any:
        call = functools.partial(capture, cls, computer, tool_call)
        action = ACTION.get()
        if action is None:
            return await call()
        steps = [
            to_jsonable_python(step, exclude_none=True, fallback=str) for step in cls._iter_actions(tool_call)
        ]
        return await action.run(call, ComputerOutput(computer), steps)

    return journaled


def _call_id(tool_call: Any) -> str:
    if isinstance(tool_call, dict):
        return str(tool_call.get("call_id") or tool_call.get("id"))
    return str(getattr(tool_call, "call_id", None) or getattr(tool_call, "id", None))


def _policy_of(tool: Any, attribute: str, agent: Any) -> Policy | None:
    """Return the policy set on a tool, or on what it acts with."""
    if isinstance(tool, ComputerTool):
        # The SDK copies the tool if its computer is made for each run.
        tool = next((given for given in agent.tools if isinstance(given, ComputerTool)), tool)
    return policy_mark(tool) or policy_mark(getattr(tool, attribute, None))


__all__ = ["Action", "patch_local_tools"]
