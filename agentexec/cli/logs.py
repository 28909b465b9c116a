"""`agentexec logs`: the log of one task, to its end on request."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

import typer

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.options import AgentId, MetadataScope, parse_labels, parse_task_id
from agentexec.cli.output import echo_json, format_log_line
from agentexec.values.presentation import Presenter


def run(
    agent_id: AgentId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new lines until the task ends.")
    ] = False,
    metadata: MetadataScope = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each line as a JSON object.")] = False,
) -> None:
    """Print the log of a task. Texts that look like secrets are hidden."""
    presenter = Presenter(ax.CONF.secrets)
    task, scope = parse_task_id(agent_id), parse_labels(metadata)
    if follow:
        for event in ax.activity.stream(task, deltas=False, metadata_filter=scope):
            if "message" in event.data:
                status, percentage = event.data.get("status"), event.data.get("percentage")
                _print_line(event.at, percentage, event.data["message"], status, presenter, as_json)
        return
    with session() as db:
        for entry in ax.activity.detail(db, task, metadata_filter=scope).logs:
            _print_line(
                entry.created_at, entry.percentage, entry.message, str(entry.status), presenter, as_json
            )


def _print_line(
    at: datetime,
    percentage: int | None,
    message: str,
    status: str | None,
    presenter: Presenter,
    as_json: bool,
) -> None:
    if as_json:
        line = {"at": at.isoformat(), "status": status, "percentage": percentage}
        line["message"] = presenter.text(message)
        echo_json(json.dumps(line, ensure_ascii=False))
    else:
        typer.echo(format_log_line(at, percentage, message, presenter))
