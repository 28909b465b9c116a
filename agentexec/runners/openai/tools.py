"""Tool calls of a durable run: a recorded call is not made again, and its output reaches the model unchanged."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from agents import FunctionTool, ToolOutputFileContent, ToolOutputImage, ToolOutputText
from agents.tool_context import ToolContext
from pydantic_core import to_jsonable_python

from agentexec.errors import AgentexecError
from agentexec.journal.calls import POLICY_MARK, CallResult, run_call
from agentexec.journal.current_call import run_unrecorded
from agentexec.journal.facts import fit_path
from agentexec.journal.recorder import SCOPE, Policy, Scope
from agentexec.runners.openai.events import tool_called_event, tool_output_event
from agentexec.runners.openai.run import DurableRun

Invoke = Callable[..., Awaitable[Any]]

INTERRUPTED_MESSAGE = (
    "This call was cut off by a restart and was not made again. It is unknown whether it took effect; find out "
    "before you rely on it or repeat it."
)
"""Text for the model about a call that was cut off, if the tool's policy is "fail"."""

REJECTED_MESSAGE = f"{INTERRUPTED_MESSAGE} A person has decided not to make it again."
"""Text for the model about a call that a person rejected without a message, if the policy is "ask"."""

NO_INTENT_MARK = "_agentexec_cheap_tool"
"""Attribute of our own tools that may run twice: their outcome is recorded, their intent is not."""

OUTPUT_KINDS = {kind.__name__: kind for kind in (ToolOutputText, ToolOutputImage, ToolOutputFileContent)}


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
    ) -> None:
        self._run = run
        self.name = tool.qualified_name
        self.arguments = self.display_arguments = arguments
        self.records_intent = not getattr(tool, NO_INTENT_MARK, False)
        self._invoke = invoke
        self._result_type = result_type
        self._tool = tool
        self._context = context

    async def make(self) -> CallResult[Any]:
        """Let the SDK call the tool."""
        call_id = self._context.tool_call_id
        self._run.publish([tool_called_event(self.name, call_id, self.arguments)])
        result = await self._invoke(function_tool=self._tool, context=self._context, arguments=self.arguments)
        self._run.publish([tool_output_event(call_id, result.output)])
        return CallResult(result, failed=result.is_sdk_generated_error)

    def encode(self, answer: CallResult[Any]) -> dict[str, Any]:
        result = answer.value
        structured = self._tool.output_json_schema is not None
        return {**encode_output(result.output, structured), "error": result.is_sdk_generated_error}

    def decode(self, value: dict[str, Any]) -> Any:
        return self._result_type(decode_output(value), is_sdk_generated_error=value["error"])

    def rejected_value(self, message: str | None) -> Any:
        """Return the model's text for a call that a person does not let be repeated."""
        return self._result_type(message or REJECTED_MESSAGE, is_sdk_generated_error=True)

    def interrupted_value(self) -> Any:
        """Return the model's text for a call whose output is unknown."""
        return self._result_type(INTERRUPTED_MESSAGE, is_sdk_generated_error=True)


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

    scope = SCOPE.get()
    if scope is None or not isinstance(scope.run, DurableRun):
        return await run_unrecorded(context.tool_call_id, policy_of(function_tool, "fail"), invoke_tool)
    path = fit_path(f"{scope.run.path}/{context.tool_call_id}")
    run_scope = scope.child_scope(scope.run.path)
    if getattr(function_tool, "_is_agent_tool", False):
        run = scope.run
        if not scope.recorder.has_nested_facts(path):
            run.publish([tool_called_event(function_tool.name, context.tool_call_id, arguments)])
        result = await _run_agent_tool(run_scope.child_scope(path), invoke_tool)
        run.publish([tool_output_event(context.tool_call_id, result.output)])
        return result
    spec = ToolCall(scope.run, invoke, result_type, function_tool, context, arguments)
    return await run_call(run_scope, path, spec, policy_of(function_tool, scope.policy))


async def _run_agent_tool(scope: Scope, make: Callable[[], Awaitable[Any]]) -> Any:
    """Run an agent that is a tool; its own steps are recorded."""
    token = SCOPE.set(scope)
    try:
        return await make()
    finally:
        SCOPE.reset(token)
        # The SDK turns any error in there into a text for the model, even one that must stop the attempt.
        scope.recorder.check()


def policy_of(tool: FunctionTool, default: Policy) -> Policy:
    """Return the policy set on the tool or on the function it was made of, else the default."""
    own = getattr(tool, POLICY_MARK, None) or getattr(getattr(tool, "__wrapped__", None), POLICY_MARK, None)
    return own or default


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
