"""`agentexec cancel-pending`: cancel everything that waits."""

from __future__ import annotations

from typing import Annotated

import typer

import agentexec as ax
from agentexec.cli.common import Metadata, parse_labels, session


def run(
    metadata: Metadata = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Cancel every queued task, or those with some metadata. Running tasks go on."""
    wanted = parse_labels(metadata)
    with session() as db:
        found = ax.activity.list(db, page_size=1, status=ax.Status.QUEUED, metadata_filter=wanted)
        if found.total and not yes:
            number = f"{found.total}" if found.total_is_exact else f"at least {found.total}"
            typer.confirm(f"Cancel {number} queued task(s)?", abort=True)
        canceled = ax.activity.cancel_pending(db, metadata_filter=wanted)
    typer.echo(f"Canceled {canceled} task(s).")
