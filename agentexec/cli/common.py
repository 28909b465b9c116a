"""What several commands share: their options, a session, tables of plain text."""

from __future__ import annotations

import importlib
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer

import agentexec as ax
from agentexec.errors import UsageError

AgentId = Annotated[str, typer.Argument(metavar="AGENT_ID", help="The task's id, as enqueue printed it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Label; may be repeated."),
]

MetadataScope = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Only if the task has this label; may be repeated."),
]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@contextmanager
def session() -> Generator[Any]:
    """A Session on the database of the settings."""
    # Imported on use: the other commands start faster without SQLAlchemy.
    orm, errors = importlib.import_module("sqlalchemy.orm"), importlib.import_module("agentexec.db.errors")
    engine = ax.get_engine()
    with errors.translating_db_errors(engine), orm.Session(engine) as db:
        yield db


def parse_labels(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """KEY=VALUE pairs as a mapping; None if there are none. Raises UsageError."""
    if not pairs:
        return None
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--metadata takes KEY=VALUE, not {pair!r}.")
        found[key] = value
    return found


def parse_task_id(text: str) -> UUID:
    """A task's id from the command line. Raises UsageError."""
    # Imported on use: every command, and a probe above all, starts faster without pydantic.
    parsed: UUID = importlib.import_module("agentexec.task").parse_agent_id(text)
    return parsed


def parse_duration(text: str) -> timedelta:
    """A time like 30d, 12h or 90s. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if match is None:
        raise UsageError(f"Write a time like 30d, 12h, 90m or 45s, not {text!r}.")
    return timedelta(seconds=float(match[1]) * UNITS[match[2]])


def parse_status(text: str | None) -> ax.Status | None:
    """A status by its name. Raises UsageError."""
    if text is None:
        return None
    try:
        return ax.Status(text.lower())
    except ValueError:
        known = ", ".join(one.value for one in ax.Status)
        raise UsageError(f"There is no status {text!r}; the statuses are {known}.") from None


def format_time(at: datetime) -> str:
    """A moment in this computer's time zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def one_line(text: str | None) -> str:
    """A message without line breaks and control characters, which could rewrite the terminal."""
    return "".join(char if char.isprintable() else " " for char in text or "")


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as their widest cell; the last column is not padded."""
    every = [list(heads), *map(list, rows)]
    widths = [max(len(row[at]) for row in every) for at in range(len(heads) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in every
    ]
