"""`agentexec list`: the tasks, page by page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

import agentexec as ax
from agentexec.arguments.checks import FIRST_YEAR, MAX_INTEGER
from agentexec.cli.database import session
from agentexec.cli.options import (
    AsJson,
    Metadata,
    SearchText,
    StatusNames,
    TaskName,
    parse_duration,
    parse_labels,
    parse_statuses,
)
from agentexec.cli.output import echo_json, fit, format_table, format_time, one_line, terminal_width
from agentexec.cli.queue_facts import due_text, dump_json, latest_text, priority_name, queue_facts

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from agentexec.activity.schemas import ActivityListItemSchema

HEADS = ("AGENT_ID", "TASK", "STATUS", "%", "CREATED", "LATEST")
"""Columns of a pipe or file, which programs may parse: they stay as they are."""

WIDE_HEADS = ("AGENT_ID", "TASK", "STATUS", "%", "QUEUE", "PRIORITY", "DUE", "CREATED", "LATEST")
MIDDLE_HEADS = ("AGENT_ID", "TASK", "STATUS", "%", "DUE", "LATEST")
NARROW_HEADS = ("AGENT_ID", "STATUS", "TASK", "DUE, LATEST")

MAX_CELL = {"TASK": 24, "QUEUE": 20}
"""Columns that a name takes at most on a terminal."""


def run(
    status: StatusNames = None,
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
            status=parse_statuses(status),
            task_name=task_name,
            text=text,
            created_after=None if since is None else _ago(since),
            metadata_filter=parse_labels(metadata),
            after=after,
        )
        pauses = _pauses(db, found.items)
    if as_json:
        items = [{**task.model_dump(mode="json"), **queue_facts(task)} for task in found.items]
        echo_json(dump_json({**found.model_dump(mode="json", exclude={"items"}), "items": items}))
        return
    rows = found.items
    for line in _table(rows, terminal_width()) if rows else ():
        typer.echo(line)
    for pause in pauses:
        typer.echo(one_line(pause), err=True)
    if not rows and page > 1 and found.total:
        typer.echo(f"Page {page} is empty; the last page is {found.total_pages}.", err=True)
    elif not rows:
        typer.echo("No tasks match.", err=True)
    elif found.total_pages > 1:
        typer.echo(f"Page {page} of {found.total_pages}, {found.total} tasks in total.", err=True)


def _pauses(db: Session, tasks: Sequence[ActivityListItemSchema]) -> list[str]:
    """Return a sentence for each paused queue in which one of the tasks is queued."""
    # Imported on use: the command line is parsed sooner without SQLAlchemy.
    from agentexec.activity.queries.pauses import pauses_of
    from agentexec.task import Status

    waiting = {task.queue for task in tasks if task.queue and task.status is Status.QUEUED}
    return [pause.sentence() for pause in pauses_of(db, sorted(waiting))] if waiting else []


def _ago(since: str) -> datetime:
    first = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
    return max(first, _now() - parse_duration("--since", since))


def _now() -> datetime:
    # Imported on use: the command line is parsed sooner without SQLAlchemy.
    from agentexec.db.clock import utc_now

    return utc_now()


def _table(tasks: Sequence[ActivityListItemSchema], width: int | None) -> list[str]:
    """Return the lines of a table: for a pipe, or no wider than a terminal of `width` columns."""
    heads = _heads(width)
    now = _now()
    rows = [[_cell(task, head, now) for head in heads] for task in tasks]
    if width is None:
        return format_table(heads, rows)
    fitted = [
        [fit(cell, MAX_CELL.get(head, len(cell) * 2)) for head, cell in zip(heads, row, strict=True)]
        for row in rows
    ]
    return [fit(line, width) for line in format_table(heads, fitted)]


def _heads(width: int | None) -> Sequence[str]:
    if width is None:
        return HEADS
    return WIDE_HEADS if width >= 150 else MIDDLE_HEADS if width >= 110 else NARROW_HEADS


def _cell(task: ActivityListItemSchema, head: str, now: datetime) -> str:
    return one_line(_COLUMNS[head](task, now))


def _queue_priority(task: ActivityListItemSchema) -> str:
    return "-" if task.queue is None else priority_name(task.priority)


def _due_and_latest(task: ActivityListItemSchema, now: datetime) -> str:
    due, latest = due_text(task, now), latest_text(task, now) or ""
    return f"{due}  {latest}" if due.startswith("in ") else latest


_COLUMNS: dict[str, Callable[[ActivityListItemSchema, datetime], str | None]] = {
    "AGENT_ID": lambda task, now: str(task.agent_id),
    "TASK": lambda task, now: task.task_name,
    "STATUS": lambda task, now: str(task.status),
    "%": lambda task, now: str(task.percentage),
    "QUEUE": lambda task, now: task.queue or "-",
    "PRIORITY": lambda task, now: _queue_priority(task),
    "DUE": due_text,
    "CREATED": lambda task, now: format_time(task.created_at),
    "LATEST": latest_text,
    "DUE, LATEST": _due_and_latest,
}
