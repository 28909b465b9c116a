"""`agentexec retry`: run a failed or canceled task again."""

from __future__ import annotations

import typer

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.options import AgentId, MetadataScope, parse_labels, parse_task_id


def run(agent_id: AgentId, metadata: MetadataScope = None) -> None:
    """Queue a failed or canceled task again. It continues after its last finished step.

    The exit code is 1 if the task is queued, running or complete.
    """
    task, scope = parse_task_id(agent_id), parse_labels(metadata)
    if not ax.retry_sync(task, metadata_filter=scope):
        with session() as db:
            status = ax.activity.detail(db, task, metadata_filter=scope).status
        typer.echo(
            f"agentexec: Task {task} is {status}; only failed and canceled tasks can be retried.", err=True
        )
        raise typer.Exit(1)
    typer.echo(f"Queued task {task} again.")
