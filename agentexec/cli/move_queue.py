"""`agentexec move-queue`: moves a queue to another state backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

import agentexec as ax
from agentexec.arguments.checks import check_timeout
from agentexec.arguments.queue_names import check_stored_queue
from agentexec.cli.database import session
from agentexec.cli.output import one_line
from agentexec.errors import UsageError

if TYPE_CHECKING:
    from agentexec.config import Settings

DATABASE, DYNAMODB = "database", "dynamodb://"

DYNAMODB_BACKEND = "agentexec.state.dynamodb_backend"

LONGEST = 3600.0
"""Seconds within which the queue moves by default."""


def run(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL",
            help="URL of Redis or Valkey, dynamodb://TABLE, or `database` for the database of the record.",
        ),
    ],
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue", "-q", metavar="NAME", help="Name of the queue; by default, the configured one."
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Longest wait for running tasks.")
    ] = LONGEST,
) -> None:
    """Move a queue to another state backend while producers run: pause it, wait for running tasks, and move the others.

    Tasks that wait for others go back to the queue, and move too. The queue stays paused until `agentexec queues resume`.
    After an interruption, run the command again.
    """
    # Imported on use: the other commands start faster without SQLAlchemy.
    from agentexec.runtime import RUNTIME
    from agentexec.state.loading import load_backend
    from agentexec.worker.queue_move import QueueMove, share_place

    check_timeout("--timeout", timeout)
    name = ax.CONF.queue_name if queue is None else check_stored_queue("--queue", queue)
    settings = _settings(to)
    target = load_backend(settings.backend_module, settings, RUNTIME.engine)
    try:
        RUNTIME.backend.ping()
        target.ping()
        _require_known(name)
        if share_place(RUNTIME.backend, target):
            raise UsageError("--to names the state backend that the settings have; name the new one.")
        ax.queues.pause_sync(name, reason="It moves to another state backend.")
        typer.echo(one_line(f"Queue {name} is paused."))
        move = QueueMove(RUNTIME.engine, RUNTIME.backend, target, name, settings)
        moved = move.run(timeout, lambda line: typer.echo(one_line(f"{line.capitalize()}."), err=True))
    finally:
        target.close()
    typer.echo(
        one_line(
            f"Queue {name} has moved: {moved} task(s). Stop its workers and producers, and run this command again for what they "
            f"have added. Then {_changes(settings)}, start them, and run `agentexec queues resume {name}`."
        )
    )


def _settings(to: str) -> Settings:
    """Return the settings of the new state backend."""
    from agentexec.config import REDIS_BACKEND, SQL_BACKEND

    change: dict[str, Any]
    if to.startswith(DYNAMODB):
        change = {"state_backend": DYNAMODB_BACKEND, "dynamodb_table": to.removeprefix(DYNAMODB)}
    elif to == DATABASE:
        change = {"state_backend": SQL_BACKEND, "redis_url": None}
    elif "://" in to:
        change = {"state_backend": REDIS_BACKEND, "redis_url": to}
    else:
        raise UsageError(f"--to takes the URL of a Redis or Valkey server, dynamodb://TABLE, or {DATABASE}.")
    settings = ax.CONF.model_copy()
    for setting, value in change.items():
        setattr(settings, setting, value)  # checked, in contrast to `update=`
    return settings


def _require_known(name: str) -> None:
    """Refuse a queue that has neither tasks nor workers, nor had any: its name is probably wrong."""
    # Imported on use, as above.
    from sqlalchemy import select

    from agentexec.activity.models import Activity
    from agentexec.runtime import RUNTIME

    with session() as db:
        known = {*RUNTIME.named_queues(), *(queue.name for queue in ax.queues.list(db))}
        if name in known or db.scalar(select(Activity.agent_id).where(Activity.queue == name).limit(1)):
            return
    if not sum(RUNTIME.backend.depth(name)):
        raise UsageError(
            f"Queue {name} has no tasks and no workers: write the name of one of `agentexec queues`."
        )


def _changes(settings: Settings) -> str:
    """Return what has to change in the environment of workers and producers."""
    if settings.backend_module == DYNAMODB_BACKEND:
        return (
            f"set AGENTEXEC_STATE_BACKEND={DYNAMODB_BACKEND} and AGENTEXEC_DYNAMODB_TABLE={settings.dynamodb_table} "
            "for all of them"
        )
    leaves_out = "unset AGENTEXEC_STATE_BACKEND and " if "state_backend" in ax.CONF.model_fields_set else ""
    if settings.redis_url is None:
        return f"{leaves_out}unset AGENTEXEC_REDIS_URL for all of them"
    return f"{leaves_out}set AGENTEXEC_REDIS_URL to the new server for all of them"
