"""`agentexec enqueue`: accept a task from the command line."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, cast

import typer

import agentexec as ax
from agentexec.arguments.checks import MAX_SECONDS, check_timeout
from agentexec.cli.options import parse_labels
from agentexec.cli.output import printable
from agentexec.cli.serving import missing_worker
from agentexec.cli.texts import read_text
from agentexec.errors import UsageError


def run(
    task_name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the task.")],
    context: Annotated[
        str,
        typer.Argument(
            metavar="JSON|@FILE|-", help="The task's context: a JSON object, a file, or standard input."
        ),
    ] = "{}",
    priority: Annotated[str, typer.Option("--priority", "-p", help="Priority: high or low.")] = "low",
    delay: Annotated[
        float | None, typer.Option(min=0, max=MAX_SECONDS, help="Seconds before the task may start.")
    ] = None,
    expires: Annotated[
        float | None,
        typer.Option(
            min=0, max=MAX_SECONDS, help="Seconds after which the task is canceled unless it has started."
        ),
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="URL that is sent a signed message when the task has ended."),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Label to attach (repeatable)."),
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-Q", help="Queue to use instead of AGENTEXEC_QUEUE_NAME.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Key that makes a second enqueue return the first task, unless that has failed."),
    ] = None,
    lock_key: Annotated[
        str | None,
        typer.Option(help="Lock: tasks with the same one run one at a time, like user:7 or user:{user_id}."),
    ] = None,
    fairness_key: Annotated[
        str | None,
        typer.Option(help="Whose task it is: tasks of one key take turns with those of others."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Limit of what the task may spend, like '$2.00' or '500000 tokens'."),
    ] = None,
    on_budget: Annotated[
        str | None,
        typer.Option(help="Policy at the limit of a budget: fail, wrap_up or ask."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Show the progress until the task ends, then print the result."),
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait for the result; no limit by default.")
    ] = None,
) -> None:
    """Queue a task and print its agent_id.

    With --wait or --follow, print its result instead. The exit code is then 1 if the task failed, was canceled, or
    did not end in time.
    """
    if priority.upper() not in ax.Priority.__members__:
        raise UsageError(f"--priority must be high or low, not {priority!r}.")
    check_timeout("--timeout", timeout)
    task = ax.enqueue_sync(
        task_name,
        _context(context),
        priority=ax.Priority[priority.upper()],
        metadata=parse_labels(metadata),
        delay=delay,
        expires=expires,
        webhook=webhook,
        queue_name=queue,
        idempotency_key=idempotency_key,
        lock_key=lock_key,
        fairness_key=fairness_key,
        budget=budget,
        on_budget=cast(Any, on_budget),
    )
    if (wait or follow) and (complaint := missing_worker(task.queue_name)):
        typer.echo(complaint, err=True)
    if follow:
        # Imported on use: rich takes longer to import than the rest of the command takes to run.
        from agentexec.cli.follow import follow as follow_task

        follow_task(task, timeout)
    elif not wait:
        typer.echo(str(task.agent_id))
        return
    else:
        typer.echo(f"Task {task.agent_id} is queued; waiting for its result.", err=True)
    # As JSON data, also where the user's module is loaded and declares the type of the result.
    result = ax.get_result_sync(task, timeout, type=cast(Any, Any))
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, indent=2)
    if sys.stdout.isatty():
        text = printable(text)
    typer.echo(text)


def _context(text: str) -> dict[str, Any]:
    text = read_text(text)
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
