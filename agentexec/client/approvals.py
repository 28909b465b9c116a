"""Lists of the calls that wait for a person, and of those that are decided."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError, computed_field, field_validator
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.arguments.checks import check_integer, shown
from agentexec.db.clock import utc_now
from agentexec.errors import UsageError
from agentexec.journal.models import Approval
from agentexec.journal.questions import APPROVED, EDITED, EXPIRED, PENDING, REJECTED, past_run_of
from agentexec.task import ACTIVE_STATUSES, parse_agent_id

log = logging.getLogger("agentexec.approvals")

MAX_LISTED = 1000
"""Highest number of calls in one list."""

DECIDED = (APPROVED, EDITED, REJECTED, EXPIRED)


State = Literal["pending", "decided", "all"]


class ApprovalSchema(BaseModel):
    """Question about a call, and its answer once there is one.

    `kind` is "approval" for a tool that needs approval, and "repeat" for a call with the policy "ask" that was
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
    status: Literal["pending", "approved", "rejected", "expired"] = PENDING
    """Its answer; "expired" if it was rejected because nobody answered in time."""
    arguments_schema: str | None = None
    """JSON Schema of the arguments; None if they cannot be changed."""
    decided_arguments: str | None = None
    """JSON of the arguments with which it was approved, if a person has changed them."""
    decided_at: datetime | None = None
    decided_by: str | None = None
    """Name of the person who decided, or who made the rule that did."""
    decided_from: str | None = None
    """Source of the decision, such as "cli build7", "http 10.0.0.5", "rule 0190…", "time-out" or "policy"."""
    reason: str | None = None
    """Reason that was given for people."""
    message: str | None = None
    """Text that the model got with a rejection."""
    rule_id: UUID | None = None
    """The rule that decided, or that was made with the decision."""
    run: int | None = None
    """Number of the run that the call was made in, if that run was given up or taken again since; None for the present one."""

    @field_validator("status", mode="before")
    @classmethod
    def _plain_status(cls, value: Any) -> Any:
        return APPROVED if value == EDITED else value

    @computed_field  # type: ignore[prop-decorator]
    @property
    def task_name(self) -> str:
        """Name of the task, as `agent_type`."""
        return self.agent_type

    @computed_field  # type: ignore[prop-decorator]
    @property
    def edited(self) -> bool:
        """True if it was approved with changed arguments."""
        return self.decided_arguments is not None


@sync_or_async
def list_approvals(
    db: Session,
    agent_id: UUID | str | None = None,
    *,
    state: State = "pending",
    limit: int = 100,
    metadata_filter: Mapping[str, Any] | None = None,
) -> list[ApprovalSchema]:
    """Return questions about calls: those that wait for a person, oldest first, or those that are decided, newest first.

    Args:
        db: Session or AsyncSession on the database of the record; with an AsyncSession the call is awaited.
        agent_id: Only calls of this task.
        state: "pending" for calls that have neither an answer nor expired, of tasks that have not ended; "decided" for those
            with an answer, with who decided, from where and why; "all" for every question.
        limit: Highest number of calls, 1 to 1000.
        metadata_filter: Only calls of activities whose metadata has these values.

    Returns:
        The calls.

    Raises:
        UsageError: An argument is invalid.
    """
    limit = check_integer("limit=", limit)
    query = (
        select(Approval.__table__, Activity.agent_type)
        .join(Activity, Activity.agent_id == Approval.agent_id)
        .where(*_conditions(state), *metadata_conditions(metadata_filter))
        .order_by(*_order(state))
        .limit(min(limit, MAX_LISTED))
    )
    if agent_id is not None:
        query = query.where(Approval.agent_id == parse_agent_id(agent_id))
    found: list[ApprovalSchema] = []
    for row in db.execute(query):
        try:
            question = ApprovalSchema.model_validate(row)
            found.append(question.model_copy(update={"run": past_run_of(row.path)}))
        except ValidationError:
            log.warning("A question of task %s cannot be read and is left out.", row.agent_id)
    return found


def _conditions(state: State) -> list[Any]:
    if state == "all":
        return []
    if state == "decided":
        return [Approval.status.in_(DECIDED)]
    if state != "pending":
        raise UsageError(f"state= must be pending, decided or all, not {shown(state)}.")
    is_open = or_(Approval.expires_at.is_(None), Approval.expires_at > utc_now())
    return [Approval.status == PENDING, is_open, Activity.status.in_(ACTIVE_STATUSES)]


def _order(state: State) -> list[Any]:
    if state == "pending":
        return [Approval.created_at, Approval.agent_id, Approval.path]
    return [Approval.created_at.desc(), Approval.agent_id.desc(), Approval.path.desc()]
