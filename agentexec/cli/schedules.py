"""`agentexec schedules`: list, pause and resume schedules, or run one now."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

import agentexec as ax
from agentexec.cli.database import session
from agentexec.cli.options import AsJson
from agentexec.cli.output import echo_json, format_moment, format_table, one_line
from agentexec.errors import UsageError

if TYPE_CHECKING:
    from agentexec.schedules.record import ScheduleSchema

ACTIONS = ("pause", "resume", "run")

HEADS = ("NAME", "QUEUE", "TASK", "CRON", "ZONE", "NEXT", "LAST", "RUNS")


def run(
    action: Annotated[
        str | None,
        typer.Argument(metavar="[pause|resume|run]", help="What to do; by default, list the schedules."),
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of the schedule.")] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-Q", help="Only schedules of this queue; all by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the schedules, pause or resume one, or run its task now."""
    # Imported on use: the other commands start faster without SQLAlchemy.
    from agentexec.schedules.record import find_schedules

    found = find_schedules(ax.get_engine(), queue)
    if action is None:
        _list(found, as_json)
        return
    if action not in ACTIONS:
        raise UsageError(f"There is no action {action}; use one of: {', '.join(ACTIONS)}.")
    if name is None:
        raise UsageError(f"Name the schedule: agentexec schedules {action} NAME.")
    _act(action, _find(found, name))


def _find(found: list[ScheduleSchema], name: str) -> ScheduleSchema:
    matches = [schedule for schedule in found if schedule.name == name]
    if not matches:
        raise UsageError(
            f"There is no schedule named {name}; a worker that declares it must have started. `agentexec schedules` lists them."
        )
    if len(matches) > 1:
        queues = ", ".join(schedule.queue for schedule in matches)
        raise UsageError(f"Several queues have a schedule named {name} ({queues}); name one with --queue.")
    return matches[0]


def _act(action: str, schedule: ScheduleSchema) -> None:
    from agentexec.schedules.record import pause, resume, run_now

    engine = ax.get_engine()
    if action == "pause":
        pause(engine, schedule)
        typer.echo(
            one_line(f"Schedule {schedule.name} is paused. Its ticks are skipped until it is resumed.")
        )
    elif action == "resume":
        following = resume(engine, schedule)
        when = "it has ended" if following is None else f"its next tick is {_moment(following)}"
        typer.echo(one_line(f"Schedule {schedule.name} is resumed; {when}."))
    else:
        typer.echo(str(run_now(engine, schedule)))


def _list(found: list[ScheduleSchema], as_json: bool) -> None:
    if as_json:
        echo_json(json.dumps([schedule.model_dump(mode="json") for schedule in found]))
        return
    rows = [
        (
            one_line(schedule.name),
            one_line(schedule.queue),
            one_line(schedule.task_name),
            one_line(schedule.cron),
            schedule.timezone,
            _next(schedule),
            _moment(schedule.last_at),
            str(schedule.runs) + ("" if schedule.repeat is None else f" of {schedule.repeat}"),
        )
        for schedule in found
    ]
    for line in format_table(HEADS, rows) if rows else ():
        typer.echo(line)
    if not rows:
        typer.echo("No worker has declared a schedule.", err=True)
    for pause in _pauses(found):
        typer.echo(one_line(pause), err=True)


def _pauses(schedules: list[ScheduleSchema]) -> list[str]:
    """Return a sentence for each paused queue of the schedules: their ticks go on, and their tasks wait."""
    from agentexec.activity.queries.pauses import pauses_of

    queues = sorted({schedule.queue for schedule in schedules})
    with session() as db:
        return [pause.sentence() for pause in pauses_of(db, queues)] if queues else []


def _next(schedule: ScheduleSchema) -> str:
    if schedule.paused_at is not None:
        return "paused"
    return "ended" if schedule.next_at is None else _moment(schedule.next_at)


def _moment(at: datetime | None) -> str:
    return "-" if at is None else format_moment(at, datetime.now(UTC))
