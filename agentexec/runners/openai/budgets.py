"""Budgets of the SDK's model calls: what a call is expected to take."""

from __future__ import annotations

from typing import Any

from agentexec.runners.budgets import ModelCall
from agentexec.runners.openai.limits import estimate_input
from agentexec.runners.openai.run import DurableRun

PARAMETERS = (
    "system_instructions",
    "input",
    "model_settings",
    "tools",
    "output_schema",
    "handoffs",
    "tracing",
)
"""Names of the parameters of the SDK's `Model.get_response`, in their order."""

Arguments = dict[str, Any]


def named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Return the arguments of a model call by their names."""
    return {**dict(zip(PARAMETERS, args, strict=False)), **kwargs}


def model_call(run: DurableRun, model: str, arguments: Arguments) -> ModelCall:
    """Return what is known of a call before it is made."""
    settings = arguments["model_settings"]
    estimate = estimate_input(arguments["system_instructions"], arguments["input"], arguments["tools"])
    if arguments.get("previous_response_id") or arguments.get("conversation_id"):
        # OpenAI adds the conversation that it keeps, which is not in the input.
        estimate += run.last_tokens
    return ModelCall(model, run.path, run.next_turn, estimate, settings.max_tokens)
