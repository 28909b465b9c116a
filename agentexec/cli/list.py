"""`agentexec list`: the tasks, page by page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

import agentexec as ax
from agentexec.arguments.checks import FIRST_YEAR, MAX_INTEGER
from agentexec.cli.database import session
from agentexec.cli.options import (
    AsJson,
    Metadata,
    SearchText,
    StatusName,
    TaskName,
    parse_duration,
    parse_labels,
    parse_status,
)
from agentexec.cli.output import format_table, format_time, one_line

HEADS = ("AGENT_ID", "TASK", "STATUS", "%", "CREATED", "LATEST")


def run(
    status: StatusName = None,
    task_name: TaskName = None,
    metadata: Metadata = None,
    text: SearchText = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only tasks enqueued within this time, like 30m or 7d."),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after", metavar="CURSOR", help="Continue after this cursor (`next_cursor` in --json output)."
        ),
    ] = None,
    page: Annotated[int, typer.Option(min=1, max=MAX_INTEGER, help="Number of the page, from 1.")] = 1,
    page_size: Annotated[
        int, typer.Option("--page-size", "-n", min=1, max=1000, help="Tasks per page.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List tasks: running, then queued, then the newest."""
    with session() as db:
        found = ax.activity.list(
            db,
            page,
            page_size,
            status=parse_status(status),
            task_name=task_name,
            text=text,
            created_after=None if since is None else _ago(since),
            metadata_filter=parse_labels(metadata),
            after=after,
        )
    if as_json:
        typer.echo(found.model_dump_json())
        return
    rows = [
        (
            str(task.agent_id),
            one_line(task.task_name),
            str(task.status),
            str(task.percentage),
            format_time(task.created_at),
            one_line(task.latest_log_message),
        )
        for task in found.items
    ]
    for line in format_table(HEADS, rows) if rows else ():
        typer.echo(line)
    if not rows and page > 1 and found.total:
        typer.echo(f"Page {page} is empty; the last page is {found.total_pages}.", err=True)
    elif not rows:
        typer.echo("No tasks match.", err=True)
    elif found.total_pages > 1:
        typer.echo(f"Page {page} of {found.total_pages}, {found.total} tasks in total.", err=True)


def _ago(since: str) -> datetime:
    first = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
    return max(first, datetime.now(UTC) - parse_duration("--since", since))
