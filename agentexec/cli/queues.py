"""`agentexec queues`: list the queues, pause or resume one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

import agentexec as ax
from agentexec.arguments.queue_names import check_queue_name, check_stored_queue
from agentexec.cli.database import session
from agentexec.cli.options import AsJson
from agentexec.cli.output import echo_json, format_duration, format_table, one_line
from agentexec.errors import UsageError

if TYPE_CHECKING:
    from agentexec.activity.queries.queues import QueueSchema

ACTIONS = ("pause", "resume")

HEADS = ("QUEUE", "READY", "DELAYED", "RUNNING", "OLDEST", "ENDED/MIN", "WORKERS", "STATE")


def run(
    action: Annotated[
        str | None,
        typer.Argument(metavar="[pause|resume]", help="What to do; by default, list the queues."),
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of the queue.")] = None,
    reason: Annotated[
        str | None,
        typer.Option("--reason", "-r", metavar="TEXT", help="Why the queue is paused, for others."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the queues with their tasks, rate and workers, or pause or resume one.

    Workers claim no tasks of a paused queue. Its running tasks go on, and new ones are accepted.
    """
    if action is None:
        _list(as_json)
        return
    if action not in ACTIONS:
        raise UsageError(f"There is no action {action}; use one of: {', '.join(ACTIONS)}.")
    if name is None:
        raise UsageError(f"Name the queue: agentexec queues {action} NAME.")
    check = check_queue_name if action == "pause" else check_stored_queue
    check("NAME", name)
    if action == "resume" and reason is not None:
        raise UsageError("--reason belongs to `agentexec queues pause`.")
    sentence = _pause(name, reason) if action == "pause" else _resume(name)
    typer.echo(one_line(sentence))


def _pause(name: str, reason: str | None) -> str:
    is_new = ax.queues.pause_sync(name, reason=reason)
    with session() as db:
        queue = next(queue for queue in ax.queues.list(db) if queue.name == name)
    if queue.workers == queue.running == queue.ready == queue.delayed == 0:
        typer.echo(
            one_line(f"Queue {name} has no tasks, and no worker serves it; is this its name?"), err=True
        )
    if not is_new:
        return (
            f"It was paused before. {queue.pause.sentence()}" if queue.pause else f"Queue {name} is resumed."
        )
    running = f"; {queue.running} running task(s) go on" if queue.running else ""
    return f"Queue {name} is paused{running}. `agentexec queues resume {name}` ends it."


def _resume(name: str) -> str:
    return f"Queue {name} is resumed." if ax.queues.resume_sync(name) else f"Queue {name} was not paused."


def _list(as_json: bool) -> None:
    with session() as db:
        queues = ax.queues.list(db)
    if as_json:
        echo_json(json.dumps([queue.model_dump(mode="json") for queue in queues]))
        return
    for line in format_table(HEADS, [_row(queue) for queue in queues]):
        typer.echo(line)


def _row(queue: QueueSchema) -> tuple[str, ...]:
    return (
        one_line(queue.name),
        str(queue.ready),
        str(queue.delayed),
        str(queue.running),
        "-" if queue.oldest_age is None else format_duration(queue.oldest_age),
        f"{queue.ended_per_minute:g}",
        str(queue.workers),
        _state(queue),
    )


def _state(queue: QueueSchema) -> str:
    if queue.pause is not None:
        return one_line(queue.pause.sentence().partition(" is ")[2].rstrip("."))
    return "no worker serves it" if not queue.workers and queue.ready + queue.delayed else "open"
