"""`agentexec monitor`: tasks and workers, live in the terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agentexec.cli.options import (
    AsJson,
    Metadata,
    SearchText,
    StatusNames,
    TaskName,
    parse_labels,
    parse_statuses,
)
from agentexec.cli.output import echo_json


def run(
    once: Annotated[bool, typer.Option("--once", help="Print the current state and exit.")] = False,
    as_json: AsJson = False,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.2, max=3600, help="Seconds between two refreshes.")
    ] = 1.0,
    status: StatusNames = None,
    task_name: TaskName = None,
    metadata: Metadata = None,
    text: SearchText = None,
) -> None:
    """Watch tasks and workers live. Press ? for the keys.

    Without a terminal, and with --once or --json, print the current state once and exit.
    """
    # Imported on use: rich takes longer to import than the other commands take to run.
    from agentexec.cli.screen.data import Query, snapshot_json

    query = Query(parse_statuses(status), task_name, text or None, parse_labels(metadata)).checked()
    if as_json:
        echo_json(snapshot_json(query))
    elif once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        from agentexec.cli.screen.plain import print_once

        print_once(query)
    else:
        from agentexec.cli.screen.app import Dashboard

        Dashboard(query, interval).run()
