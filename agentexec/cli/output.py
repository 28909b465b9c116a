"""Plain text for the terminal: single lines, times, log lines, tables and JSON, all without control characters."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime

import typer

from agentexec.values.presentation import Presenter

HARMLESS = "\N{SOFT HYPHEN}\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Invisible characters that many languages and emoji need, and that neither move nor reorder anything."""

SHOWN_CHARACTERS = 2_000
"""Characters of one log line that are shown without --full."""

_BEYOND_ASCII = re.compile(r"[^\x00-\x7e]")


def one_line(text: str | None) -> str:
    r"""Return a text as one line that cannot rewrite the terminal.

    White space becomes a space. Control characters and those that change the direction of writing are shown as in
    Python: `\x1b`, `\u202e`.
    """
    text = text or ""
    return text if text.isprintable() else "".join(map(_visible, text))


def printable(text: str) -> str:
    """Return a text of any number of lines that cannot rewrite the terminal."""
    return "\n".join(map(one_line, text.splitlines()))


def _visible(char: str) -> str:
    if char.isprintable() or char in HARMLESS:
        return char
    return " " if char.isspace() else char.encode("unicode_escape").decode("ascii")


def echo_json(text: str) -> None:
    """Print JSON, with escapes for the characters that JSON allows and a terminal obeys."""
    typer.echo(text if text.isascii() and "\x7f" not in text else _BEYOND_ASCII.sub(_json_escape, text))


def _json_escape(found: re.Match[str]) -> str:
    char = found[0]
    if char.isprintable() or char in HARMLESS:
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is; None for a pipe or a file."""
    if not sys.stdout.isatty():
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None


def cell_width(text: str) -> int:
    """Return the columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def fit(text: str, width: int) -> str:
    """Return a text cut to `width` columns, with an ellipsis at its end if something is missing."""
    if cell_width(text) <= width:
        return text
    kept, left = "", width - 1
    for char in text:
        left -= _cells(char)
        if left < 0:
            break
        kept += char
    return f"{kept}…" if width > 0 else ""


def format_time(at: datetime) -> str:
    """Return a moment in this computer's time zone."""
    try:
        return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):  # a moment of the year 9999 may be in the next one there
        return at.strftime("%Y-%m-%d %H:%M:%S")


def format_moment(at: datetime, now: datetime) -> str:
    """Return a moment of today as a time of day, another one with its date."""
    text = format_time(at)
    return text[11:] if text[:10] == format_time(now)[:10] else text


def format_duration(seconds: float) -> str:
    """Return a duration in at most two units: 5s, 3m12s, 2h05m, 4d03h."""
    whole = max(0, int(seconds))
    for size, smaller, unit, smaller_unit in (
        (86_400, 3600, "d", "h"),
        (3600, 60, "h", "m"),
        (60, 1, "m", "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller:02d}{smaller_unit}"
    return f"{whole}s"


def format_log_line(
    at: datetime, percentage: int | None, message: str, presenter: Presenter, limit: int | None = None
) -> str:
    """Return one line of a task's log without secrets, with up to `limit` characters of its message."""
    progress = "" if percentage is None else f"{percentage} %"
    return f"{format_time(at)}  {progress:>5}  {one_line(presenter.text(message, limit))}"


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with columns as wide as their widest cell; the last column is not padded."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(cell_width(line[column]) for line in lines) for column in range(len(heads) - 1)]
    return [
        "  ".join(
            [*(_pad(cell, width) for cell, width in zip(line, widths, strict=False)), line[-1]]
        ).rstrip()
        for line in lines
    ]


def _pad(cell: str, width: int) -> str:
    return cell + " " * (width - cell_width(cell))
