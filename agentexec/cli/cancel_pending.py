"""`agentexec cancel-pending`: cancel the queued tasks."""

from __future__ import annotations

import typer

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.options import Metadata, Yes, parse_labels


def run(metadata: Metadata = None, yes: Yes = False) -> None:
    """Cancel all queued tasks. Running tasks continue."""
    labels = parse_labels(metadata)
    with session() as db:
        queued = ax.activity.list(db, page_size=1, status=ax.Status.QUEUED, metadata_filter=labels)
        if queued.total and not yes:
            count = f"{queued.total}" if queued.total_is_exact else f"at least {queued.total}"
            typer.confirm(f"Cancel {count} queued task(s)?", abort=True)
        canceled = ax.activity.cancel_pending(db, metadata_filter=labels)
    typer.echo(f"Canceled {canceled} task(s).")
