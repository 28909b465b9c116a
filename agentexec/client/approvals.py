"""List of the calls that wait for a person."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError, computed_field
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.arguments.checks import check_integer
from agentexec.db.clock import utc_now
from agentexec.journal.approvals import PENDING
from agentexec.journal.models import Approval
from agentexec.task import ACTIVE_STATUSES, parse_agent_id

log = logging.getLogger("agentexec.approvals")

MAX_LISTED = 1000
"""Highest number of calls in one list."""


class ApprovalSchema(BaseModel):
    """Call that waits for a person.

    `kind` is "approval" for a tool with `needs_approval`, and "repeat" for a call with the policy "ask" that was
    interrupted and may be made again. `arguments` is the JSON that the model wrote.
    """

    model_config = ConfigDict(defer_build=True, from_attributes=True)

    agent_id: UUID
    agent_type: str
    call_id: str
    kind: Literal["approval", "repeat"]
    tool: str
    arguments: str
    created_at: datetime
    expires_at: datetime | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def task_name(self) -> str:
        """Name of the task, as `agent_type`."""
        return self.agent_type


@sync_or_async
def list_approvals(
    db: Session,
    agent_id: UUID | str | None = None,
    *,
    limit: int = 100,
    metadata_filter: Mapping[str, Any] | None = None,
) -> list[ApprovalSchema]:
    """Return the calls that wait for a person, oldest first.

    Args:
        db: Session or AsyncSession on the database of the record; with an AsyncSession the call is awaited.
        agent_id: Only calls of this task.
        limit: Highest number of calls, 1 to 1000.
        metadata_filter: Only calls of activities whose metadata has these values.

    Returns:
        The calls that have neither an answer nor expired, of tasks that have not ended.

    Raises:
        UsageError: An argument is invalid.
    """
    limit = check_integer("limit=", limit)
    now = utc_now()
    query = (
        select(Approval.__table__, Activity.agent_type)
        .join(Activity, Activity.agent_id == Approval.agent_id)
        .where(
            Approval.status == PENDING,
            or_(Approval.expires_at.is_(None), Approval.expires_at > now),
            Activity.status.in_(ACTIVE_STATUSES),
            *metadata_conditions(metadata_filter),
        )
        .order_by(Approval.created_at, Approval.agent_id, Approval.path)
        .limit(min(limit, MAX_LISTED))
    )
    if agent_id is not None:
        query = query.where(Approval.agent_id == parse_agent_id(agent_id))
    found: list[ApprovalSchema] = []
    for row in db.execute(query):
        try:
            found.append(ApprovalSchema.model_validate(row))
        except ValidationError:
            log.warning("A question of task %s cannot be read and is left out.", row.agent_id)
    return found
