"""Answers to tasks that wait: approvals of people, events of other systems."""

from __future__ import annotations

import json
import random

from sqlalchemy import select
from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.runtime import RUNTIME
from agentexec.task import Status

GO = "go"
"""Name of the events."""


def answer_approvals(chance: random.Random) -> None:
    """Approve or reject every call that waits. Raises UnavailableError."""
    with Session(RUNTIME.engine) as session:
        waiting = ax.approvals.list(session)
    for approval in waiting:
        if chance.random() < 0.7:
            ax.approve_sync(approval.agent_id, approval.call_id)
        else:
            ax.reject_sync(approval.agent_id, approval.call_id)


def answer_all() -> None:
    """Answer for producers that were killed: nothing waits for them for ever. Raises UnavailableError."""
    answer_approvals(random.Random(0))
    listens = Activity.agent_type == "listener"
    with Session(RUNTIME.engine) as session:
        contexts = session.scalars(
            select(Activity.context).where(listens, Activity.status == Status.QUEUED)
        ).all()
    for context in contexts:
        key = json.loads(str(context))["key"]
        ax.send_event_sync(GO, key, key)
