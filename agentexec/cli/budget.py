"""`agentexec budget`: give a task another limit of what it may spend."""

from __future__ import annotations

import json
from typing import Annotated

import typer

import agentexec as ax
from agentexec.arguments.actors import source_on_host
from agentexec.cli.database import session
from agentexec.cli.decision import By
from agentexec.cli.options import AgentId, MetadataScope, parse_labels, parse_task_id


def run(
    agent_id: AgentId,
    budget: Annotated[
        str, typer.Argument(metavar="AMOUNT", help="The new limit, like '$5.00' or '500000 tokens'.")
    ],
    by: By,
    metadata: MetadataScope = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print agent_id, changed and status as JSON.")
    ] = False,
) -> None:
    """Give a task that has not ended another limit of all that it spends, children included.

    It counts from the next model call. A task that waits for a raise of this budget goes on. Write amounts in single
    quotes: in double ones a shell takes $5 for a variable. A task that has ended gets its limit by `agentexec retry --budget`.

    The exit code is 1 if the task has ended or does not exist.
    """
    task, scope = parse_task_id(agent_id), parse_labels(metadata)
    source = source_on_host("cli")
    changed = ax.set_budget_sync(task, budget, metadata_filter=scope, by=by, source=source)
    with session() as db:
        found = ax.activity.detail(db, task, metadata_filter=scope)
    if as_json:
        typer.echo(json.dumps({"agent_id": str(task), "changed": changed, "status": str(found.status)}))
    elif changed:
        typer.echo(f"Task {task} may spend {budget}: {found.budget}.")
    else:
        typer.echo(
            f"agentexec: Task {task} is {found.status}; only a task that has not ended gets another budget. "
            "Retry a failed or canceled one with --budget.",
            err=True,
        )
    if not changed:
        raise typer.Exit(1)
