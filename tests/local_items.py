"""Items with which a model calls the SDK's tools that act on this machine, and streams that hold such items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.testing import ModelStep
from openai.types.responses import (
    Response,
    ResponseApplyPatchToolCall,
    ResponseCompletedEvent,
    ResponseFunctionShellToolCall,
    ResponseUsage,
)


def shell_call(call_id: str, *commands: str) -> Any:
    """Return a call of the shell tool."""
    action: Any = {"commands": list(commands), "timeout_ms": 1000, "max_output_length": 100}
    return ResponseFunctionShellToolCall(
        type="shell_call", id=f"item_{call_id}", call_id=call_id, action=action, status="completed"
    )


def patch_call(call_id: str, kind: str, path: str, **diff: str) -> Any:
    """Return a call of the apply-patch tool."""
    operation: Any = {"type": kind, "path": path, **diff}
    return ResponseApplyPatchToolCall(
        type="apply_patch_call",
        id=f"item_{call_id}",
        call_id=call_id,
        operation=operation,
        status="completed",
    )


def streamed(turn: Sequence[Any], usage: ResponseUsage | None = None, id: str = "resp") -> ModelStep:
    """Return a turn as a stream of its last event, which holds all of it."""
    response = Response.construct(
        id=id, object="response", model="", output=list(turn), tools=[], created_at=0.0, usage=usage
    )
    event: Any = ResponseCompletedEvent.construct(
        type="response.completed", sequence_number=0, response=response
    )
    return ModelStep.stream([event], output=turn)
