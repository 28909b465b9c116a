"""Plain text for the terminal: single lines, times, log lines and tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime


def one_line(text: str | None) -> str:
    """Return a text without line breaks and control characters, which could rewrite the terminal."""
    return "".join(char if char.isprintable() else " " for char in text or "")


def format_time(at: datetime) -> str:
    """Return a moment in this computer's time zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_log_line(at: datetime, percentage: int | None, message: str) -> str:
    """Return one line of a task's log."""
    progress = "" if percentage is None else f"{percentage} %"
    return f"{format_time(at)}  {progress:>5}  {one_line(message)}"


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with columns as wide as their widest cell; the last column is not padded."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads) - 1)]
    return [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]
        ).rstrip()
        for line in lines
    ]
