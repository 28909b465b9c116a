"""`agentexec approvals`, `approve` and `reject`: calls that wait for a person."""

from __future__ import annotations

import json
from typing import Annotated

import typer

import agentexec as ax
from agentexec.cli.common import AgentId, MetadataScope, one_line, parse_labels, parse_task_id, session

CallId = Annotated[str, typer.Argument(metavar="CALL_ID", help="The call's id, as `approvals` lists it.")]


def show(
    agent_id: Annotated[str | None, typer.Argument(metavar="[AGENT_ID]", help="Of this task only.")] = None,
    metadata: MetadataScope = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as a JSON array.")] = False,
) -> None:
    """List the calls that wait for approval, the oldest first."""
    with session() as db:
        waiting = ax.approvals.list(
            db, agent_id and parse_task_id(agent_id), metadata_filter=parse_labels(metadata)
        )
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in waiting]))
        return
    for one in waiting:
        again = " again" if one.kind == "repeat" else ""
        typer.echo(one_line(f"{one.agent_id} {one.call_id} {one.tool}({one.arguments}){again}"))
    if not waiting:
        typer.echo("No call waits for approval.", err=True)


def approve(agent_id: AgentId, call_id: CallId, metadata: MetadataScope = None) -> None:
    """Let a call be made that waits for approval; the task goes on.

    The exit code is 1 if the call was decided before, or the task has ended.
    """
    _said(
        ax.approve_sync(agent_id, call_id, metadata_filter=parse_labels(metadata)),
        "Approved",
        agent_id,
        call_id,
    )


def reject(
    agent_id: AgentId,
    call_id: CallId,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What the model is told.")] = None,
    metadata: MetadataScope = None,
) -> None:
    """Do not let a call be made that waits for approval; the task goes on without it.

    The exit code is 1 if the call was decided before, or the task has ended.
    """
    done = ax.reject_sync(agent_id, call_id, message=message, metadata_filter=parse_labels(metadata))
    _said(done, "Rejected", agent_id, call_id)


def _said(done: bool, what: str, agent_id: str, call_id: str) -> None:
    if not done:
        typer.echo(
            f"agentexec: The call {call_id} of task {agent_id} was decided before, or has expired.", err=True
        )
        raise typer.Exit(1)
    typer.echo(f"{what} call {call_id} of task {agent_id}.")
