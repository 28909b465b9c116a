"""Endpoints about calls that wait for a person."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query

from agentexec.client.approvals import MAX_LISTED, ApprovalSchema
from agentexec.client.approvals import list_approvals as find_approvals
from agentexec.client.approve import approve_sync, reject_sync
from agentexec.web.access import Actor, Reader
from agentexec.web.endpoints import Endpoints
from agentexec.web.parameters import reading_session
from agentexec.web.schemas import ActSchema, RejectBody

ENDPOINTS = Endpoints("Approvals")


@ENDPOINTS.get("/approvals", summary="List calls that wait for a person")
def list_approvals(
    caller: Reader,
    agent_id: Annotated[UUID | None, Query(description="Only calls of this task.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED, description="Maximum number of calls.")] = 100,
) -> list[ApprovalSchema]:
    """List the calls that wait for a person, oldest first."""
    with reading_session() as db:
        return find_approvals(db, agent_id, limit=limit, metadata_filter=caller.metadata_filter)


@ENDPOINTS.post("/approvals/{agent_id}/{call_id:path}/approve", summary="Approve a call")
def approve_call(agent_id: UUID, call_id: str, caller: Actor) -> ActSchema:
    """Approve a call, which is then made; `changed` is false if it was decided before, or has expired."""
    return ActSchema(
        changed=approve_sync(agent_id, call_id, metadata_filter=caller.metadata_filter, by=caller.name)
    )


@ENDPOINTS.post("/approvals/{agent_id}/{call_id:path}/reject", summary="Reject a call", errors=(413,))
def reject_call(agent_id: UUID, call_id: str, caller: Actor, body: RejectBody | None = None) -> ActSchema:
    """Reject a call, with an optional message to the model; `changed` is false if it was decided before, or has expired."""
    message = None if body is None else body.message
    return ActSchema(
        changed=reject_sync(
            agent_id, call_id, message=message, metadata_filter=caller.metadata_filter, by=caller.name
        )
    )
