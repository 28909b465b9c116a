"""The monitor's picture, printed once, and the console of all its pictures."""

from __future__ import annotations

import os

from rich.console import Console, Group, RenderableType

from agentexec.cli.dashboard import view
from agentexec.cli.dashboard.data import PRINTED_TASKS, Query, load_snapshot, load_usage
from agentexec.cli.database import session

MOST_WORKERS = 20
"""Lines for worker processes where the output is no terminal."""

PRINTED_WIDTH = 160
"""Columns where the output is no terminal."""


def make_console() -> Console:
    """As wide as the terminal is at any time."""
    # Where COLUMNS and LINES are exported, they are those of the time before a window was resized.
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return Console(highlight=False, _environ=environment)


def print_once(query: Query) -> None:
    """One look, for a pipe, a file, or --once."""
    printer = make_console()
    if not printer.is_terminal:
        printer = Console(highlight=False, width=PRINTED_WIDTH)
    width = printer.width
    with session() as db:
        seen = load_snapshot(db, query, PRINTED_TASKS, 0)
        cost = load_usage(db, query)
    parts: list[RenderableType] = [
        *view.header(seen.overview, cost, width, paused=False, query=str(query)),
        *view.workers(seen.overview, width, MOST_WORKERS),
        view.table(seen.items, seen.overview.at, width),
    ]
    printer.print(Group(*parts))
