"""`agentexec approvals`: the calls that wait for a person."""

from __future__ import annotations

import json
from typing import Annotated

import typer

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.options import MetadataScope, parse_labels, parse_task_id
from agentexec.cli.output import one_line


def run(
    agent_id: Annotated[
        str | None, typer.Argument(metavar="AGENT_ID", help="Only calls of this task.")
    ] = None,
    metadata: MetadataScope = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the calls that wait for approval, oldest first."""
    with session() as db:
        approvals = ax.approvals.list(
            db, agent_id and parse_task_id(agent_id), metadata_filter=parse_labels(metadata)
        )
    if as_json:
        typer.echo(json.dumps([approval.model_dump(mode="json") for approval in approvals]))
        return
    for approval in approvals:
        again = " again" if approval.kind == "repeat" else ""
        call = f"{approval.tool}({approval.arguments})"
        typer.echo(one_line(f"{approval.agent_id} {approval.call_id} {call}{again}"))
    if not approvals:
        typer.echo("No calls wait for approval.", err=True)
