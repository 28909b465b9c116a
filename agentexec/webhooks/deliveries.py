"""Deliveries of webhooks for people who look after them: the list, and messages that are sent again."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, and_, select, update
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity, ActivityResult, FollowUp
from agentexec.activity.queries.handle import find_task
from agentexec.activity.queries.labels import metadata_conditions
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.arguments.checks import check_integer, check_moment, shown
from agentexec.arguments.webhooks import shown_url
from agentexec.config import CONF
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.errors import UsageError
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import FINAL_STATUSES, Status, Task, agent_id_of
from agentexec.webhooks.messages import EVENTS, make_body
from agentexec.webhooks.record import DELIVERED, FAILED, MESSAGE, PENDING, add_message

STATES = (PENDING, DELIVERED, FAILED)

MAX_OUTCOME = 300
"""Characters of the receiver's answer."""

MAX_LISTED = 10_000
BATCH = 500
"""Messages that are looked up at once."""


class WebhookSchema(BaseModel):
    """Webhook message about a task, and its delivery. Of the URL only the host is shown: a path may hold a token."""

    model_config = ConfigDict(defer_build=True)

    webhook_id: str = Field(description="Id of the message, which the receiver gets as its `webhook-id`.")
    agent_id: UUID
    task_name: str
    event: str = Field(
        description="task.completed, task.failed, task.canceled, approval.requested or approval.reminder."
    )
    to: str = Field(description="Scheme and host of the receiver.")
    state: str = Field(description="pending, delivered or failed.")
    attempts: int
    outcome: str | None = Field(description="Answer or error of the latest attempt.")
    created_at: datetime
    updated_at: datetime
    next_at: datetime | None = Field(description="The next attempt; null if none is planned.")


@sync_or_async
def list_webhooks(
    db: Session,
    *,
    task: Task | UUID | str | None = None,
    task_name: str | None = None,
    state: str | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    limit: int = 50,
) -> builtins.list[WebhookSchema]:
    """Return webhook messages and how their deliveries stand, newest first.

    Args:
        db: Session or AsyncSession on the database of the record.
        task: Only the messages about this task.
        task_name: Only messages about tasks with this name.
        state: Only messages in this state: pending, delivered or failed.
        metadata_filter: Labels that the tasks must have.
        limit: Maximum number of messages, up to 10,000.

    Returns:
        The messages.

    Raises:
        UsageError: An argument is invalid.
    """
    conditions = metadata_conditions(metadata_filter)
    if task is not None:
        conditions.append(MESSAGE.c.agent_id == agent_id_of(task))
    if task_name is not None:
        conditions.append(Activity.agent_type == task_name)
    if state is not None:
        if state not in STATES:
            raise UsageError(f"There is no state {shown(state)}; the states are {', '.join(STATES)}.")
        conditions.append(MESSAGE.c.state == state)
    columns = [column for column in MESSAGE.c if column.name != "body"]
    query = (
        select(*columns, Activity.agent_type)
        .join(Activity, Activity.agent_id == MESSAGE.c.agent_id)
        .where(*conditions)
        # The ids are in the order of time.
        .order_by(MESSAGE.c.message_id.desc())
        .limit(check_integer("limit=", limit, maximum=MAX_LISTED))
    )
    return [_schema(row) for row in db.execute(query)]


async def resend(task: Task | UUID | str, *, metadata_filter: Mapping[str, Any] | None = None) -> bool:
    """Send the latest webhook message about an ended task again, with its `webhook-id`; of a pending one, the next attempt is now.

    The message is made again from the record, and gets as many attempts as a new one. Its result is left out if it has been
    removed after `AGENTEXEC_RESULT_TTL`. Workers send it within seconds.

    Args:
        task: Handle or agent_id of the task.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.

    Returns:
        False if the task has not ended, or has no webhook.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(_resend, agent_id_of(task), metadata_filter)


def resend_sync(task: Task | UUID | str, *, metadata_filter: Mapping[str, Any] | None = None) -> bool:
    """Send a webhook message again: `resend` for code without an event loop, with the same arguments, result and errors."""
    return wait_out(_resend, agent_id_of(task), metadata_filter)


async def resend_failed(
    *, since: datetime | None = None, metadata_filter: Mapping[str, Any] | None = None
) -> int:
    """Send all messages again that were given up, as `resend` does for one task, the oldest first.

    Args:
        since: Only messages that were given up at this moment or later; it has a time zone.
        metadata_filter: Labels that the tasks must have; None sends those of every tenant.

    Returns:
        The number of tasks whose message is sent again.

    Raises:
        UsageError: An argument is invalid.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(_resend_failed, since, metadata_filter)


def resend_failed_sync(
    *, since: datetime | None = None, metadata_filter: Mapping[str, Any] | None = None
) -> int:
    """Send all failed messages again: `resend_failed` for code without an event loop."""
    return wait_out(_resend_failed, since, metadata_filter)


def _resend(agent_id: UUID, metadata_filter: Mapping[str, Any] | None) -> bool:
    find_task(RUNTIME.engine, agent_id, metadata_filter)
    return _resend_one(agent_id, utc_now())


def _resend_failed(since: datetime | None, metadata_filter: Mapping[str, Any] | None) -> int:
    conditions = [MESSAGE.c.state == FAILED, *metadata_conditions(metadata_filter)]
    if since is not None:
        conditions.append(MESSAGE.c.updated_at >= check_moment("since=", since))
    query = select(MESSAGE.c.message_id, MESSAGE.c.agent_id).join(
        Activity, Activity.agent_id == MESSAGE.c.agent_id
    )
    sent: set[UUID] = set()
    last = UUID(int=0)
    while True:
        with reading(RUNTIME.engine) as connection:
            batch = query.where(*conditions, MESSAGE.c.message_id > last).order_by(MESSAGE.c.message_id)
            rows = connection.execute(batch.limit(BATCH)).all()
        if not rows:
            return len(sent)
        for row in rows:
            if row.agent_id not in sent and _resend_one(row.agent_id, utc_now()):
                sent.add(row.agent_id)
        last = rows[-1].message_id


@retry_on_deadlock
def _resend_one(agent_id: UUID, now: datetime) -> bool:
    with writing(RUNTIME.engine) as connection:
        row = connection.execute(_ENDED.where(Activity.agent_id == agent_id).with_for_update()).one_or_none()
        if row is None or row.status not in FINAL_STATUSES:
            return False
        latest = connection.execute(_LATEST.where(MESSAGE.c.agent_id == agent_id)).first()
        if latest is None or latest.event != EVENTS[row.status]:
            return row.webhook is not None and _send_first(connection, row, now)
        values: dict[str, Any] = {"next_at": now, "updated_at": now}
        if latest.state != PENDING:
            result = _result_of(connection, row)
            # A result of None is not stored, so a missing one may have been removed.
            lost = result is None and row.finished_at is not None and _is_past(row.finished_at, now)
            values |= {"state": PENDING, "attempts": 0, "body": make_body(row, result, result_lost=lost)}
        mine = and_(MESSAGE.c.message_id == latest.message_id, MESSAGE.c.state == latest.state)
        connection.execute(update(MESSAGE).where(mine).values(**values))
    return True


_ENDED = select(
    Activity.agent_id,
    Activity.agent_type,
    Activity.queue,
    Activity.status,
    Activity.attempt,
    Activity.finished_at,
    Activity.updated_at.label("ended_at"),
    Activity.metadata_.label("labels"),
    Activity.error,
    Activity.message,
    Activity.webhook,
)

_LATEST = (
    select(MESSAGE.c.message_id, MESSAGE.c.event, MESSAGE.c.state)
    .where(MESSAGE.c.event.in_(EVENTS.values()))
    .order_by(MESSAGE.c.message_id.desc())
    .limit(1)
)


def _send_first(connection: Connection, row: Any, now: datetime) -> bool:
    """Add the message about an end that has none, unless maintenance is about to add it."""
    due = select(FollowUp.id).where(FollowUp.agent_id == row.agent_id).limit(1)
    if connection.execute(due).first() is None:
        add_message(connection, row, now)
    return True


def _result_of(connection: Connection, row: Any) -> str | None:
    if row.status is not Status.COMPLETE:
        return None
    query = select(ActivityResult.value).where(ActivityResult.agent_id == row.agent_id)
    found: str | None = connection.execute(query).scalar()
    return found


def _is_past(finished_at: datetime, now: datetime) -> bool:
    return finished_at + timedelta(seconds=CONF.result_ttl) < now


def _schema(row: Any) -> WebhookSchema:
    return WebhookSchema(
        webhook_id=f"msg_{row.message_id.hex}",
        agent_id=row.agent_id,
        task_name=row.agent_type,
        event=row.event,
        to=shown_url(row.url),
        state=row.state,
        attempts=row.attempts,
        outcome=None if row.outcome is None else row.outcome[:MAX_OUTCOME],
        created_at=row.created_at,
        updated_at=row.updated_at,
        next_at=row.next_at,
    )
