"""Calls of tools that a person has approved with changed arguments: what runs, and what the model is told of it.

The model's own call stays in its history. The tool's output begins with a note of what has run instead, which is recorded
with it, so the model reads the same in every attempt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agents import FunctionTool, ToolOutputFileContent, ToolOutputImage, ToolOutputText
from agents.tool_context import ToolContext

from agentexec.journal.recorder import Recorder

CHANGED_NOTE = "A person approved this call with changed arguments. It was made with {arguments}."
"""Text for the model before what it is told of such a call that was cut off."""

NOTE = f"{CHANGED_NOTE.removesuffix('.')} and returned:"
"""Text for the model before the output of such a call."""

PARTS = (ToolOutputText, ToolOutputImage, ToolOutputFileContent)


def use_changed_arguments(
    recorder: Recorder, tool: FunctionTool, context: ToolContext[Any], arguments: str
) -> str | None:
    """Return the arguments that a person gave a call instead of the model's, and let its context have them, else None."""
    changed = recorder.approvals.changed_arguments(context.tool_call_id, tool.qualified_name, arguments)
    if changed is not None:
        context.tool_arguments = changed
        if getattr(context, "_function_tool_arguments", None) is not None:
            # Prepared by the SDK from the model's arguments.
            context._function_tool_arguments = None
    return changed


async def invoke_with_note(
    invoke: Callable[..., Awaitable[Any]],
    result_type: Any,
    *,
    function_tool: FunctionTool,
    context: ToolContext[Any],
    arguments: str,
) -> Any:
    """Let the SDK call a tool, and tell the model in its output with which arguments."""
    result = await invoke(function_tool=function_tool, context=context, arguments=arguments)
    if getattr(function_tool, "output_json_schema", None) is not None:
        return result  # a program reads it, by a schema that has no place for a note
    output = add_note(result.output, NOTE.format(arguments=arguments))
    return result_type(output, is_sdk_generated_error=result.is_sdk_generated_error)


def add_note(output: Any, note: str) -> Any:
    """Return the output of a tool with a text before it."""
    if isinstance(output, PARTS):
        return [ToolOutputText(text=note), output]
    if isinstance(output, list | tuple) and output and all(isinstance(part, PARTS) for part in output):
        return [ToolOutputText(text=note), *output]
    return f"{note}\n{output}"
