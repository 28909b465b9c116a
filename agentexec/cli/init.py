"""`agentexec init`: write a small project that works right away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentexec.errors import UsageError

TEMPLATES = Path(__file__).with_name("project")
FILES = {"worker.py.txt": "worker.py", "app.py.txt": "app.py", "env.txt": ".env.example"}

NEXT_STEPS = """
Next:
  agentexec worker worker                                        # in one terminal
  agentexec enqueue greet '{"name": "Ada"}' --wait               # in another; needs no API key
  OPENAI_API_KEY=... agentexec worker worker                     # with a key, agents run too
  agentexec enqueue research '{"company": "Acme"}' --follow
  agentexec monitor"""


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of the project, created if missing.")
    ] = Path(),
) -> None:
    """Write a small working project.

    It has a worker with two tasks, a web application, and sample settings. No existing file is overwritten: the exit
    code is 2 if one is in the way.
    """
    existing = [name for name in FILES.values() if (folder / name).exists()]
    if existing:
        raise UsageError(f"{folder / existing[0]} already exists; choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for template, name in FILES.items():
            text = (TEMPLATES / template).read_text(encoding="utf-8")
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
            typer.echo(f"Wrote {folder / name}.")
    except OSError as error:
        raise UsageError(f"Cannot write the project to {folder}: {error.strerror or error}.") from None
    typer.echo(NEXT_STEPS if folder == Path() else f"\nThen `cd {folder}`.{NEXT_STEPS}")
