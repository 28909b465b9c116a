"""`agentexec cancel-pending`: cancel everything that waits."""

from __future__ import annotations

from typing import Annotated

import typer

import agentexec as ax
from agentexec.cli.common import session


def run(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Cancel every queued task. Running tasks go on."""
    with session() as db:
        number = ax.activity.list(db, page_size=1, status=ax.Status.QUEUED).total
        if number and not yes:
            typer.confirm(f"Cancel {number} queued task(s)?", abort=True)
        canceled = ax.activity.cancel_pending(db)
    typer.echo(f"Canceled {canceled} task(s).")
