"""Watch for options of tasks that had no effect, because the process that enqueued the tasks does not have the pool."""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import Engine, select

from agentexec.activity.models import Activity
from agentexec.db.clock import utc_now
from agentexec.db.transactions import reading
from agentexec.registry import Registry
from agentexec.task import Status, TaskDefinition

log = logging.getLogger("agentexec.maintenance")

INTERVAL = 60.0
"""Seconds between two looks."""

NEWEST = 20
"""Tasks of a name and status that are looked at."""

LOST_ON_START = (("expires", Activity.expires_at), ("debounce", Activity.debounce_key))
"""Options that a row has until its task starts, each with its column."""


class OptionWatch:
    """Warns once of each option of a registered task that recently enqueued tasks lack.

    Only the worker knows that they should have had it, and only the process that enqueues can give it to them in time.
    """

    def __init__(self, engine: Engine, registry: Registry) -> None:
        self._engine = engine
        self._open = [
            (definition, option) for definition in registry for option in _enqueue_options(definition)
        ]
        self._since = utc_now()
        self._next = INTERVAL / 4

    def run_if_due(self, clock: float) -> None:
        """Look at the newest tasks, if there is something to find out; `clock` is monotonic. Raises UnavailableError."""
        if self._open and clock >= self._next:
            self._next = clock + INTERVAL
            self._open = [
                (definition, option)
                for definition, option in self._open
                if not self._warn(definition, option)
            ]

    def _warn(self, definition: TaskDefinition, option: str) -> bool:
        if not self._is_missing(definition.name, option):
            return False
        log.warning(
            "Tasks named %s are enqueued without the %s= of their @pool.task: by a process that does not have the pool%s, or on "
            "purpose. Pass %s= to enqueue there, or import the pool's module.",
            definition.name,
            option,
            ", by enqueue_many, map or a schedule" if option == "debounce" else "",
            option,
        )
        return True

    def _is_missing(self, name: str, option: str) -> bool:
        column: Any = Activity.webhook if option == "webhook" else dict(LOST_ON_START)[option]
        statuses = (Status.QUEUED, Status.COMPLETE) if option == "webhook" else (Status.QUEUED,)
        with reading(self._engine) as connection:
            for status in statuses:
                newest = (
                    select(column.label("value"), Activity.started_at)
                    .where(
                        Activity.agent_type == name,
                        Activity.status == status,
                        Activity.created_at >= self._since,
                    )
                    .order_by(Activity.created_at.desc())
                    .limit(NEWEST)
                )
                for row in connection.execute(newest):
                    if row.value is None and (option == "webhook" or row.started_at is None):
                        return True
        return False


def _enqueue_options(definition: TaskDefinition) -> list[str]:
    """Return the options of a task that only the process that enqueues can apply."""
    values = {
        "webhook": definition.webhook,
        "expires": definition.expires,
        "debounce": definition.debounce,
    }
    return [option for option, value in values.items() if value is not None]
