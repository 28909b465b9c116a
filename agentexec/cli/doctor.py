"""`agentexec doctor`: checks of everything a worker needs, each with what to do."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator
from typing import Annotated

import typer

import agentexec as ax
from agentexec.cli.app_module import SameModule
from agentexec.cli.checks import Finding, findings
from agentexec.cli.options import AsJson
from agentexec.cli.output import printable
from agentexec.worker.installation import own_module

MODULE_SECONDS = 60.0
"""Seconds that the worker module may take to load."""


def run(
    module: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE[:ATTR]",
            help="Module with your pool. Default: AGENTEXEC_WORKER_MODULE.",
            show_default=False,
        ),
    ] = None,
    app: SameModule = None,
    as_json: AsJson = False,
) -> None:
    """Check all that a worker needs, and say what to do.

    Checks the settings, database, schema, queue, workers, worker module and API key. The exit code is 1 if a check
    fails.
    """
    chosen = module or app
    name = chosen or (None if app == "" else ax.CONF.worker_module)
    found: list[Finding] = []
    for finding in _findings_of(name, given=bool(chosen)) if name else findings(None, given=False):
        found.append(finding)
        if not as_json:
            typer.echo(f"{finding.state:<5} {finding.name:<10} {printable(finding.text)}")
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in found]))
    if any(finding.state == "fail" for finding in found):
        raise typer.Exit(1)


def _findings_of(module: str, *, given: bool) -> Iterator[Finding]:
    """Run the checks in a process that imports the module, and contains what the module does."""
    read, write = os.pipe()
    arguments = {"module": module, "given": given, "output": write}
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [*own_module("agentexec.cli.checks"), json.dumps(arguments)],
        pass_fds=[write],
        stdout=2,  # what the module prints does not belong to the answer
    )
    os.close(write)
    problem = None
    with os.fdopen(read, encoding="utf-8") as lines:
        if not select.select([read], [], [], MODULE_SECONDS)[0]:
            process.kill()
            problem = f"{module} did not load within {MODULE_SECONDS:g} s."
        for line in lines:
            yield Finding(**json.loads(line))
    code = process.wait()
    if problem is None and code != 0:
        problem = f"Cannot load {module}: it ends its process with exit code {code}."
    if problem is not None:
        yield Finding("module", "fail", problem)
