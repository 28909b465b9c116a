"""`agentexec enqueue`: accept a task from the command line."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

import agentexec as ax
from agentexec.cli.common import Metadata, one_line, parse_labels
from agentexec.errors import UsageError

SPACIOUS = 4
"""How many times as long as the context itself its JSON may be, with indentation."""


def run(
    task_name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the task.")],
    context: Annotated[
        str,
        typer.Argument(metavar="JSON|@FILE|-", help="The context: JSON, a file of it, or standard input."),
    ] = "{}",
    priority: Annotated[str, typer.Option("--priority", "-p", help="high or low.")] = "low",
    delay: Annotated[float | None, typer.Option(min=0, help="Seconds before it may start.")] = None,
    metadata: Metadata = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-Q", help="Another queue than AGENTEXEC_QUEUE_NAME.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A second enqueue with this key returns the first task.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show its progress until it ends, then print the result.")
    ] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most; default: no limit.")] = None,
) -> None:
    """Put a task on the queue and print its agent_id; with --wait or --follow, its result.

    With these the exit code is 1 if the task failed, was canceled, or did not end in time.
    """
    if priority.upper() not in ax.Priority.__members__:
        raise UsageError(f"--priority must be high or low, not {priority!r}.")
    task = ax.enqueue_sync(
        task_name,
        _context(context),
        priority=ax.Priority[priority.upper()],
        metadata=parse_labels(metadata),
        delay=delay,
        queue_name=queue,
        idempotency_key=idempotency_key,
    )
    if follow:
        importlib.import_module("agentexec.cli.follow").follow(task, timeout)
    elif not wait:
        typer.echo(str(task.agent_id))
        return
    else:
        typer.echo(f"Task {task.agent_id} is queued; waiting for its result.", err=True)
    result = ax.get_result_sync(task, timeout)
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, indent=2)
    if sys.stdout.isatty():
        text = "\n".join(one_line(line) for line in text.splitlines())
    typer.echo(text)


def _read(file: BinaryIO, what: str) -> str:
    """A text in UTF-8, of no more than a context may have with its white space. Raises UsageError."""
    most = SPACIOUS * ax.CONF.max_payload_bytes
    data = file.read(most + 1)
    if len(data) > most:
        raise UsageError(
            f"What {what} holds is above AGENTEXEC_MAX_PAYLOAD_BYTES={ax.CONF.max_payload_bytes}."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"What {what} holds is no text in UTF-8.") from None


def _context(text: str) -> dict[str, Any]:
    if text == "-":
        text = _read(sys.stdin.buffer, "standard input")
    elif text.startswith("@"):
        try:
            with Path(text[1:]).open("rb") as file:
                text = _read(file, f"the file {text[1:]}")
        except (OSError, ValueError) as error:
            raise UsageError(f"The file {text[1:]} cannot be read: {error}.") from None
    try:
        value = json.loads(text)
    except RecursionError:
        raise UsageError("The context is nested too deeply.") from None
    except ValueError as error:
        raise UsageError(
            f'The context is not valid JSON: {error}. Write it like \'{{"company": "Acme"}}\'.'
        ) from None
    if not isinstance(value, dict):
        raise UsageError('The context must be a JSON object, like \'{"company": "Acme"}\'.')
    return value
