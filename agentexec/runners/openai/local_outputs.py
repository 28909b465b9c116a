"""Outputs of the SDK's local tools as JSON data, which gives the model exactly the same next input."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from agents import ShellCallOutcome, ShellCommandOutput, ShellResult
from agents.editor import ApplyPatchResult
from agents.run_internal.tool_execution import (
    normalize_apply_patch_result,
    normalize_shell_output,
    render_shell_outputs,
)
from pydantic_core import to_jsonable_python

from agentexec.runners.openai.tools import decode_output, encode_output


class OutputCodec(Protocol):
    """The form of a kind of tool's calls and outputs in the journal."""

    reports_errors: bool
    """True if the SDK reports errors of the tool to the model, False if they end the run."""

    def describe(self, *arguments: Any) -> Any:
        """Return what the call does as JSON data, the same in every attempt."""
        ...

    def encode(self, value: Any) -> dict[str, Any]:
        """Return an output as JSON data."""
        ...

    def decode(self, data: dict[str, Any]) -> Any:
        """Return the output that `encode` was given, or one that the SDK treats alike."""
        ...

    def as_text(self, value: Any) -> str:
        """Return an output as text for a person."""
        ...

    def value_of_unmade(self, message: str) -> Any:
        """Return, perhaps as an awaitable, the output for a call that is not made, if errors are not reported."""
        ...


class CustomOutput:
    """Outputs of a custom tool: the SDK takes them as text."""

    reports_errors = True

    def describe(self, *arguments: Any) -> Any:
        return arguments[1]

    def encode(self, value: Any) -> dict[str, Any]:
        return {"text": str(value)}

    def decode(self, data: dict[str, Any]) -> Any:
        return data["text"]

    def as_text(self, value: Any) -> str:
        return str(value)

    def value_of_unmade(self, message: str) -> Any:
        return message


class ShellOutput(CustomOutput):
    """Outputs of a shell tool: text, or a result for each command."""

    def describe(self, *arguments: Any) -> Any:
        action = arguments[0].data.action
        return {
            "commands": action.commands,
            "timeout_ms": action.timeout_ms,
            "max_output_length": action.max_output_length,
        }

    def encode(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, ShellResult):
            return super().encode(value)
        outputs = [dataclasses.asdict(normalize_shell_output(output)) for output in value.output]
        shell = {**dataclasses.asdict(value), "output": outputs}
        return {"shell": to_jsonable_python(shell, fallback=str)}

    def decode(self, data: dict[str, Any]) -> Any:
        if "shell" not in data:
            return super().decode(data)
        result: Any = ShellResult(**data["shell"])
        for output in result.output:
            output["outcome"] = ShellCallOutcome(**output["outcome"])
        result.output = [ShellCommandOutput(**output) for output in result.output]
        return result

    def as_text(self, value: Any) -> str:
        if not isinstance(value, ShellResult):
            return str(value)
        return render_shell_outputs([normalize_shell_output(output) for output in value.output])


class PatchOutput(CustomOutput):
    """Results of an editor's operations."""

    def describe(self, *arguments: Any) -> Any:
        operation = arguments[0]
        return {
            "type": operation.type,
            "path": operation.path,
            "diff": operation.diff,
            "move_to": getattr(operation, "move_to", None),
        }

    def encode(self, value: Any) -> dict[str, Any]:
        result = normalize_apply_patch_result(value)
        return {"patch": None if result is None else {"status": result.status, "output": result.output}}

    def decode(self, data: dict[str, Any]) -> Any:
        return None if data["patch"] is None else ApplyPatchResult(**data["patch"])

    def as_text(self, value: Any) -> str:
        result = normalize_apply_patch_result(value)
        return (result.output or result.status or "" if result is not None else "") or "completed"


class LocalShellOutput(CustomOutput):
    """Outputs of a local shell tool, which the SDK passes on as they are."""

    reports_errors = False

    def describe(self, *arguments: Any) -> Any:
        action = arguments[0].data.action
        names = ("command", "env", "timeout_ms", "user", "working_directory")
        return {name: getattr(action, name, None) for name in names}

    def encode(self, value: Any) -> dict[str, Any]:
        return encode_output(value)

    def decode(self, data: dict[str, Any]) -> Any:
        return decode_output(data)


class ComputerOutput(LocalShellOutput):
    """Screenshots. The model can only be shown one: for a call that is not made it is the computer's present state."""

    def __init__(self, computer: Any) -> None:
        self._computer = computer

    def as_text(self, value: Any) -> str:
        return "A screenshot."

    def value_of_unmade(self, message: str) -> Any:
        return self._computer.screenshot()
