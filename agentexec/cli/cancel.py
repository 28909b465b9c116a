"""`agentexec cancel`: cancel one task, queued or running."""

from __future__ import annotations

import json
from typing import Annotated

import typer

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.options import AgentId, MetadataScope, parse_labels, parse_task_id


def run(
    agent_id: AgentId,
    metadata: MetadataScope = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print agent_id, canceled and status as JSON.")
    ] = False,
) -> None:
    """Cancel a task. A queued task never starts, a running one is stopped. Its log stays.

    The exit code is 1 if the task has already ended or does not exist.
    """
    task, scope = parse_task_id(agent_id), parse_labels(metadata)
    canceled = ax.cancel_sync(task, metadata_filter=scope)
    with session() as db:
        status = str(ax.activity.detail(db, task, metadata_filter=scope).status)
    if as_json:
        typer.echo(json.dumps({"agent_id": str(task), "canceled": canceled, "status": status}))
    elif canceled:
        typer.echo(f"Canceled task {task}.")
    else:
        typer.echo(f"agentexec: Task {task} has already ended: it is {status}.", err=True)
    if not canceled:
        raise typer.Exit(1)
