"""`agentexec list`, `show`, `logs`, `retry` and `prune`: the record, read and kept in order."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

import agentexec as ax
from agentexec.cli.common import (
    AgentId,
    AsJson,
    Metadata,
    MetadataScope,
    format_table,
    format_time,
    one_line,
    parse_duration,
    parse_labels,
    parse_status,
    parse_task_id,
    session,
)

HEADS = ("AGENT_ID", "TASK", "STATUS", "%", "CREATED", "LATEST")


def list_tasks(
    wanted: Annotated[
        str | None, typer.Option("--status", "-s", help="queued, running, complete, error or canceled.")
    ] = None,
    task_name: Annotated[str | None, typer.Option("--type", "-t", help="Of this task only.")] = None,
    metadata: Metadata = None,
    text: Annotated[
        str | None, typer.Option("--text", help="With this text in the task's name or latest message.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Enqueued within this time, like 30m or 7d.")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="CURSOR", help="Behind the `next_cursor` of --json.")
    ] = None,
    page: Annotated[int, typer.Option(min=1, help="Pages count from 1.")] = 1,
    page_size: Annotated[
        int, typer.Option("--page-size", "-n", min=1, max=1000, help="Tasks on a page.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List tasks: running ones first, then queued ones, then the newest."""
    with session() as db:
        found = ax.activity.list(
            db,
            page,
            page_size,
            status=parse_status(wanted),
            agent_type=task_name,
            text=text,
            created_after=None if since is None else datetime.now(UTC) - parse_duration(since),
            metadata_filter=parse_labels(metadata),
            after=after,
        )
    if as_json:
        typer.echo(found.model_dump_json())
        return
    rows = [
        (
            str(one.agent_id),
            one_line(one.agent_type),
            str(one.status),
            str(one.percentage),
            format_time(one.created_at),
            one_line(one.latest_log_message),
        )
        for one in found.items
    ]
    for line in format_table(HEADS, rows) if rows else ():
        typer.echo(line)
    if not rows:
        typer.echo("There are no such tasks.", err=True)
    elif found.total_pages > 1:
        typer.echo(f"Page {page} of {found.total_pages}; {found.total} tasks in all.", err=True)


def show_task(agent_id: AgentId, metadata: MetadataScope = None, as_json: AsJson = False) -> None:
    """Show one task: its state, usage, tree of children, log and error."""
    with session() as db:
        found = ax.activity.detail(db, parse_task_id(agent_id), metadata_filter=parse_labels(metadata))
    if as_json:
        typer.echo(found.model_dump_json())
        return
    facts: list[tuple[str, str]] = [
        ("task", found.agent_type),
        ("status", f"{found.status}, {found.percentage} %"),
        ("created", format_time(found.created_at)),
    ]
    if found.started_at is not None:
        facts.append(("started", format_time(found.started_at)))
    if found.finished_at is not None:
        facts.append(("finished", f"{format_time(found.finished_at)}, after {found.elapsed_seconds:.1f} s"))
    facts.append(("attempts", str(found.attempt)))
    if found.parent_id is not None:
        facts.append(("parent", str(found.parent_id)))
    if found.usage.requests:
        used = found.usage
        cost = "" if found.cost is None else f", about {found.cost:.4f} dollars"
        facts.append(
            ("usage", f"{used.requests} requests, {used.input_tokens} + {used.output_tokens} tokens{cost}")
        )
    for name, value in facts:
        typer.echo(f"{name + ':':<10} {one_line(value)}")
    for line in _tree(found.children):
        typer.echo(line)
    for entry in found.logs:
        typer.echo(_log_line(entry.created_at, entry.percentage, entry.message))
    if found.error:
        typer.echo("\n".join(one_line(line) for line in found.error.splitlines()))


def _tree(children: list[Any], depth: int = 0) -> list[str]:
    lines = ["children:"] if children and not depth else []
    for child in children:
        about = f"{child.agent_id} {child.agent_type} {child.status} {child.percentage} %"
        lines.append(f"{'  ' * (depth + 1)}{one_line(about)}")
        lines += _tree(child.children, depth + 1)
    return lines


def _log_line(at: Any, percentage: int | None, message: str) -> str:
    share = "" if percentage is None else f"{percentage} %"
    return f"{format_time(at)}  {share:>5}  {one_line(message)}"


def logs(
    agent_id: AgentId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task has ended.")] = False,
    metadata: MetadataScope = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each line.")] = False,
) -> None:
    """Print the log of a task; with --follow, also what comes."""
    task, scope = parse_task_id(agent_id), parse_labels(metadata)
    if follow:
        for event in ax.activity.stream(task, deltas=False, metadata_filter=scope):
            if "message" in event.data:
                state, percentage = event.data.get("status"), event.data.get("percentage")
                _say(event.at, percentage, event.data["message"], state, as_json)
        return
    with session() as db:
        for entry in ax.activity.detail(db, task, metadata_filter=scope).logs:
            _say(entry.created_at, entry.percentage, entry.message, str(entry.status), as_json)


def _say(at: Any, percentage: int | None, message: str, state: str | None, as_json: bool) -> None:
    if as_json:
        line = {"at": at.isoformat(), "status": state, "percentage": percentage, "message": message}
        typer.echo(json.dumps(line, ensure_ascii=False))
    else:
        typer.echo(_log_line(at, percentage, message))


def retry(agent_id: AgentId, metadata: MetadataScope = None) -> None:
    """Put a task that failed or was canceled back on the queue; it goes on at its last finished step.

    The exit code is 1 if the task is under way or complete.
    """
    task, scope = parse_task_id(agent_id), parse_labels(metadata)
    if not ax.retry_sync(task, metadata_filter=scope):
        with session() as db:
            state = ax.activity.detail(db, task, metadata_filter=scope).status
        typer.echo(
            f"agentexec: Task {task} is {state}; only failed and canceled tasks can be retried.", err=True
        )
        raise typer.Exit(1)
    typer.echo(f"Task {task} is queued again.")


def prune(
    older_than: Annotated[str, typer.Option("--older-than", metavar="TIME", help="Like 30d, 12h or 90m.")],
    metadata: Metadata = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove tasks that ended longer ago than a time, with their logs, journals and results."""
    age, wanted = parse_duration(older_than), parse_labels(metadata)
    with session() as db:
        number = ax.activity.prunable(db, age, metadata_filter=wanted)
        if number and not yes:
            typer.confirm(f"Remove {number} task(s) with their logs?", abort=True)
        removed = ax.activity.prune(db, age, metadata_filter=wanted) if number else 0
    typer.echo(f"Removed {removed} task(s).")
