"""The monitor printed once as plain text, and the console that it prints on."""

from __future__ import annotations

import os

from rich.console import Console, Group, RenderableType

from agentexec.cli.database import session
from agentexec.cli.screen import view
from agentexec.cli.screen.data import PLAIN_TASKS, Query, load_snapshot, load_usage

MAX_WORKERS = 20
"""Lines for worker processes."""

PLAIN_WIDTH = 160
"""Columns where the output is not a terminal."""


def make_console() -> Console:
    """Return a console that is always as wide as the terminal."""
    # If COLUMNS and LINES are exported, they keep the size from before the window was resized.
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return Console(highlight=False, _environ=environment)


def print_once(query: Query) -> None:
    """Print the current state, for a pipe, a file, or --once."""
    console = make_console()
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    width = console.width
    with session() as db:
        snapshot = load_snapshot(db, query, PLAIN_TASKS, 0)
        usage = load_usage(db, query)
    parts: list[RenderableType] = [
        *view.header(snapshot.overview, usage, width, paused=False, query=str(query)),
        *view.workers(snapshot.overview, width, MAX_WORKERS),
        view.table(snapshot.items, snapshot.overview.at, width),
    ]
    console.print(Group(*parts))
