"""`agentexec prune`: remove old tasks."""

from __future__ import annotations

from typing import Annotated

import typer

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.options import Metadata, Yes, parse_duration, parse_labels


def run(
    older_than: Annotated[
        str,
        typer.Option("--older-than", metavar="TIME", help="Time since a task's end, like 30d, 12h or 90m."),
    ],
    metadata: Metadata = None,
    yes: Yes = False,
) -> None:
    """Remove tasks that ended long ago.

    Their logs, journals and results are removed too. Queued and running tasks stay.
    """
    age, labels = parse_duration("--older-than", older_than), parse_labels(metadata)
    with session() as db:
        count = ax.activity.prunable(db, age, metadata_filter=labels)
        if count and not yes:
            typer.confirm(f"Remove {count} task(s) with their logs?", abort=True)
        # Without tasks too: an earlier prune may have left a partition, which was in use.
        removed = ax.activity.prune(db, age, metadata_filter=labels)
    typer.echo(f"Removed {removed} task(s).")
