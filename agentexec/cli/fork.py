"""`agentexec fork`: run a task again from a turn on, as a new task, with something changed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

import agentexec as ax
from agentexec.cli.options import AgentId, MetadataScope, parse_labels, parse_task_id
from agentexec.cli.texts import read_text


def run(
    agent_id: AgentId,
    at: Annotated[
        int,
        typer.Option("--at", metavar="TURN", help="The first turn that the new task takes itself, from 1."),
    ],
    path: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="The run whose turn it is, if the task has several."),
    ] = None,
    instructions: Annotated[
        str | None,
        typer.Option(metavar="TEXT|@FILE|-", help="Instructions of the agent from that turn on."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the agent's model from that turn on.")] = None,
    input: Annotated[
        str | None,
        typer.Option(metavar="TEXT|@FILE|-", help="Message that the agent reads right before that turn."),
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", help="Queue of the new task; by default the same.")
    ] = None,
    metadata: MetadataScope = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print agent_id and queue as JSON.")] = False,
) -> None:
    """Queue a new task that begins with what a task has recorded before a turn, and print its agent_id.

    No model is called and no tool runs again for what comes before the turn. The first task stays as it is.
    Compare the two with `agentexec show --diff`.
    """
    task = ax.fork_sync(
        parse_task_id(agent_id),
        at=at,
        run=path,
        instructions=None if instructions is None else read_text(instructions),
        model=model,
        input=None if input is None else read_text(input),
        queue_name=queue,
        metadata_filter=parse_labels(metadata),
    )
    if as_json:
        typer.echo(json.dumps({"agent_id": str(task.agent_id), "queue": task.queue_name}))
    else:
        typer.echo(task.agent_id)
