"""Endpoints about calls that wait for a person, and about rules that answer in a person's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request

from agentexec.client.approval_rules import (
    AllLikeIt,
    ApprovalRuleSchema,
    RuleScope,
    add_rule_sync,
    list_rules,
    revoke_rule_sync,
)
from agentexec.client.approvals import MAX_LISTED, ApprovalSchema, State
from agentexec.client.approvals import list_approvals as find_approvals
from agentexec.client.approve import approve_sync, reject_sync
from agentexec.errors import UsageError
from agentexec.web.access import Actor, Reader, source_of
from agentexec.web.endpoints import Endpoints
from agentexec.web.parameters import reading_session
from agentexec.web.schemas import ActSchema, ApproveBody, RejectBody, RuleBody, RuleSavedSchema, RuleScopeBody

ENDPOINTS = Endpoints("Approvals")


@ENDPOINTS.get("/approvals", summary="List calls that wait for a person, or that are decided")
def list_approvals(
    caller: Reader,
    agent_id: Annotated[UUID | None, Query(description="Only calls of this task.")] = None,
    state: Annotated[
        State, Query(description="pending: without an answer, oldest first; decided or all: newest first.")
    ] = "pending",
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED, description="Maximum number of calls.")] = 100,
) -> list[ApprovalSchema]:
    """List the calls that wait for a person, oldest first; or decided ones with who decided, from where and why, newest first."""
    with reading_session() as db:
        return find_approvals(db, agent_id, state=state, limit=limit, metadata_filter=caller.metadata_filter)


@ENDPOINTS.post("/approvals/{agent_id}/{call_id:path}/approve", summary="Approve a call", errors=(413,))
def approve_call(
    agent_id: UUID, call_id: str, caller: Actor, request: Request, body: ApproveBody | None = None
) -> ActSchema:
    """Approve a call, which is then made, perhaps with changed arguments, and perhaps all calls like it.

    `changed` is false if it was decided before, or has expired.
    """
    body = body or ApproveBody()
    rule = None
    if body.rule is not None:
        rule = AllLikeIt(body.rule.where, _scope(body.rule), body.rule.expires_seconds, body.rule.tool)
    return ActSchema(
        changed=approve_sync(
            agent_id,
            call_id,
            arguments=body.arguments,
            rule=rule,
            reason=body.reason or None,
            metadata_filter=caller.metadata_filter,
            by=caller.name,
            source=source_of(request),
        )
    )


@ENDPOINTS.post("/approvals/{agent_id}/{call_id:path}/reject", summary="Reject a call", errors=(413,))
def reject_call(
    agent_id: UUID, call_id: str, caller: Actor, request: Request, body: RejectBody | None = None
) -> ActSchema:
    """Reject a call, with an optional message to the model; `changed` is false if it was decided before, or has expired."""
    body = body or RejectBody()
    return ActSchema(
        changed=reject_sync(
            agent_id,
            call_id,
            message=body.message,
            reason=body.reason or None,
            metadata_filter=caller.metadata_filter,
            by=caller.name,
            source=source_of(request),
        )
    )


@ENDPOINTS.get("/approval-rules", summary="List rules that approve calls without asking")
def list_approval_rules(
    caller: Reader,
    ended: Annotated[
        bool, Query(description="Whether to list those too that have expired or were revoked.")
    ] = False,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED, description="Maximum number of rules.")] = 100,
) -> list[ApprovalRuleSchema]:
    """List the rules that approve calls without asking, newest first."""
    with reading_session() as db:
        return list_rules(db, ended=ended, limit=limit, metadata_filter=caller.metadata_filter)


@ENDPOINTS.post("/approval-rules", summary="Make a rule that approves calls without asking")
def add_approval_rule(caller: Actor, request: Request, body: RuleBody) -> RuleSavedSchema:
    """Make a rule that approves calls without asking, from now on. It is about tasks that the caller may see, and no others."""
    rule_id = add_rule_sync(
        body.tool,
        body.where,
        scope=_scope(body),
        task=body.agent_id,
        expires=body.expires_seconds,
        reason=body.reason or None,
        metadata_filter=caller.metadata_filter,
        by=caller.name,
        source=source_of(request),
    )
    return RuleSavedSchema(rule_id=rule_id)


@ENDPOINTS.post("/approval-rules/{rule_id}/revoke", summary="Revoke a rule")
def revoke_approval_rule(rule_id: UUID, caller: Actor) -> ActSchema:
    """Revoke a rule; `changed` is false if it has ended before. What it has approved stays approved."""
    return ActSchema(
        changed=revoke_rule_sync(rule_id, metadata_filter=caller.metadata_filter, by=caller.name)
    )


def _scope(body: RuleScopeBody | RuleBody) -> RuleScope:
    if body.scope != "metadata":
        if body.metadata:
            raise UsageError('metadata: give it with scope "metadata" only.')
        return body.scope
    labels: Mapping[str, Any] = body.metadata or {}
    return labels
