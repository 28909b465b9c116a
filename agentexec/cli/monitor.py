"""`agentexec monitor`: what happens now, in the terminal."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

from agentexec.cli.common import AsJson, Metadata, parse_labels, parse_status


def run(
    once: Annotated[bool, typer.Option("--once", help="Print it once and exit.")] = False,
    as_json: AsJson = False,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.2, max=3600, help="Seconds between two looks.")
    ] = 1.0,
    wanted: Annotated[
        str | None, typer.Option("--status", "-s", help="queued, running, complete, error or canceled.")
    ] = None,
    task_name: Annotated[str | None, typer.Option("--type", "-t", help="Of this task only.")] = None,
    metadata: Metadata = None,
    text: Annotated[
        str | None, typer.Option("--text", help="With this text in the task's name or latest message.")
    ] = None,
) -> None:
    """Watch tasks and workers live. Press ? for the keys.

    Prints once where the output is no terminal, and with --json, which also exits after one look.
    """
    # Imported on use: rich takes longer to import than the other commands take.
    data = importlib.import_module("agentexec.cli.dashboard.data")
    query = data.Query(parse_status(wanted), task_name, text or None, parse_labels(metadata))
    if as_json:
        typer.echo(data.snapshot_json(query))
    elif once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        importlib.import_module("agentexec.cli.dashboard.printed").print_once(query)
    else:
        importlib.import_module("agentexec.cli.dashboard.app").Dashboard(query, interval).run()
