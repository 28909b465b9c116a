"""`agentexec webhooks`: the webhook messages and their deliveries, as a table, as lines and as JSON; and sending them again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

import agentexec as ax
from agentexec.arguments.webhooks import shown_url
from agentexec.cli.database import session
from agentexec.cli.options import AsJson, Metadata, TaskName, Yes, parse_labels, parse_since, parse_task_id
from agentexec.cli.output import (
    echo_json,
    fit,
    format_moment,
    format_table,
    format_time,
    one_line,
    terminal_width,
)
from agentexec.errors import UsageError

if TYPE_CHECKING:
    from agentexec.webhooks import WebhookSchema

MAX_OUTCOME = 300
"""Characters of the receiver's answer."""

HEADS = ("AGENT_ID", "TASK", "EVENT", "TO", "STATE", "ATTEMPTS", "UPDATED", "LATEST ANSWER")


def run(
    action: Annotated[
        str | None,
        typer.Argument(metavar="[resend]", help="What to do; by default, list the messages."),
    ] = None,
    agent_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[AGENT_ID]...", help="IDs of the tasks.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Resend all messages that were given up.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="With --failed: only those given up since, like 2h, 7d or 2026-11-28T08:00.",
        ),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option("--state", "-s", help="Only messages in this state: pending, delivered or failed."),
    ] = None,
    task_name: TaskName = None,
    metadata: Metadata = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, help="Maximum number of lines.")
    ] = 20,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """List the webhook messages about ended tasks, newest first, or send some again.

    A message that is sent again has its webhook-id, and as many attempts as a new one. Of the URL only the host is shown. The
    exit code is 1 if a task named by ID does not exist, has not ended or has no webhook.
    """
    if action is None:
        _list(state, task_name, metadata, limit, as_json)
        return
    if action != "resend":
        raise UsageError(
            f"There is no action {action}; `agentexec webhooks resend AGENT_ID` sends a message again."
        )
    if bool(agent_ids) == failed:
        raise UsageError(
            "Name the tasks by their IDs, `agentexec webhooks resend AGENT_ID`, or choose --failed for all."
        )
    if agent_ids:
        _resend(agent_ids, metadata)
    else:
        _resend_failed(since, metadata, yes)


def _list(
    state: str | None, task_name: str | None, metadata: Sequence[str] | None, limit: int, as_json: bool
) -> None:
    with session() as db:
        found = ax.webhooks.list(
            db, state=state, task_name=task_name, metadata_filter=parse_labels(metadata), limit=limit
        )
    if as_json:
        import json  # on use: only this output needs it

        echo_json(json.dumps([message.model_dump(mode="json") for message in found]))
        return
    if not found:
        typer.echo("There are no webhook messages.", err=True)
        return
    lines, width = format_table(HEADS, [_row(message) for message in found]), terminal_width()
    for line in lines:
        typer.echo(line if width is None else fit(line, width))
    if any(message.state == "failed" for message in found):
        typer.echo("Send the failed ones again: agentexec webhooks resend --failed", err=True)


def _row(message: WebhookSchema) -> tuple[str, ...]:
    return (
        str(message.agent_id),
        one_line(message.task_name),
        message.event,
        one_line(message.to),
        one_line(message.state),
        str(message.attempts),
        format_time(message.updated_at),
        one_line(message.outcome or "-"),
    )


def _resend(agent_ids: Sequence[str], metadata: Sequence[str] | None) -> None:
    refused = False
    for agent_id in [parse_task_id(agent_id) for agent_id in agent_ids]:
        if ax.webhooks.resend_sync(agent_id, metadata_filter=parse_labels(metadata)):
            typer.echo(f"The message about task {agent_id} is sent again.")
        else:
            refused = True
            typer.echo(f"agentexec: Task {agent_id} has not ended, or has no webhook.", err=True)
    if refused:
        raise typer.Exit(1)


def _resend_failed(since: str | None, metadata: Sequence[str] | None, yes: bool) -> None:
    moment = None if since is None else parse_since("--since", since)
    if not yes:
        typer.confirm("Send all messages again that were given up?", abort=True)
    sent = ax.webhooks.resend_failed_sync(since=moment, metadata_filter=parse_labels(metadata))
    typer.echo(f"The messages about {sent} task(s) are sent again.")


def message_text(message: Any, now: datetime) -> str:
    """Return how the delivery of a message stands. Of its URL only the host is shown: a path may hold a token."""
    text = f"{message.event} to {shown_url(message.url)}: {message.state}"
    if message.attempts:
        text += f" after {message.attempts} attempt(s) ({(message.outcome or 'no answer yet')[:MAX_OUTCOME]})"
    if message.next_at is not None and message.next_at > now:
        text += f", next attempt {format_moment(message.next_at, now)}"
    return text


def message_json(message: Any) -> dict[str, Any]:
    """Return the delivery of a message as JSON data."""
    return {
        "webhook_id": f"msg_{message.message_id.hex}",
        "event": message.event,
        "to": shown_url(message.url),
        "state": message.state,
        "attempts": message.attempts,
        "outcome": None if message.outcome is None else message.outcome[:MAX_OUTCOME],
        "updated_at": message.updated_at.isoformat(),
        "next_at": None if message.next_at is None else message.next_at.isoformat(),
    }
