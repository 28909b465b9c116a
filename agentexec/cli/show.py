"""`agentexec show`: everything about one task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

import agentexec as ax
from agentexec.cli.contents import contents_lines, value_lines
from agentexec.cli.database import session
from agentexec.cli.options import AgentId, AsJson, MetadataScope, parse_labels, parse_task_id
from agentexec.cli.output import (
    SHOWN_CHARACTERS,
    echo_json,
    format_log_line,
    format_time,
    one_line,
    printable,
)
from agentexec.cli.queue_facts import dump_json, priority_name, queue_facts
from agentexec.cli.webhooks import message_json, message_text
from agentexec.values.presentation import Bounds, Presenter, read_json

if TYPE_CHECKING:
    from agentexec.activity.schemas import ActivityChildSchema, ActivityDetailSchema
    from agentexec.cli.task_view import TaskView
    from agentexec.journal.given_up import GivenUpRun
    from agentexec.state.answers import Waiting


MAX_CALL = 300
"""Characters of a call that was decided about."""


def run(
    agent_id: AgentId,
    metadata: MetadataScope = None,
    full: Annotated[
        bool, typer.Option("--full", help="The whole context, result and log lines, however long.")
    ] = False,
    diff: Annotated[
        str | None,
        typer.Option(
            "--diff", metavar="OTHER_ID", help="Compare the task with another one, such as its fork."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one task: what it was asked and answered, what it waits for, its usage, children, log and error.

    Secrets are hidden, also with --full: values under names like password, token or api_key, and texts that look like
    keys. `agentexec approvals --json` has the arguments that a person is asked to approve as they are.
    """
    # Imported on use: the command line is parsed sooner without them.
    from agentexec.cli.task_view import load_view

    if diff is not None:
        _show_difference(
            diff, agent_id, metadata, Presenter(ax.CONF.secrets, None if full else Bounds()), as_json
        )
        return
    with session() as db:
        view = load_view(db, parse_task_id(agent_id), parse_labels(metadata))
    presenter = Presenter(ax.CONF.secrets, None if full else Bounds())
    if as_json:
        # Everything that people and models have written, wherever it stands.
        echo_json(dump_json(Presenter(ax.CONF.secrets).present(_as_json(view, presenter))))
        return
    for line in _lines(view, presenter, None if full else SHOWN_CHARACTERS):
        typer.echo(presenter.text(line))


def _show_difference(
    first: str, second: str, metadata: Sequence[str] | None, presenter: Presenter, as_json: bool
) -> None:
    """Compare two tasks: `--diff A B` shows what B has that A has not."""
    from agentexec.cli.diff import Difference

    difference = Difference(parse_task_id(first), parse_task_id(second), parse_labels(metadata), presenter)
    if as_json:
        echo_json(dump_json(difference.as_json()))
        return
    for line in difference.lines():
        typer.echo(line)


def _as_json(view: TaskView, presenter: Presenter) -> dict[str, Any]:
    from agentexec.cli.situation import max_attempts, previous_failure

    task, worker = view.activity, view.worker
    failure = previous_failure(task)
    return {
        **task.model_dump(mode="json"),
        **queue_facts(task),
        "metadata": presenter.present(task.metadata),
        "context": _shown(view.contents.context, presenter),
        "result": _shown(view.contents.result, presenter),
        "result_expired": view.contents.expired,
        "waits_for": [
            {**wait, "until": wait["until"] and wait["until"].isoformat()} for wait in _waits(view)
        ],
        "worker": None
        if worker is None
        else {"host": worker.host, "pid": worker.pid, "id": worker.worker_id},
        "queue_pause": None if view.pause is None else view.pause.model_dump(mode="json"),
        "max_attempts": max_attempts(task),
        "previous_error": None if failure is None else failure.reason,
        "given_up": [{**run._asdict(), "at": run.at.isoformat()} for run in view.given_up],
        "decisions": [call.model_dump(mode="json") for call in view.decisions],
        "webhooks": [message_json(message) for message in view.webhooks],
    }


def _waits(view: TaskView) -> list[dict[str, Any]]:
    waits: list[dict[str, Any]] = [
        {"kind": "approval", "call_id": call.call_id, "tool": call.tool, "until": call.expires_at}
        for call in view.approvals
    ]
    waits += [
        {"kind": "event", "name": event.name, "key": event.key, "until": event.expires_at}
        for event in view.events
    ]
    if view.sleeps_until is not None:
        waits.append({"kind": "sleep", "until": view.sleeps_until})
    if view.waiting is not None:
        waits.append(_group_wait(view.waiting))
    return waits


def _group_wait(waiting: Waiting) -> dict[str, Any]:
    from agentexec.state.groups import is_lock, key_of

    return {
        "kind": "lock" if is_lock(waiting.group) else "limit",
        "key": key_of(waiting.group),
        "holders": [str(holder) for holder in waiting.holders],
        "before": waiting.before,
        "until": None,
    }


def _shown(text: str | None, presenter: Presenter) -> Any:
    return None if text is None else presenter.present(read_json(text))


def _lines(view: TaskView, presenter: Presenter, limit: int | None) -> Iterator[str]:
    task = view.activity
    for name, value in (*_summary(view, presenter), *_decisions(view, presenter), *_deliveries(view)):
        yield f"{name + ':':<10} {one_line(value)}"
    if task.metadata:
        yield from value_lines("metadata", presenter.present(dict(sorted(task.metadata.items()))))
    yield from contents_lines(view.contents, presenter)
    yield from _tree(task.children)
    if task.more_below:
        yield "  ... more children"
    for entry in task.logs:
        yield format_log_line(entry.created_at, entry.percentage, entry.message, presenter, limit)
    if task.error:
        yield printable(task.error)


def _summary(view: TaskView, presenter: Presenter) -> list[tuple[str, str]]:
    from agentexec.cli.situation import attempts_text, sentences
    from agentexec.db.clock import utc_now

    task = view.activity
    lines = [("task", task.task_name), ("status", f"{task.status}, {task.percentage} %")]
    lines += [("now", sentence) for sentence in sentences(view, utc_now(), presenter)]
    if task.queue is not None:
        lines.append(("queue", f"{task.queue}, priority {priority_name(task.priority)}"))
    lines += _order(task)
    lines.append(("created", format_time(task.created_at)))
    if task.started_at is not None:
        lines.append(("started", format_time(task.started_at)))
    if task.finished_at is not None:
        elapsed = "" if task.elapsed_seconds is None else f", after {task.elapsed_seconds:.1f} s"
        lines.append(("finished", f"{format_time(task.finished_at)}{elapsed}"))
    lines += [] if task.version is None else [("version", task.version)]
    lines.append(("attempts", attempts_text(task)))
    lines += _interruptions(view)
    if task.parent_id is not None:
        lines.append(("parent", str(task.parent_id)))
    if task.usage.requests:
        usage = task.usage
        cost = "" if task.cost is None else f", about ${task.cost:,.4f}"
        tokens = f"{usage.input_tokens:,} input and {usage.output_tokens:,} output tokens"
        lines.append(("usage", f"{usage.requests:,} model call(s), {tokens}{cost}"))
    if task.budget is not None:
        lines.append(("budget", str(task.budget)))
    return lines


def _interruptions(view: TaskView) -> list[tuple[str, str]]:
    """Return the deaths of a task's workers, and the runs that were given up."""
    deaths = view.activity.deaths
    lines = [("death", f"{format_time(death.at)}, its worker {death.reason}") for death in deaths]
    return lines + [("given up", _given_up_text(run)) for run in view.given_up]


def _given_up_text(run: GivenUpRun) -> str:
    by = "" if run.version is None else f" by version {run.version}"
    return f"run {run.number}{by}, {format_time(run.at)}, {run.facts} recorded step(s) kept as history: {run.reason}"


def _decisions(view: TaskView, presenter: Presenter) -> list[tuple[str, str]]:
    from agentexec.cli.approvals import decision_text

    lines: list[tuple[str, str]] = []
    for call in view.decisions:
        # Without secrets before it is cut: half of one is not recognized.
        made = presenter.text(f"{call.tool}({call.arguments})")
        if len(made) > MAX_CALL:
            made = f"{made[:MAX_CALL]}…"
        lines.append(("decision", f"{made}{decision_text(call)}"))
    return lines


def _deliveries(view: TaskView) -> list[tuple[str, str]]:
    from agentexec.db.clock import utc_now

    return [("webhook", message_text(message, utc_now())) for message in view.webhooks]


def _order(task: ActivityDetailSchema) -> list[tuple[str, str]]:
    """Return the keys that decide about a task's turn."""
    lines = [] if task.lock_key is None else [("lock", printable(task.lock_key))]
    if task.fairness_key is not None:
        weight = "" if task.fairness_weight in (None, 1.0) else f", weight {task.fairness_weight:g}"
        lines.append(("fairness", f"{printable(task.fairness_key)}{weight}"))
    return lines


def _tree(children: Sequence[ActivityChildSchema], depth: int = 0) -> list[str]:
    lines = ["children:"] if children and not depth else []
    for child in children:
        summary = f"{child.agent_id} {child.task_name} {child.status} {child.percentage} %"
        lines.append(f"{'  ' * (depth + 1)}{one_line(summary)}")
        lines += _tree(child.children, depth + 1)
        if child.more_below:
            lines.append(f"{'  ' * (depth + 2)}... more below: agentexec show {child.agent_id}")
    return lines
