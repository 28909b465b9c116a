"""`agentexec cancel`: cancel one task, queued or running."""

from __future__ import annotations

import json
from typing import Annotated
from uuid import UUID

import typer

import agentexec as ax
from agentexec.cli.common import AgentId, MetadataScope, parse_labels, parse_task_id, session


def run(
    agent_id: AgentId,
    metadata: MetadataScope = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print agent_id, canceled and status as JSON.")
    ] = False,
) -> None:
    """Cancel a task: queued, it never starts; running, it is stopped. Its log stays.

    The exit code is 1 if the task had ended before, or there is none with this id.
    """
    task, scope = parse_task_id(agent_id), parse_labels(metadata)
    canceled = ax.cancel_sync(task, metadata_filter=scope)
    status = _status(task, scope)
    if as_json:
        typer.echo(json.dumps({"agent_id": str(task), "canceled": canceled, "status": status}))
    elif canceled:
        typer.echo(f"Canceled task {task}.")
    else:
        typer.echo(f"agentexec: Task {task} had ended before: it is {status}.", err=True)
    if not canceled:
        raise typer.Exit(1)


def _status(task: UUID, scope: dict[str, str] | None) -> str:
    with session() as db:
        return str(ax.activity.detail(db, task, metadata_filter=scope).status)
