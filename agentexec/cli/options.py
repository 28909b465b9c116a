"""Arguments and options that several commands share, and the parsers of their values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

import agentexec as ax
from agentexec.arguments.checks import FIRST_YEAR, MAX_SECONDS, shown
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
StatusNames = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        "-s",
        metavar="STATUS",
        help="Only tasks with this status: queued, running, complete, error or canceled; repeatable, for one of several.",
    ),
]
TaskName = Annotated[
    str | None, typer.Option("--task", "-t", "--type", help="Only tasks with this name (alias: --type).")
]
SearchText = Annotated[
    str | None, typer.Option("--text", help="Only tasks with this text in their name or latest message.")
]

FailedSince = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Only tasks that failed since, like 2h, 7d or 2026-11-28T08:00."
    ),
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


def parse_since(option: str, text: str) -> datetime:
    """Return the moment that an option names: a time ago, like 2h, or a date with or without a time. Raises UsageError.

    Without a zone it is in this computer's, like the times that commands print.
    """
    # Imported on use: the command line is parsed sooner without SQLAlchemy.
    from agentexec.db.clock import utc_now

    text = text.strip()
    try:
        if re.fullmatch(r"[0-9.]+[smhdw]", text):
            return utc_now() - parse_duration(option, text)
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} takes a time ago like 2h or 7d, or a moment like 2026-11-28T08:00, not {shown(text)}."
        ) from None
    if moment.year < FIRST_YEAR:
        raise UsageError(f"{option} must not lie before the year {FIRST_YEAR}.")
    return moment


def parse_statuses(texts: Sequence[str] | None) -> tuple[ax.Status, ...] | None:
    """Return statuses by their names, each of them once, or None if there are none. Raises UsageError."""
    return tuple(dict.fromkeys(map(parse_status, texts or ()))) or None


def parse_status(text: str) -> ax.Status:
    """Return a status by its name. Raises UsageError."""
    try:
        return ax.Status(text.lower())
    except ValueError:
        known = ", ".join(status.value for status in ax.Status)
        raise UsageError(f"There is no status {shown(text)}; the statuses are {known}.") from None
