"""Answers of people to calls that wait for them: recorded first, then the task is woken."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from agentexec.activity.queries.handle import find_task
from agentexec.arguments.actors import actor_name, checked_reason, checked_source
from agentexec.arguments.checks import check_storable
from agentexec.arguments.tool_arguments import dump_arguments
from agentexec.client.approval_rules import AllLikeIt, apply_rule, new_rule, wake_answered
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.errors import UsageError
from agentexec.journal.approvals import answer_question
from agentexec.journal.facts import dump
from agentexec.journal.questions import APPROVED, REJECTED, Reply
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Task, agent_id_of


async def approve(
    task: Task | UUID | str,
    call_id: str,
    *,
    arguments: Mapping[str, Any] | None = None,
    rule: AllLikeIt | None = None,
    reason: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
    source: str | None = None,
) -> bool:
    """Approve a call that waits for a person. The call is made, and its task resumes.

    Args:
        task: Handle or agent_id of the task.
        call_id: Id of the call, as `ax.approvals.list` returns it.
        arguments: Arguments for the call instead of the model's, as one JSON object. They are checked against the tool's
            schema. The record keeps both, and the model is told with which arguments the call was made.
        rule: Approve calls like this one too, later ones and those that wait; see `ax.AllLikeIt`.
        reason: Why, for people: it is on the record and in the task's log.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.
        by: Name of who does it, for the record and the task's log.
        source: Where the decision comes from, such as "slack #ops"; by default "code" and the name of this host.

    Returns:
        False if the call was decided or expired before, or the task has ended.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        ApprovalNotFoundError: The task never asked for an approval of this call.
        UsageError: The tool does not take the arguments, they cannot be changed, or another argument is invalid.
        PayloadTooLargeError: The arguments are above `AGENTEXEC_MAX_PAYLOAD_BYTES`.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    reply = _approval(arguments, rule, reason, metadata_filter, by, source)
    return await RUNTIME.run_patiently(_decide, task, call_id, reply, metadata_filter, utc_now())


def approve_sync(
    task: Task | UUID | str,
    call_id: str,
    *,
    arguments: Mapping[str, Any] | None = None,
    rule: AllLikeIt | None = None,
    reason: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
    source: str | None = None,
) -> bool:
    """Approve a call: `approve` for code without an event loop, with the same arguments, result and errors."""
    reply = _approval(arguments, rule, reason, metadata_filter, by, source)
    return wait_out(_decide, task, call_id, reply, metadata_filter, utc_now())


async def reject(
    task: Task | UUID | str,
    call_id: str,
    *,
    message: str | None = None,
    reason: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
    source: str | None = None,
) -> bool:
    """Reject a call that waits for a person. The model gets the message instead of a result, and the task resumes.

    Args:
        task: Handle or agent_id of the task.
        call_id: Id of the call, as `ax.approvals.list` returns it.
        message: Text for the model; a general one by default.
        reason: Why, for people: it is on the record and in the task's log, and the model does not get it.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.
        by: Name of who does it, for the record and the task's log.
        source: Where the decision comes from, such as "slack #ops"; by default "code" and the name of this host.

    Returns:
        False if the call was decided or expired before, or the task has ended.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        ApprovalNotFoundError: The task never asked for an approval of this call.
        PayloadTooLargeError: The message is above `AGENTEXEC_MAX_PAYLOAD_BYTES`.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    reply = _rejection(message, reason, by, source)
    return await RUNTIME.run_patiently(_decide, task, call_id, reply, metadata_filter, utc_now())


def reject_sync(
    task: Task | UUID | str,
    call_id: str,
    *,
    message: str | None = None,
    reason: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
    source: str | None = None,
) -> bool:
    """Reject a call: `reject` for code without an event loop, with the same arguments, result and errors."""
    reply = _rejection(message, reason, by, source)
    return wait_out(_decide, task, call_id, reply, metadata_filter, utc_now())


def _approval(
    arguments: Mapping[str, Any] | None,
    rule: AllLikeIt | None,
    reason: str | None,
    metadata_filter: Mapping[str, Any] | None,
    by: str | None,
    source: str | None,
) -> Reply:
    reply = Reply(
        APPROVED,
        checked_source(source),
        by=None if by is None else actor_name(by),
        reason=checked_reason(reason),
    )
    if arguments is not None:
        text = dump_arguments("arguments=", arguments, CONF.max_payload_bytes)
        reply = reply._replace(arguments=text)
    if rule is None:
        return reply
    return reply._replace(rule=new_rule(rule, None, metadata_filter, reply.by, reply.source, reply.reason))


def _rejection(message: str | None, reason: str | None, by: str | None, source: str | None) -> Reply:
    if message is not None:
        if not isinstance(message, str):
            raise UsageError(f"message= must be a text, not {type(message).__name__}.")
        dump(message, "The message")
        message = message.replace("\x00", "").encode("utf-8", "replace").decode()
    name = None if by is None else actor_name(by)
    return Reply(REJECTED, checked_source(source), message, name, checked_reason(reason))


def _decide(
    task: Task | UUID | str,
    call_id: str,
    reply: Reply,
    metadata_filter: Mapping[str, Any] | None,
    now: datetime,
) -> bool:
    """Answer a call. May be called again with the same `now` after UnavailableError."""
    agent_id = agent_id_of(task)
    call_id = check_storable("call_id=", call_id)
    find_task(RUNTIME.engine, agent_id, metadata_filter)
    decision = answer_question(RUNTIME.engine, agent_id, call_id, reply, now)
    if decision.made:
        wake_answered([agent_id, *decision.answered])
        if decision.rule is not None:
            apply_rule(decision.rule, now)
    return decision.made
