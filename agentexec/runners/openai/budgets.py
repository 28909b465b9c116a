"""Budgets of the SDK's model calls: what a call is expected to take, and the last call at a limit."""

from __future__ import annotations

import dataclasses
from typing import Any

from agentexec.runners.budgets import BUDGET_PROMPT, ModelCall
from agentexec.runners.openai.background import BackgroundCall
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


def model_call(
    run: DurableRun, model: str, arguments: Arguments, background: BackgroundCall | None = None
) -> ModelCall:
    """Return what is known of a call before it is made, or before the response of one that is made is fetched."""
    settings = arguments["model_settings"]
    estimate = estimate_input(arguments["system_instructions"], arguments["input"], arguments["tools"])
    if arguments.get("previous_response_id") or arguments.get("conversation_id"):
        # OpenAI adds the conversation that it keeps, which is not in the input.
        estimate += run.last_tokens
    may_wrap_up = run.may_wrap_up
    is_made = background is not None and background.open is not None
    was_wrap_up = background is not None and background.wraps_up
    place = (run.path, run.next_turn)
    return ModelCall(model, *place, estimate, settings.max_tokens, may_wrap_up, is_made, was_wrap_up)


def without_tools(arguments: Arguments) -> Arguments:
    """Return the arguments of a run's last call: the model is told to answer, and has neither tools nor handoffs."""
    given = arguments["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    # The API refuses a tool choice without tools.
    settings = dataclasses.replace(arguments["model_settings"], tool_choice=None, parallel_tool_calls=None)
    return {
        **arguments,
        "input": [*items, {"role": "user", "content": BUDGET_PROMPT}],
        "model_settings": settings,
        "tools": [],
        "handoffs": [],
    }


def note_wrap_up(run: DurableRun) -> None:
    """Note that a run has had its last call. Those that begin later get none, or a loop of runs would never end."""
    run.may_wrap_up = False
    run.recorder.budget.has_wrapped_up = True
