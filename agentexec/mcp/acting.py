"""Tools that change something: each is listed only if it is allowed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from agentexec.client.approve import approve_sync, reject_sync
from agentexec.client.cancel import cancel_sync
from agentexec.client.enqueue import enqueue_sync
from agentexec.client.fork import fork_sync
from agentexec.client.retry import retry_sync
from agentexec.journal.canonical import digest
from agentexec.mcp.reading import AgentId, Name
from agentexec.mcp.scope import Scope

CallId = Annotated[str, Field(description="ID of the call, as `approvals` shows it.", max_length=255)]
Reason = Annotated[str | None, Field(description="Reason, for the record.", max_length=1000)]
Text = Annotated[str, Field(max_length=100_000)]


def approve(
    scope: Scope,
    agent_id: AgentId,
    call_id: CallId,
    arguments: Annotated[
        dict[str, Any] | None, Field(description="Arguments instead of those that the model wrote.")
    ] = None,
    reason: Reason = None,
) -> Any:
    """Approve a call of a tool, which is then made.

    Do so only if the person you work for wants it, and has seen its arguments to the end: `approvals` shows them in pages.
    """
    changed = approve_sync(
        agent_id,
        call_id,
        arguments=arguments,
        reason=reason,
        metadata_filter=scope.labels,
        by=scope.by,
        source=scope.source,
    )
    return {"changed": changed}


def reject(
    scope: Scope,
    agent_id: AgentId,
    call_id: CallId,
    message: Annotated[Text | None, Field(description="Text that the agent's model gets.")] = None,
    reason: Reason = None,
) -> Any:
    """Reject a call of a tool; the agent goes on without it."""
    changed = reject_sync(
        agent_id,
        call_id,
        message=message,
        reason=reason,
        metadata_filter=scope.labels,
        by=scope.by,
        source=scope.source,
    )
    return {"changed": changed}


def retry(scope: Scope, agent_id: AgentId) -> Any:
    """Put a failed or canceled task back on its queue; it goes on from what it has recorded."""
    return {"changed": retry_sync(agent_id, metadata_filter=scope.labels, by=scope.by)}


def cancel(scope: Scope, agent_id: AgentId) -> Any:
    """Cancel a task and the tasks that it enqueued."""
    return {"changed": cancel_sync(agent_id, metadata_filter=scope.labels, by=scope.by)}


def fork(
    scope: Scope,
    agent_id: AgentId,
    at: Annotated[
        int, Field(ge=1, le=1_000_000, description="The first turn that the new task takes itself, from 1.")
    ],
    run: Annotated[Name | None, Field(description="The run whose turn it is, if there are several.")] = None,
    instructions: Annotated[
        Text | None, Field(description="Instructions of the agent from that turn on.")
    ] = None,
    model: Annotated[Name | None, Field(description="Model of the agent from that turn on.")] = None,
    input: Annotated[
        Text | None, Field(description="Message that the agent reads right before that turn.")
    ] = None,
) -> Any:
    """Queue a new task that begins with what a task has recorded before a turn, and return its agent_id."""
    task = fork_sync(
        agent_id,
        at=at,
        run=run,
        instructions=instructions,
        model=model,
        input=input,
        metadata_filter=scope.labels,
        by=scope.by,
    )
    return {"agent_id": str(task.agent_id)}


def enqueue(
    scope: Scope,
    task: Annotated[Name, Field(description="Name of the task.")],
    context: Annotated[dict[str, Any] | None, Field(description="Context of the task.")] = None,
    idempotency_key: Annotated[
        str | None,
        Field(
            max_length=200,
            description="Key that makes a second enqueue return the first task, unless that has failed.",
        ),
    ] = None,
) -> Any:
    """Queue a task and return its agent_id; `show` then tells how it goes on."""
    return {"agent_id": accept(scope, task, context, idempotency_key)}


def accept(
    scope: Scope, task: str, context: dict[str, Any] | None = None, idempotency_key: str | None = None
) -> str:
    """Queue a task with the labels of the scope, and return its ID."""
    if scope.labels is not None and idempotency_key is not None:
        # Keys are common to all tenants: without its labels, a key would tell of another tenant's task, or take it over.
        idempotency_key = f"{idempotency_key} {digest(scope.labels)[:32]}"
    accepted = enqueue_sync(
        task, context or {}, metadata=scope.labels and dict(scope.labels), idempotency_key=idempotency_key
    )
    return str(accepted.agent_id)
