"""Answers of people to calls that wait for them: recorded first, then the task is woken."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from agentexec.activity.queries.handle import find_task
from agentexec.arguments.actors import phrase
from agentexec.arguments.checks import check_storable
from agentexec.db.clock import utc_now
from agentexec.errors import UsageError
from agentexec.journal.approvals import (
    APPROVED,
    REJECTED,
    answer_question,
    without_open_questions,
)
from agentexec.journal.facts import dump
from agentexec.journal.wake_ups import mark_woken
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Task, agent_id_of

log = logging.getLogger("agentexec.approvals")


async def approve(
    task: Task | UUID | str,
    call_id: str,
    *,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> bool:
    """Approve a call that waits for a person. The call is made, and its task resumes.

    Args:
        task: Handle or agent_id of the task.
        call_id: Id of the call, as `ax.approvals.list` returns it.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.
        by: Name of who does it, for the task's log.

    Returns:
        False if the call was decided or expired before, or the task has ended.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        ApprovalNotFoundError: The task never asked for an approval of this call.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(
        _decide, task, call_id, APPROVED, None, metadata_filter, phrase(by), utc_now()
    )


def approve_sync(
    task: Task | UUID | str,
    call_id: str,
    *,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> bool:
    """Approve a call: `approve` for code without an event loop, with the same arguments, result and errors."""
    return wait_out(_decide, task, call_id, APPROVED, None, metadata_filter, phrase(by), utc_now())


async def reject(
    task: Task | UUID | str,
    call_id: str,
    *,
    message: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> bool:
    """Reject a call that waits for a person. The model gets the message instead of a result, and the task resumes.

    Args:
        task: Handle or agent_id of the task.
        call_id: Id of the call, as `ax.approvals.list` returns it.
        message: Text for the model; a general one by default.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.
        by: Name of who does it, for the task's log.

    Returns:
        False if the call was decided or expired before, or the task has ended.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        ApprovalNotFoundError: The task never asked for an approval of this call.
        PayloadTooLargeError: The message is above `AGENTEXEC_MAX_PAYLOAD_BYTES`.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(
        _decide, task, call_id, REJECTED, message, metadata_filter, phrase(by), utc_now()
    )


def reject_sync(
    task: Task | UUID | str,
    call_id: str,
    *,
    message: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> bool:
    """Reject a call: `reject` for code without an event loop, with the same arguments, result and errors."""
    return wait_out(_decide, task, call_id, REJECTED, message, metadata_filter, phrase(by), utc_now())


def _decide(
    task: Task | UUID | str,
    call_id: str,
    answer: Any,
    message: str | None,
    metadata_filter: Mapping[str, Any] | None,
    by: str,
    now: datetime,
) -> bool:
    """Answer a call. May be called again with the same `now` after UnavailableError."""
    agent_id = agent_id_of(task)
    call_id = check_storable("call_id=", call_id)
    if message is not None:
        if not isinstance(message, str):
            raise UsageError(f"message= must be a text, not {type(message).__name__}.")
        dump(message, "The message")
        message = message.replace("\x00", "").encode("utf-8", "replace").decode()
    queue = find_task(RUNTIME.engine, agent_id, metadata_filter).queue_name
    if not answer_question(RUNTIME.engine, agent_id, call_id, answer, message, now, by):
        return False
    with RUNTIME.best_effort(log, "Task %s resumes when it is back.", agent_id):
        if without_open_questions(RUNTIME.engine, [agent_id]):
            RUNTIME.backend.make_ready(queue, [agent_id])
            mark_woken(RUNTIME.engine, "approval", [agent_id])
    return True
