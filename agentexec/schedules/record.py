"""Schedules in the record: what workers have declared, and the ticks, of which each enqueues one task.

A tick moves the schedule to its next one and enqueues the task in the same transaction, on the condition that the
schedule is still at this tick. So any number of processes may try, and one succeeds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine, and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.models import Schedule
from agentexec.arguments.actors import phrase
from agentexec.arguments.checks import first_line
from agentexec.client.enqueue import enqueue_in_transaction
from agentexec.client.new_task import new_task
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading, writing
from agentexec.errors import UsageError
from agentexec.schedules.ticks import next_tick
from agentexec.task import Priority, ScheduleDefinition

log = logging.getLogger("agentexec.scheduler")

SCHEDULE: Any = Schedule.__table__

UNREADABLE = (ValueError, TypeError, LookupError, OverflowError)
"""Errors of rows that somebody else has written."""


class ScheduleSchema(BaseModel):
    """Schedule, as of its latest tick."""

    model_config = ConfigDict(defer_build=True, from_attributes=True)

    queue: str
    name: str
    task_name: str = Field(description="Task that each tick enqueues.")
    cron: str = Field(description='Cron expression, or "@every SECONDS".')
    timezone: str = Field(description="Time zone in which the expression is read.")
    context: str | None = Field(default=None, description="Context of its tasks, as JSON.")
    labels: dict[str, Any] | None = Field(default=None, description="Metadata of its tasks.")
    priority: Priority
    repeat: int | None = Field(description="Number of tasks after which it ends; null for no end.")
    backfill: bool = Field(description="Whether missed ticks are caught up.")
    runs: int = Field(description="Number of tasks so far.")
    next_at: datetime | None = Field(description="Time of its next tick; null once it has ended.")
    last_at: datetime | None = Field(description="Time of the tick of its latest task.")
    last_agent_id: UUID | None = Field(description="Its latest task.")
    paused_at: datetime | None = Field(description="Time since which it is paused; null if it is not.")


def declare(engine: Engine, queue: str, schedules: Iterable[ScheduleDefinition]) -> None:
    """Record the schedules of a worker's module. A schedule whose times have changed starts over, from now on.

    A row that cannot be read is replaced.
    """
    for schedule in sorted(schedules, key=lambda schedule: schedule.name):
        try:
            _declare(engine, queue, schedule)
        except IntegrityError:  # another process has added it at the same moment
            _declare(engine, queue, schedule)
        except UNREADABLE:
            forget(engine, queue, schedule.name)
            _declare(engine, queue, schedule)


def forget(engine: Engine, queue: str, name: str) -> None:
    """Remove a schedule from the record."""
    with writing(engine) as connection:
        connection.execute(delete(SCHEDULE).where(_is(queue, name)))


def _declare(engine: Engine, queue: str, schedule: ScheduleDefinition) -> None:
    first = next_tick(schedule.cron, schedule.timezone, utc_now())
    values: dict[str, Any] = {
        "task_name": schedule.task_name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "context": schedule.context,
        "labels": schedule.metadata,
        "priority": schedule.priority,
        "repeat": schedule.repeat,
        "backfill": schedule.backfill,
    }
    with writing(engine) as connection:
        row = connection.execute(
            select(SCHEDULE).where(_is(queue, schedule.name)).with_for_update()
        ).one_or_none()
        if row is None:
            whole = {**values, "queue": queue, "name": schedule.name, "runs": 0, "next_at": first}
            connection.execute(insert(SCHEDULE).values(**whole))
            return
        runs = row.runs
        if (row.cron, row.timezone) != (schedule.cron, schedule.timezone):
            runs = values["runs"] = 0
            values["next_at"] = first
        if schedule.repeat is not None and runs >= schedule.repeat:
            values["next_at"] = None
        elif row.next_at is None:
            values["next_at"] = first
        if any(getattr(row, name) != value for name, value in values.items()):
            connection.execute(update(SCHEDULE).where(_is(queue, schedule.name)).values(**values))


def find_schedules(engine: Engine, queue: str | None = None) -> list[ScheduleSchema]:
    """Return the schedules of a queue, or of all, by queue and name. Rows that cannot be read are left out."""
    chosen = [] if queue is None else [SCHEDULE.c.queue == queue]
    query = select(SCHEDULE).where(*chosen).order_by(SCHEDULE.c.queue, SCHEDULE.c.name)
    with reading(engine) as connection:
        try:
            return [ScheduleSchema.model_validate(row) for row in connection.execute(query).all()]
        except UNREADABLE:
            keys = connection.execute(query.with_only_columns(SCHEDULE.c.queue, SCHEDULE.c.name)).all()
    return [found for key in keys if (found := _read(engine, key.queue, key.name)) is not None]


def _read(engine: Engine, queue: str, name: str) -> ScheduleSchema | None:
    with reading(engine) as connection:
        try:
            return ScheduleSchema.model_validate(
                connection.execute(select(SCHEDULE).where(_is(queue, name))).one()
            )
        except UNREADABLE as error:
            log.error("Schedule %s of queue %s cannot be read: %s.", name, queue, first_line(error))
            return None


def find_schedule(engine: Engine, queue: str, name: str) -> ScheduleSchema:
    """Return a schedule. Raises UsageError if there is none of the name."""
    for schedule in find_schedules(engine, queue):
        if schedule.name == name:
            return schedule
    raise UsageError(
        f"Queue {queue} has no schedule named {name}; a worker that declares it must have started."
    )


def tick(
    engine: Engine, schedule: ScheduleSchema, tick: datetime, following: datetime | None, *, runs: bool = True
) -> ScheduleSchema | None:
    """Move a schedule from a tick to the following one, and enqueue the tick's task.

    Args:
        schedule: The schedule, as it was read: at `next_at`.
        tick: The tick whose task is enqueued: that of `next_at`, or a later one if those before it are skipped.
        following: The tick after it.
        runs: False skips this tick, too.

    Returns:
        The schedule as it is then, or None if another process was quicker, or the schedule was changed or paused.
    """
    total = schedule.runs + runs
    is_over = schedule.repeat is not None and total >= schedule.repeat
    values: dict[str, Any] = {"runs": total, "next_at": None if is_over else following}
    new = None
    if runs:
        new = _task_of(schedule, f"for {tick:%Y-%m-%d %H:%M:%S} UTC")
        values |= {"last_at": tick, "last_agent_id": new.agent_id}
    push: Callable[[], None] | None = None
    with writing(engine) as connection:
        is_here = and_(
            _is(schedule.queue, schedule.name),
            SCHEDULE.c.next_at == schedule.next_at,
            SCHEDULE.c.paused_at.is_(None),
        )
        if connection.execute(update(SCHEDULE).where(is_here).values(**values)).rowcount != 1:
            return None
        if new is not None:
            push = enqueue_in_transaction(connection, new)
    if push is not None:
        push()
    return schedule.model_copy(update=values)


def pause(engine: Engine, schedule: ScheduleSchema) -> None:
    """Pause a schedule: its ticks are skipped until it is resumed."""
    with writing(engine) as connection:
        mine = and_(_is(schedule.queue, schedule.name), SCHEDULE.c.paused_at.is_(None))
        connection.execute(update(SCHEDULE).where(mine).values(paused_at=utc_now()))


def resume(engine: Engine, schedule: ScheduleSchema) -> datetime | None:
    """Resume a paused schedule, and return its next tick. Ticks during the pause are skipped."""
    values: dict[str, Any] = {"paused_at": None}
    if schedule.next_at is not None:
        values["next_at"] = next_tick(schedule.cron, schedule.timezone, utc_now())
    with writing(engine) as connection:
        mine = and_(_is(schedule.queue, schedule.name), SCHEDULE.c.paused_at.is_not(None))
        connection.execute(update(SCHEDULE).where(mine).values(**values))
    return find_schedule(engine, schedule.queue, schedule.name).next_at


def run_now(engine: Engine, schedule: ScheduleSchema, *, by: str | None = None) -> UUID:
    """Enqueue a task of a schedule, beside its ticks; it is not counted as one. `by` is the name of who does it."""
    new = _task_of(schedule, f"and started{phrase(by) or ' by hand'}")
    with writing(engine) as connection:
        push = enqueue_in_transaction(connection, new)
    push()
    return new.agent_id


def _task_of(schedule: ScheduleSchema, why: str) -> NewTask:
    """Return a new task of a schedule, whose first log line ends with `why`."""
    new = new_task(
        schedule.task_name,
        None if schedule.context is None else json.loads(schedule.context),
        metadata=schedule.labels,
        priority=schedule.priority,
    )
    # The record may name a queue that an earlier release accepted.
    return new._replace(queue=schedule.queue, message=f"Scheduled by {schedule.name} {why}.")


def _is(queue: str, name: str) -> Any:
    return and_(SCHEDULE.c.queue == queue, SCHEDULE.c.name == name)
