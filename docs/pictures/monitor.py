"""The monitor, as it shows a worker at its work."""

from __future__ import annotations

import time

from rich.console import Console
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.cli.screen.data import Query, load_snapshot, load_usage
from agentexec.cli.screen.picture import Picture
from agentexec.cli.screen.state import State
from docs.pictures.site import company_names, script, site
from docs.pictures.terminal import Pane, ansi_lines, draw

COLUMNS, ROWS = 104, 22
TASKS = 12


def monitor() -> str:
    """Run tasks at different paces, and return the monitor's picture while some have ended, run and wait."""
    with site() as made:
        companies = company_names(TASKS)
        for number, company in enumerate(companies):
            made.model.script(script(pause=0.3 + 0.4 * number), when=company)
        ax.configure(database_url=made.database_url)
        made.start_worker(processes=2, slots=4)
        tasks = [ax.enqueue_sync("research", {"company": company}) for company in companies]
        ax.enqueue_sync("research", {"company": companies[0]}, delay=3600)
        ax.cancel_sync(tasks[-1])
        while not _is_worth_seeing():
            time.sleep(0.5)
        lines = ansi_lines(_screen())
    return draw(
        [Pane("agentexec monitor", lines)], COLUMNS, "The monitor: workers, and tasks with their progress."
    )


def _is_worth_seeing() -> bool:
    with Session(ax.get_engine()) as db:
        overview = ax.activity.overview(db)
    return bool(overview.workers) and sum(overview.done_per_minute) >= 3


def _screen() -> str:
    console = Console(
        width=COLUMNS, height=ROWS, force_terminal=True, color_system="truecolor", legacy_windows=False
    )
    state = State(Query(None, None, None, None))
    with Session(ax.get_engine()) as db:
        state.snapshot = load_snapshot(db, state.query, 100, 0)
        state.usage = load_usage(db, state.query)
    with console.capture() as capture:
        console.print(Picture(state, console).render())
    return capture.get()
