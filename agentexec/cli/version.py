"""`agentexec version`: the installed versions."""

from __future__ import annotations

import importlib.metadata
import json
import platform

import typer

from agentexec import __version__
from agentexec.cli.options import AsJson

LIBRARIES = ("openai-agents", "openai", "sqlalchemy", "pydantic", "redis", "psycopg", "PyMySQL")


def versions() -> dict[str, str]:
    """Return the versions of agentexec, Python and the libraries it uses, without importing them."""
    found = {"agentexec": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run(as_json: AsJson = False) -> None:
    """Print the versions of agentexec, Python and libraries."""
    if as_json:
        typer.echo(json.dumps(versions()))
        return
    for name, version in versions().items():
        typer.echo(f"{name} {version}")
