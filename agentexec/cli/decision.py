"""The argument and the answer that `agentexec approve` and `agentexec reject` share."""

from __future__ import annotations

from typing import Annotated

import typer

CallId = Annotated[str, typer.Argument(metavar="CALL_ID", help="ID of the call, as listed by `approvals`.")]


def report(verb: str, agent_id: str, call_id: str, *, decided: bool) -> None:
    """Print the outcome of a decision; exit with 1 if it came too late."""
    if not decided:
        typer.echo(
            f"agentexec: Call {call_id} of task {agent_id} was already decided, or has expired.", err=True
        )
        raise typer.Exit(1)
    typer.echo(f"{verb} call {call_id} of task {agent_id}.")
