"""`agentexec init`: a small project that works at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentexec.errors import UsageError

TEMPLATES = Path(__file__).with_name("project")
FILES = {"worker.py.txt": "worker.py", "app.py.txt": "app.py", "env.txt": ".env.example"}

NEXT = """
Next:
  agentexec worker worker                                        # in one terminal
  agentexec enqueue greet '{"name": "Ada"}' --wait               # in another: needs no key
  OPENAI_API_KEY=... agentexec worker worker                     # then agents can run, too
  agentexec enqueue research '{"company": "Acme"}' --follow
  agentexec monitor"""


def run(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the project; it is made if it is not there.")
    ] = Path(),
) -> None:
    """Write a small working project: a worker with two tasks, a web application, and the settings it may have.

    Nothing that is there is overwritten: then the exit code is 2.
    """
    there = [name for name in FILES.values() if (folder / name).exists()]
    if there:
        raise UsageError(f"{folder / there[0]} is there already; choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for template, name in FILES.items():
            text = (TEMPLATES / template).read_text(encoding="utf-8")
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
            typer.echo(f"Wrote {folder / name}.")
    except OSError as error:
        raise UsageError(f"The project cannot be written to {folder}: {error.strerror or error}.") from None
    typer.echo(NEXT if folder == Path() else f"\nThen `cd {folder}`.{NEXT}")
