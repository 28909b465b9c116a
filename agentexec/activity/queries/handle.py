"""Handle of a stored task: its name and queue, found by its agent_id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select

from agentexec.activity.models import Activity
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.config import CONF
from agentexec.db.transactions import reading
from agentexec.errors import ActivityNotFoundError
from agentexec.task import Task


def find_task(engine: Engine, agent_id: UUID, metadata_filter: Mapping[str, Any] | None = None) -> Task:
    """Return the handle of a stored task; its queue is the configured one if the record names none.

    Raises ActivityNotFoundError, also when `metadata_filter` does not match the task.
    """
    query = select(Activity.agent_type, Activity.queue).where(
        Activity.agent_id == agent_id, *metadata_conditions(metadata_filter)
    )
    with reading(engine) as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise ActivityNotFoundError(agent_id)
    return Task(agent_id=agent_id, task_name=row.agent_type, queue_name=row.queue or CONF.queue_name)
