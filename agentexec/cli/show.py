"""`agentexec show`: everything about one task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.options import AgentId, AsJson, MetadataScope, parse_labels, parse_task_id
from agentexec.cli.output import format_log_line, format_time, one_line

if TYPE_CHECKING:
    from agentexec.activity.schemas import ActivityChildSchema, ActivityDetailSchema


def run(agent_id: AgentId, metadata: MetadataScope = None, as_json: AsJson = False) -> None:
    """Show one task with its usage, children, log and error."""
    with session() as db:
        task = ax.activity.detail(db, parse_task_id(agent_id), metadata_filter=parse_labels(metadata))
    if as_json:
        typer.echo(task.model_dump_json())
        return
    for name, value in _summary(task):
        typer.echo(f"{name + ':':<10} {one_line(value)}")
    for line in _tree(task.children):
        typer.echo(line)
    if task.more_below:
        typer.echo("  ... more children")
    for entry in task.logs:
        typer.echo(format_log_line(entry.created_at, entry.percentage, entry.message))
    if task.error:
        typer.echo("\n".join(one_line(line) for line in task.error.splitlines()))


def _summary(task: ActivityDetailSchema) -> list[tuple[str, str]]:
    lines = [
        ("task", task.task_name),
        ("status", f"{task.status}, {task.percentage} %"),
        ("created", format_time(task.created_at)),
    ]
    if task.started_at is not None:
        lines.append(("started", format_time(task.started_at)))
    if task.finished_at is not None:
        lines.append(("finished", f"{format_time(task.finished_at)}, after {task.elapsed_seconds:.1f} s"))
    lines.append(("attempts", str(task.attempt)))
    lines += [("death", f"{format_time(death.at)}, its worker {death.reason}") for death in task.deaths]
    if task.parent_id is not None:
        lines.append(("parent", str(task.parent_id)))
    if task.usage.requests:
        usage = task.usage
        cost = "" if task.cost is None else f", about {task.cost:.4f} dollars"
        tokens = f"{usage.input_tokens} + {usage.output_tokens} tokens"
        lines.append(("usage", f"{usage.requests} requests, {tokens}{cost}"))
    return lines


def _tree(children: Sequence[ActivityChildSchema], depth: int = 0) -> list[str]:
    lines = ["children:"] if children and not depth else []
    for child in children:
        summary = f"{child.agent_id} {child.task_name} {child.status} {child.percentage} %"
        lines.append(f"{'  ' * (depth + 1)}{one_line(summary)}")
        lines += _tree(child.children, depth + 1)
        if child.more_below:
            lines.append(f"{'  ' * (depth + 2)}... more below: agentexec show {child.agent_id}")
    return lines
