"""`agentexec move-queue`: moves a queue to another state backend."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

import agentexec as ax
from agentexec.cli.output import one_line
from agentexec.errors import UsageError

if TYPE_CHECKING:
    from agentexec.config import Settings
    from agentexec.worker.queue_move import QueueMove

SETTLE_SECONDS = 6.0
"""Seconds after which every worker has read that the queue is paused, and what it had claimed runs."""

INTERVAL = 0.5
"""Seconds between two looks at the queue."""

DATABASE = "database"


def run(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL",
            help="URL of Redis or Valkey, or `database` for the database of the record.",
        ),
    ],
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue", "-q", metavar="NAME", help="Name of the queue; by default, the configured one."
        ),
    ] = None,
) -> None:
    """Move a queue to another state backend while producers run: pause it, wait for running tasks, and move the others.

    The queue stays paused until `agentexec queues resume`. After an interruption, run the command again.
    """
    # Imported on use: the other commands start faster without SQLAlchemy.
    from agentexec.runtime import RUNTIME
    from agentexec.state.loading import load_backend
    from agentexec.worker.queue_move import QueueMove

    settings = _settings(to)
    name = queue or ax.CONF.queue_name
    target = load_backend(settings.backend_module, settings, RUNTIME.engine)
    try:
        RUNTIME.backend.ping()
        target.ping()
        ax.queues.pause_sync(name, reason="It moves to another state backend.")
        typer.echo(one_line(f"Queue {name} is paused."))
        moved = _move(QueueMove(RUNTIME.engine, RUNTIME.backend, target, name, settings))
    finally:
        target.close()
    variable = "unset AGENTEXEC_REDIS_URL" if to == DATABASE else "set AGENTEXEC_REDIS_URL to the new server"
    typer.echo(
        one_line(
            f"Queue {name} has moved: {moved} task(s). Stop its workers, {variable} for workers and producers, start them, "
            f"and run `agentexec queues resume {name}`."
        )
    )


def _move(move: QueueMove) -> int:
    """Look at the queue until nothing runs, and return the number of moved tasks.

    Producers may add more all the time: the workers of the new backend find those in the record.
    """
    moved, told = 0, -1
    settled = time.monotonic() + SETTLE_SECONDS
    while True:
        is_settled = time.monotonic() >= settled
        look = move.look()
        moved += look.moved
        if look.running not in (0, told):
            told = look.running
            typer.echo(f"Waiting for {told} running task(s) to end.", err=True)
        if is_settled and not look.running:
            return moved
        time.sleep(INTERVAL)


def _settings(to: str) -> Settings:
    """Return the settings of the new state backend. Raises UsageError if it is the one in use."""
    url = None if to == DATABASE else to
    if url is not None and "://" not in url:
        raise UsageError(f"--to takes the URL of a Redis or Valkey server, or {DATABASE}.")
    settings = ax.CONF.model_copy(update={"redis_url": url})
    settings.model_fields_set.discard("state_backend")
    if (settings.backend_module, url) == (ax.CONF.backend_module, ax.CONF.redis_url):
        raise UsageError("--to names the state backend that the settings have; name the new one.")
    return settings
