"""`agentexec failed`: the tasks that failed for good, and how to retry them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentexec.cli.database import session
from agentexec.cli.options import AsJson, FailedSince, Metadata, TaskName, parse_labels, parse_since
from agentexec.cli.output import echo_json, fit, format_table, format_time, one_line, terminal_width
from agentexec.cli.queue_facts import dump_json

if TYPE_CHECKING:
    from agentexec.activity.queries.failed import FailedGroup

MAX_NAME_CELL = 30
"""Columns that a name takes at most on a terminal."""


def run(
    task_name: TaskName = None,
    since: FailedSince = None,
    metadata: Metadata = None,
    group: Annotated[
        bool, typer.Option("--group", "-g", help="Count the tasks by name and error instead of listing them.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, help="Maximum number of lines.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List the tasks that failed for good, newest first.

    `agentexec retry` queues them again: by ID, or all those that the same options match.
    """
    # Imported on use: the command line is parsed sooner without SQLAlchemy.
    from agentexec.activity.queries.failed import FailedFilter, count_failed, failed_groups, newest_failed

    moment = None if since is None else parse_since("--since", since)
    wanted = FailedFilter(task_name, moment, None, parse_labels(metadata))
    with session() as db:
        total = count_failed(db, wanted)
        found: Sequence[Any] = (failed_groups if group else newest_failed)(db, wanted, limit)
    if as_json:
        to_json = _group_json if group else _row_json
        echo_json(dump_json({"total": total, "items": [to_json(item) for item in found]}))
        return
    for line in _group_lines(found) if group else _row_lines(found):
        typer.echo(line)
    if not total:
        typer.echo("No task has failed.", err=True)
        return
    part = f"The newest {len(found)} of " if not group and len(found) < total else ""
    advice = f"Retry them all: {_command(task_name, since, metadata)}"
    typer.echo(f"{part}{total} failed task(s). {advice}", err=True)


def _command(task_name: str | None, since: str | None, metadata: Sequence[str] | None) -> str:
    """Return the command that retries what was listed."""
    options = [("--task", task_name), ("--since", since), *(("--metadata", pair) for pair in metadata or ())]
    given = [f"{name} {_quoted(value)}" for name, value in options if value is not None]
    chosen = [] if task_name or since else ["--all"]
    return " ".join(["agentexec retry", *chosen, *given])


def _quoted(value: str) -> str:
    import shlex  # on use: only this line needs it

    return shlex.quote(one_line(value))


def _reason(row: Any) -> str:
    """Return the last line of a task's traceback, which its error begins with."""
    text = (row.error or row.message or "").strip()
    return one_line(text.splitlines()[0]) if text else "-"


def _time(at: datetime | None) -> str:
    return "-" if at is None else format_time(at)


def _row_json(row: Any) -> dict[str, Any]:
    return {
        "agent_id": str(row.agent_id),
        "task_name": row.agent_type,
        "queue": row.queue,
        "attempts": row.attempt,
        "crashes": row.crashes,
        "created_at": row.created_at.isoformat(),
        "failed_at": None if row.finished_at is None else row.finished_at.isoformat(),
        "error": _reason(row),
        "retry": f"agentexec retry {row.agent_id}",
    }


def _group_json(group: FailedGroup) -> dict[str, Any]:
    return {
        "task_name": group.task_name,
        "error": one_line(group.message),
        "count": group.count,
        "latest_at": None if group.latest is None else group.latest.isoformat(),
        "latest_agent_id": str(group.example),
    }


def _row_lines(rows: Sequence[Any]) -> list[str]:
    cells = [
        [
            str(row.agent_id),
            one_line(row.agent_type),
            _time(row.finished_at),
            str(row.attempt),
            _reason(row),
        ]
        for row in rows
    ]
    return _table(["AGENT_ID", "TASK", "FAILED", "ATTEMPTS", "ERROR"], cells, 1)


def _group_lines(groups: Sequence[FailedGroup]) -> list[str]:
    cells = [
        [
            str(group.count),
            one_line(group.task_name),
            _time(group.latest),
            str(group.example),
            one_line(group.message),
        ]
        for group in groups
    ]
    return _table(["COUNT", "TASK", "LATEST", "AGENT_ID", "ERROR"], cells, 1)


def _table(heads: list[str], rows: list[list[str]], name: int) -> list[str]:
    """Return the lines of a table: for a pipe whole, for a terminal no wider than that. `name` is the column of names."""
    if not rows:
        return []
    width = terminal_width()
    if width is None:
        return format_table(heads, rows)
    for row in rows:
        row[name] = fit(row[name], MAX_NAME_CELL)
    return [fit(line, width) for line in format_table(heads, rows)]
