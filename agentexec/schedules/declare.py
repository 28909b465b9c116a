"""Declarations of schedules: what users write, checked where they write it."""

from __future__ import annotations

from typing import Any

from agentexec.activity.models import MAX_NAME
from agentexec.arguments.checks import check_flag, check_integer, check_text
from agentexec.client.new_task import new_task
from agentexec.schedules.ticks import check_spec, check_zone
from agentexec.task import Priority, ScheduleDefinition, ScheduleOptions, require_known_options

FOREVER = -1
"""Value of `repeat` that means no end, beside None."""


def schedule_definition(name: str, cron: object, options: ScheduleOptions) -> ScheduleDefinition:
    """Return a schedule whose task is registered. Raises what `Pool.add_schedule` documents."""
    require_known_options("add_schedule", options, accepts=ScheduleOptions)
    name = check_text("The name of a schedule", name, MAX_NAME)
    # The context, the labels and the priority are checked as those of a task are.
    task = new_task(
        options.get("task", name),
        options.get("context"),
        metadata=options.get("metadata"),
        priority=options.get("priority", Priority.LOW),
    )
    return ScheduleDefinition(
        name=name,
        task_name=task.task_name,
        cron=check_spec(cron),
        timezone=check_zone(options.get("timezone", "UTC")),
        context=task.context,
        metadata=task.metadata,
        priority=Priority(task.priority),
        repeat=_checked_repeat(options.get("repeat")),
        backfill=check_flag("backfill=", options.get("backfill", False)),
    )


def _checked_repeat(repeat: Any) -> int | None:
    if repeat is None or repeat == FOREVER:
        return None
    return check_integer("repeat=", repeat, minimum=1)
