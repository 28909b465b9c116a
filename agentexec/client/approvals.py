"""What waits for a person, for a Session or an AsyncSession."""

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
from agentexec.db.clock import utc_now
from agentexec.journal.approvals import PENDING
from agentexec.journal.models import Approval
from agentexec.task import ACTIVE_STATUSES, parse_agent_id

log = logging.getLogger("agentexec.approvals")

MOST = 1000


class ApprovalSchema(BaseModel):
    """A call that waits for a person.

    `kind`: "approval" for a tool with `needs_approval`; "repeat" for a call with the policy "ask" that was cut off:
    may it be made again? `arguments` is the JSON that the model wrote.
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
    """Calls that wait for a person, the oldest first, at most `limit` (1000) of them.

    `agent_id`: those of one task. `metadata_filter`: those of activities whose metadata has all these values.
    """
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
        .limit(max(1, min(limit, MOST)))
    )
    if agent_id is not None:
        query = query.where(Approval.agent_id == parse_agent_id(agent_id))
    found: list[ApprovalSchema] = []
    for row in db.execute(query):
        try:
            found.append(ApprovalSchema.model_validate(row))
        except ValidationError:
            log.warning("A question of task %s cannot be read; it is left out.", row.agent_id)
    return found
