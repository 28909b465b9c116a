"""`agentexec retry`: run failed or canceled tasks again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.options import (
    FailedSince,
    Metadata,
    TaskName,
    Yes,
    parse_labels,
    parse_since,
    parse_task_id,
)
from agentexec.errors import ActivityNotFoundError, UsageError


def run(
    agent_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[AGENT_ID]...", help="IDs of failed or canceled tasks.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All tasks that failed.")] = False,
    task_name: TaskName = None,
    since: FailedSince = None,
    metadata: Metadata = None,
    from_turn: Annotated[
        int | None,
        typer.Option(
            "--from", metavar="TURN", help="Take the turns of the agent's run again from this one on."
        ),
    ] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Do everything again.")] = False,
    path: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="The run of --from, if the task has several."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="New limit of what the task may spend, like '$5.00'."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Queue failed or canceled tasks again. Each continues after its last finished step, or where --from says.

    --from and --from-start remove what the task has recorded from there on; `agentexec fork` keeps it.

    Name them by ID, or choose those that failed with --all, --task and --since: then it asks first. A command that was
    stopped half-way can be given again. The exit code is 1 if a task named by ID is queued, running or complete, or does
    not exist.
    """
    chosen = every or task_name is not None or since is not None
    if bool(agent_ids) == chosen:
        raise UsageError(
            "Name the tasks to retry by their IDs, or choose failed ones by --all, --task or --since."
        )
    start = {"from_turn": from_turn, "from_start": from_start, "run": path, "budget": budget}
    if agent_ids:
        _retry_by_id(agent_ids, metadata, start)
    elif any(start.values()):
        raise UsageError("--from, --from-start, --run and --budget are for tasks named by their IDs.")
    else:
        _retry_failed(task_name, since, metadata, yes)


def _retry_by_id(agent_ids: Sequence[str], metadata: Sequence[str] | None, start: Mapping[str, Any]) -> None:
    tasks, scope = [parse_task_id(agent_id) for agent_id in agent_ids], parse_labels(metadata)
    failed = False
    for task in tasks:
        try:
            retried = ax.retry_sync(task, metadata_filter=scope, **start)
        except ActivityNotFoundError as error:
            if len(tasks) == 1:
                raise
            typer.echo(f"agentexec: {error}", err=True)
            failed = True
            continue
        if retried:
            typer.echo(f"Queued task {task} again.")
            continue
        failed = True
        with session() as db:
            status = ax.activity.detail(db, task, metadata_filter=scope).status
        typer.echo(
            f"agentexec: Task {task} is {status}; only failed and canceled tasks can be retried.", err=True
        )
    if failed:
        raise typer.Exit(1)


def _retry_failed(
    task_name: str | None, since: str | None, metadata: Sequence[str] | None, yes: bool
) -> None:
    # Imported on use: the command line is parsed sooner without SQLAlchemy.
    from agentexec.activity.queries.failed import count_failed
    from agentexec.client.retry_failed import failed_filter, retry_in_batches

    moment = None if since is None else parse_since("--since", since)
    wanted = failed_filter(task_name, moment, parse_labels(metadata))
    with session() as db:
        total = count_failed(db, wanted)
    if not total:
        typer.echo("No failed task matches.")
        return
    if not yes:
        typer.confirm(f"Retry {total} failed task(s)?", abort=True)
    retried = 0
    for number in retry_in_batches(wanted):
        retried += number
        if retried < total:
            typer.echo(f"Queued {retried} of {total} task(s) again.", err=True)
    typer.echo(f"Queued {retried} task(s) again.")
