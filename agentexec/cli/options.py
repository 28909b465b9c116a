"""Arguments and options that several commands share, and the parsers of their values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer

import agentexec as ax
from agentexec.arguments.checks import MAX_SECONDS, shown
from agentexec.errors import UsageError

AgentId = Annotated[str, typer.Argument(metavar="AGENT_ID", help="ID of the task, as printed by `enqueue`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Only tasks with this label (repeatable)."),
]
MetadataScope = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Label that the task must have (repeatable)."),
]
StatusName = Annotated[
    str | None,
    typer.Option(
        "--status", "-s", help="Only tasks with this status: queued, running, complete, error or canceled."
    ),
]
TaskName = Annotated[
    str | None, typer.Option("--task", "-t", "--type", help="Only tasks with this name (alias: --type).")
]
SearchText = Annotated[
    str | None, typer.Option("--text", help="Only tasks with this text in their name or latest message.")
]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def parse_labels(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """Return KEY=VALUE pairs as a mapping, or None if there are none. Raises UsageError."""
    if not pairs:
        return None
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--metadata takes KEY=VALUE, not {shown(pair)}.")
        if labels.setdefault(key, value) != value:
            raise UsageError(f"--metadata gives {shown(key)} two values; a task has one.")
    return labels


def parse_task_id(text: str) -> UUID:
    """Return a task's ID given on the command line. Raises UsageError."""
    # Imported on use: commands, and above all probes, start faster without pydantic.
    from agentexec.task import parse_agent_id

    return parse_agent_id(text)


def parse_duration(option: str, text: str) -> timedelta:
    """Return a duration given for an option, like 30d, 12h or 90s. Raises UsageError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhdw])", text.strip())
    if match is None:
        raise UsageError(f"{option} takes a time like 30d, 12h, 90m or 45s, not {shown(text)}.")
    seconds = float(match[1]) * UNITS[match[2]]
    if seconds > MAX_SECONDS:
        raise UsageError(f"{option} takes at most {int(MAX_SECONDS // UNITS['d'])}d, not {shown(text)}.")
    return timedelta(seconds=seconds)


def parse_status(text: str | None) -> ax.Status | None:
    """Return a status by its name. Raises UsageError."""
    if text is None:
        return None
    try:
        return ax.Status(text.lower())
    except ValueError:
        known = ", ".join(status.value for status in ax.Status)
        raise UsageError(f"There is no status {shown(text)}; the statuses are {known}.") from None
