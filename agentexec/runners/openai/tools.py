"""Tool calls of a durable run: a recorded call is not made again, and its output reaches the model unchanged."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from agents import FunctionTool, Usage
from agents.run_internal.tool_execution import _uses_programmatic_output_schema
from agents.tool import _DEFAULT_FAILURE_HANDLED_ATTR
from agents.tool_context import ToolContext
from pydantic_core import to_jsonable_python

from agentexec.errors import AgentexecError, ReplayDivergedError
from agentexec.journal.calls import POLICY_MARK, CallResult, refuse_call, run_call
from agentexec.journal.canonical import digest
from agentexec.journal.current_call import run_unrecorded
from agentexec.journal.facts import FactKind, dump, fit_path
from agentexec.journal.recorder import Policy, Scope
from agentexec.journal.scopes import SCOPE
from agentexec.journal.user_errors import guard_threads
from agentexec.runners.openai.changed_arguments import (
    CHANGED_NOTE,
    PARTS,
    invoke_with_note,
    use_changed_arguments,
)
from agentexec.runners.openai.events import tool_called_event, tool_output_event
from agentexec.runners.openai.run import DurableRun
from agentexec.runners.openai.usage import add_nested_usage

log = logging.getLogger("agentexec.runners")

Invoke = Callable[..., Awaitable[Any]]

INTERRUPTED_MESSAGE = (
    "This call was cut off before it ended and was not made again. It is unknown whether it took effect; find out "
    "before you rely on it or repeat it."
)
"""Text for the model about a call that was cut off, if the tool's policy is "fail"."""

REJECTED_MESSAGE = f"{INTERRUPTED_MESSAGE} A person has decided not to make it again."
"""Text for the model about a call that a person rejected without a message, if the policy is "ask"."""

NO_INTENT_MARK = "_agentexec_cheap_tool"
"""Attribute of our own tools that may run twice: their outcome is recorded, their intent is not."""

CUSTOM_DATA = "_custom_data"
"""Attribute of a call's context in which the SDK keeps what a tool attached to its output."""

LITELLM_JSON_TOOL = "json_tool_call"
"""Name of a tool that the SDK itself adds for structured output through LiteLLM."""

OUTPUT_KINDS = {kind.__name__: kind for kind in PARTS}


class ToolCall:
    """Call of a function tool, in the form in which the journal makes calls."""

    def __init__(
        self,
        run: DurableRun,
        invoke: Invoke,
        result_type: Any,
        tool: FunctionTool,
        context: ToolContext[Any],
        arguments: str,
        *,
        changed: bool = False,
    ) -> None:
        self._run = run
        self.name = tool.qualified_name
        self.arguments = self.display_arguments = arguments
        self.records_intent = not getattr(tool, NO_INTENT_MARK, False)
        self.records_cancellation = False
        self._invoke = invoke
        self._result_type = result_type
        self._tool = tool
        self._context = context
        self._note = f"{CHANGED_NOTE.format(arguments=arguments)} " if changed else ""

    @property
    def call_id(self) -> str:
        """The id that the model gave the call."""
        return self._context.tool_call_id

    @property
    def usage(self) -> Usage:
        """The usage of the run that makes the call."""
        return self._context.usage

    async def make(self) -> CallResult[Any]:
        """Let the SDK call the tool."""
        self._run.spans.let_through()
        self._run.publish([tool_called_event(self.name, self.call_id, self.arguments)])
        result = await self._let_sdk_invoke()
        self._run.publish([tool_output_event(self.call_id, result.output)])
        return CallResult(result, failed=result.is_sdk_generated_error)

    async def make_again(self) -> None:
        """Let the SDK call the tool for its effect on this process."""
        result = await self._let_sdk_invoke()
        if result.is_sdk_generated_error:
            log.warning("The tool %s failed when it was called again: %s", self.name, result.output)

    async def _let_sdk_invoke(self) -> Any:
        return await self._invoke(function_tool=self._tool, context=self._context, arguments=self.arguments)

    def encode(self, answer: CallResult[Any]) -> dict[str, Any]:
        """Return the output, and what the tool attached to it for the application, such as an MCP result's metadata."""
        result = answer.value
        structured = self._tool.output_json_schema is not None
        value = {**encode_output(result.output, structured), "error": result.is_sdk_generated_error}
        if attached := getattr(self._context, CUSTOM_DATA, None):
            value["custom_data"] = to_jsonable_python(attached, fallback=str)
        return value

    def decode(self, value: dict[str, Any]) -> Any:
        if "custom_data" in value:
            setattr(self._context, CUSTOM_DATA, value["custom_data"])
        return self._result_type(decode_output(value), is_sdk_generated_error=value["error"])

    async def rejected_value(self, message: str | None) -> Any:
        """Return the model's text for a call that a person does not let be repeated."""
        return self._result_type(self._note + (message or REJECTED_MESSAGE), is_sdk_generated_error=True)

    async def interrupted_value(self) -> Any:
        """Return the model's text for a call whose output is unknown."""
        return self._result_type(self._note + INTERRUPTED_MESSAGE, is_sdk_generated_error=True)


INTERRUPTED = "Not run: the user has sent another message."
"""Output of a call that has not begun when a message interrupts the turn."""


async def invoke_journaled(
    invoke: Invoke,
    result_type: Any,
    *,
    function_tool: FunctionTool,
    context: ToolContext[Any],
    arguments: str,
) -> Any:
    """Invoke a function tool as the SDK does, inside a durable run through the journal."""

    def invoke_tool() -> Awaitable[Any]:
        return invoke(function_tool=function_tool, context=context, arguments=arguments)

    guard_threads(asyncio.get_running_loop())
    scope = SCOPE.get()
    if scope is None or not isinstance(scope.run, DurableRun):
        return await run_unrecorded(context.tool_call_id, policy_of(function_tool, "fail"), invoke_tool)
    path = fit_path(f"{scope.run.path}/{context.tool_call_id}")
    run_scope = scope.child_scope(scope.run.path)
    if (changed := use_changed_arguments(scope.recorder, function_tool, context, arguments)) is not None:
        arguments = changed
        invoke = functools.partial(invoke_with_note, invoke, result_type)
    spec = ToolCall(
        scope.run, invoke, result_type, function_tool, context, arguments, changed=changed is not None
    )
    if getattr(function_tool, "_is_agent_tool", False):
        return await _call_agent(run_scope.child_scope(path), spec, invoke_tool)
    steering = scope.run.steering
    if steering is not None and not scope.recorder.facts(path) and await steering.is_interrupted():
        return await refuse_call(run_scope, path, spec, INTERRUPTED)
    return await run_call(run_scope, path, spec, policy_of(function_tool, scope.policy))


async def _call_agent(scope: Scope, spec: ToolCall, invoke_tool: Callable[[], Awaitable[Any]]) -> Any:
    """Run an agent that is a tool, unless an earlier attempt recorded that it failed.

    A run that ends well is entered again, and answered from its own records. One that failed might not fail again, and
    the model has been told that it did.
    """
    run, path, call_id = scope.run, scope.path, spec.call_id
    facts = scope.recorder.facts(path)
    if facts and facts[-1].kind is FactKind.OUTCOME:
        scope.recorder.passed.note_answered(path)
        if scope.replay is not None:
            scope.replay.note_replayed()
        add_nested_usage(spec.usage, scope.recorder, path)
        return spec.decode(json.loads(facts[-1].value))
    if not scope.recorder.has_nested_facts(path):
        run.publish([tool_called_event(spec.name, call_id, spec.arguments)])
    result = await _run_agent_tool(scope, invoke_tool)
    run.publish([tool_output_event(call_id, result.output)])
    if result.is_sdk_generated_error or path in run.failed_calls:
        value = dump(spec.encode(CallResult(result)), f"The outcome of {spec.name}")
        await scope.recorder.record(path, FactKind.OUTCOME, digest([spec.name, spec.arguments]), value)
    return result


async def record_canceled_call(
    make_output: Callable[..., Awaitable[Any]],
    *,
    function_tool: FunctionTool,
    context: Any,
    error: BaseException,
) -> Any:
    """Let the SDK make an output of the CancelledError of a tool, and record what the model is told.

    The SDK does so only if the tool raised it by itself. A call that is canceled with its run stays one that was cut off.
    """
    output = await make_output(function_tool=function_tool, context=context, error=error)
    scope = SCOPE.get()
    if (
        not isinstance(error, asyncio.CancelledError)
        or scope is None
        or not isinstance(scope.run, DurableRun)
    ):
        return output
    recorder, path = scope.recorder, fit_path(f"{scope.run.path}/{context.tool_call_id}")
    facts = recorder.facts(path)
    is_open = facts[-1].kind is FactKind.INTENT if facts else getattr(function_tool, "_is_agent_tool", False)
    if scope.is_canceled or not is_open:
        return output
    kind, value = FactKind.RAISED, dump(type(error).__name__, "An error")
    if output is not None:
        by_default = getattr(context, _DEFAULT_FAILURE_HANDLED_ATTR, False)
        is_error = by_default and not _uses_programmatic_output_schema(function_tool, context.tool_call)
        outcome = {**encode_output(output), "error": is_error}
        kind, value = FactKind.OUTCOME, dump(outcome, f"The outcome of {function_tool.name}")
    if facts or output is not None:
        call_hash = digest([function_tool.qualified_name, context.tool_arguments])
        input_hash = facts[-1].input_hash if facts else call_hash
        await recorder.record(path, kind, input_hash, value)
    return output


async def _run_agent_tool(scope: Scope, make: Callable[[], Awaitable[Any]]) -> Any:
    """Run an agent that is a tool; its own steps are recorded."""
    token = SCOPE.set(scope)
    try:
        return await make()
    finally:
        SCOPE.reset(token)
        # The SDK turns any error in there into a text for the model, even one that must stop the attempt.
        scope.recorder.check()


def require_tools(run: DurableRun, output: Iterable[Any], available: Iterable[Any]) -> None:
    """Check that the tools that a recorded response calls still exist.

    A call of which something is recorded had its tool then: without the tool, the run would go another way now. Raises
    ReplayDivergedError, which names the tool.
    """
    names = {name for tool in available for name in (_name_of(tool), getattr(tool, "qualified_name", None))}
    for item in output:
        name, call_id = getattr(item, "name", None), getattr(item, "call_id", None)
        if getattr(item, "type", None) != "function_call" or name in names or name == LITELLM_JSON_TOOL:
            continue
        path = fit_path(f"{run.path}/{call_id}")
        message = (
            f"a recorded response of agent {run.active_agent} calls the tool {name}, which the agent does not have now; "
            'if a tool of the run adds it, give that tool @ax.tool_policy("in_memory"), so that every attempt calls it'
        )
        if run.recorder.facts(path) or run.recorder.has_nested_facts(path):
            agent_id = run.recorder.lease.agent_id
            error = ReplayDivergedError(f"Task {agent_id}: {message}.", agent_id=agent_id, path=path)
            raise run.recorder.stop(error)
        log.warning("Task %s: %s.", run.recorder.lease.agent_id, message)


def _name_of(tool: Any) -> str | None:
    """Return the name by which a model calls a tool or a handoff."""
    return getattr(tool, "name", None) or getattr(tool, "tool_name", None)


def policy_of(tool: FunctionTool, default: Policy) -> Policy:
    """Return the policy set on the tool or on the function it was made of, else the default."""
    return policy_mark(tool) or default


def policy_mark(target: Any) -> Policy | None:
    """Return the policy set on a tool, or on the function that it was made of."""
    own: Policy | None = getattr(target, POLICY_MARK, None)
    return own or getattr(getattr(target, "__wrapped__", None), POLICY_MARK, None)


def encode_output(output: Any, structured: bool = False) -> dict[str, Any]:
    """Return a tool's output as JSON data that gives exactly the same next input for the model as the output itself."""
    if type(output) is str:
        return {"text": output}
    if _is_part(output):
        return {"part": _encode_part(output)}
    if isinstance(output, list) and output and all(_is_part(part) for part in output):
        return {"parts": [_encode_part(part) for part in output]}
    if structured:
        return {"json": to_jsonable_python(output, by_alias=True)}
    return {"json": output} if _survives_json(output) else {"text": str(output)}


def _survives_json(output: Any) -> bool:
    """Return False for an output that JSON changes (tuples, keys that are not strings): it would read differently."""
    try:
        return repr(json.loads(json.dumps(output))) == repr(output)
    except (TypeError, ValueError, RecursionError):
        return False


def decode_output(value: dict[str, Any]) -> Any:
    """Return the output that `encode_output` was given, or the text that the model got for it."""
    if "part" in value:
        return _decode_part(value["part"])
    if "parts" in value:
        return [_decode_part(part) for part in value["parts"]]
    return value["text"] if "text" in value else value["json"]


def _is_part(value: Any) -> bool:
    return type(value) in OUTPUT_KINDS.values()


def _encode_part(part: Any) -> dict[str, Any]:
    return {"kind": type(part).__name__, "data": part.model_dump(mode="json", exclude_unset=True)}


def _decode_part(part: dict[str, Any]) -> Any:
    kind = OUTPUT_KINDS.get(part["kind"])
    if kind is None:
        raise AgentexecError(f"The journal has a tool output of the unknown kind {part['kind']}.")
    return kind.model_validate(part["data"])


__all__ = ["INTERRUPTED_MESSAGE", "NO_INTENT_MARK", "invoke_journaled", "policy_of"]
