"""Options and answers that the commands about approvals share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from agentexec.arguments.actors import current_user
from agentexec.arguments.argument_patterns import read_arguments
from agentexec.arguments.checks import shown
from agentexec.errors import UsageError

CallId = Annotated[str, typer.Argument(metavar="CALL_ID", help="ID of the call, as listed by `approvals`.")]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Why, for the record; the model does not get it."),
]
By = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="NAME",
        default_factory=current_user,
        show_default="the user of this command",
        help="Who decides, for the record.",
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only calls with such arguments, like amount<=100 or to=*@example.com (repeatable).",
    ),
]
Scope = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="task|conversation|KEY=VALUE",
        help="Calls of which tasks: of this one (default), of its conversation, or of those with a label.",
    ),
]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="How long, like 8h or 7d; 1d by default.")
]


def report(verb: str, agent_id: str, call_id: str, *, decided: bool) -> None:
    """Print the outcome of a decision; exit with 1 if it came too late."""
    if not decided:
        typer.echo(
            f"agentexec: Call {call_id} of task {agent_id} was already decided, or has expired.", err=True
        )
        raise typer.Exit(1)
    typer.echo(f"{verb} call {call_id} of task {agent_id}.")


def scope_of(text: str | None) -> Literal["task", "conversation"] | dict[str, str]:
    """Return the scope that the option --for names. Raises UsageError."""
    if text is None or text == "task":
        return "task"
    if text == "conversation":
        return "conversation"
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--for takes task, conversation or KEY=VALUE, not {shown(text)}.")
    return {key: value}


def read_object(option: str, text: str) -> dict[str, Any]:
    """Return the JSON object that an option holds, or the file that it names with @. Raises UsageError."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not a text"
            raise UsageError(f"Cannot read the file {text[1:]} of {option} ({reason}).") from None
    try:
        found = json.loads(text)
        has_twins = isinstance(found, dict) and read_arguments(text) is None
    except (ValueError, RecursionError):
        raise UsageError(f"{option} is not JSON: {shown(text)}.") from None
    if has_twins:
        raise UsageError(f"{option} must be plain JSON that names nothing twice: {shown(text)}.")
    if not isinstance(found, dict):
        raise UsageError(f'{option} takes a JSON object, like {{"to": "ann@example.com"}}.')
    return found
