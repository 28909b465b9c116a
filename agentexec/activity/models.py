"""Tables of the record: activities (the tasks themselves), their log, and results until they expire."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Double,
    Enum,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Text,
    Uuid,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship, synonym

from agentexec.arguments.queue_names import MAX_QUEUE_NAME
from agentexec.arguments.versions import MAX_VERSION
from agentexec.config import CONF
from agentexec.db.base import Base, set_storage
from agentexec.db.columns import BigId, ExactText, JsonObject, LongText, PartialIndex, UtcDateTime
from agentexec.payloads.columns import Payload
from agentexec.task import Status

MAX_NAME = 200
"""Maximum characters of a task name, an idempotency key or a lock key: MySQL cannot index longer ones."""

MAX_LABEL = 128
"""Maximum characters of a label's name or value; longer ones are stored as their hash."""

VACUUM = {"autovacuum_vacuum_scale_factor": 0.05, "autovacuum_analyze_scale_factor": 0.02}
"""Parameters of the activities' table on PostgreSQL: a queue's tasks change a small, always new part of a large table."""

StatusType = Enum(Status, native_enum=False, length=10, create_constraint=False)


class Activity(Base):
    """One task, or one activity that an application runs by itself (`queue` is NULL then).

    Status, percentage and message are here as well as in the log, so lists, counts and monitors are index look-ups,
    however long the log is.
    """

    __tablename__ = f"{CONF.table_prefix}activity"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True, doc="The task's id, a time-ordered UUID.")
    parent_id: Mapped[UUID | None] = mapped_column(Uuid, doc="The task that enqueued this one.")
    agent_type: Mapped[str] = mapped_column(String(MAX_NAME), doc="Name of the task.")
    status: Mapped[Status] = mapped_column(StatusType, doc="QUEUED, RUNNING, COMPLETE, ERROR or CANCELED.")
    percentage: Mapped[int] = mapped_column(
        SmallInteger, doc="Progress from 0 to 100, as in the log's latest line."
    )
    message: Mapped[str | None] = mapped_column(Text, doc="The log's latest line.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, doc="Latest change of status or report.")
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="Start of the first attempt.")
    finished_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, doc="When it ended, whether it succeeded or not."
    )

    queue: Mapped[str | None] = mapped_column(
        String(MAX_QUEUE_NAME), doc="The queue; NULL for an activity that an application runs by itself."
    )
    priority: Mapped[int] = mapped_column(SmallInteger, doc="0 for HIGH, 1 for LOW.")
    run_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="It starts no earlier than this.")
    expires_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, doc="It is canceled if it has not started by then; NULL once it has."
    )
    epoch: Mapped[int] = mapped_column(
        Integer, doc="Raised by each claim; a write under an older one is refused."
    )
    attempt: Mapped[int] = mapped_column(
        Integer, doc="Attempts so far; one that gave the task back is not counted."
    )
    crashes: Mapped[int] = mapped_column(Integer, doc="Crashes of the processes that ran it.")
    crashes_in_row: Mapped[int] = mapped_column(
        Integer, server_default=text("0"), doc="Crashes since its last recorded step."
    )
    lock_key: Mapped[str | None] = mapped_column(
        String(MAX_NAME), doc="Tasks with the same one run one at a time, in order."
    )
    held_lock: Mapped[str | None] = mapped_column(
        ExactText(MAX_NAME),
        doc="The lock_key, from the first start to the end: no other task can have it then.",
    )
    concurrency_key: Mapped[str | None] = mapped_column(
        ExactText(MAX_NAME), doc="Tasks of one name with the same one share its limit of concurrency."
    )
    idempotency_key: Mapped[str | None] = mapped_column(
        String(MAX_NAME), doc="A second enqueue with it finds this task."
    )
    debounce_key: Mapped[str | None] = mapped_column(
        ExactText(MAX_NAME), doc="Enqueues with it are merged into this task until it starts."
    )
    webhook: Mapped[str | None] = mapped_column(Text, doc="URL that is told of its end.")

    fairness_key: Mapped[str | None] = mapped_column(
        String(MAX_NAME), doc="Whose task it is: tasks of one key take turns with those of others."
    )
    fairness_weight: Mapped[float | None] = mapped_column(
        Double, doc="Tasks of the key in each turn; NULL without a key."
    )

    context: Mapped[str | None] = mapped_column(Payload, doc="The task's input, as JSON.")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column(
        "metadata", JsonObject, doc="Labels, for tenants and filters."
    )
    error: Mapped[str | None] = mapped_column(LongText, doc="Why it failed, with its traceback.")
    trace_context: Mapped[str | None] = mapped_column(
        String(600), doc="W3C trace context of the call that enqueued it: traceparent, a space, tracestate."
    )

    version: Mapped[str | None] = mapped_column(
        ExactText(MAX_VERSION), doc="Version of the code that began its run; NULL before, or without one."
    )
    budget: Mapped[str | None] = mapped_column(
        LongText,
        doc="What it may spend, its policy, and the budgets of its parents that it counts for, as JSON.",
    )
    requests: Mapped[int | None] = mapped_column(
        BigInteger, doc="Model calls of all attempts; tokens likewise."
    )
    input_tokens: Mapped[int | None] = mapped_column(BigInteger)
    output_tokens: Mapped[int | None] = mapped_column(BigInteger)
    cached_tokens: Mapped[int | None] = mapped_column(BigInteger)
    usage: Mapped[dict[str, Any] | None] = mapped_column(JsonObject, doc="Requests and tokens by model.")

    id: Mapped[UUID] = synonym("agent_id")
    logs: Mapped[list[ActivityLog]] = relationship(
        order_by="ActivityLog.id", viewonly=True, back_populates="activity"
    )

    __table_args__ = (
        # With what lists and counts by queue ask for: they read this index alone.
        Index(
            f"ix_{CONF.table_prefix}activity_status_created",
            "status",
            "created_at",
            "agent_id",
            "queue",
            "run_at",
        ),
        Index(
            f"ix_{CONF.table_prefix}activity_type_status", "agent_type", "status", "created_at", "agent_id"
        ),
        Index(f"ix_{CONF.table_prefix}activity_finished", "finished_at", "status", "agent_type"),
        Index(f"ix_{CONF.table_prefix}activity_parent", "parent_id", "created_at"),
        Index(f"uq_{CONF.table_prefix}activity_idempotency_key", "idempotency_key", unique=True),
        PartialIndex(
            f"uq_{CONF.table_prefix}activity_held_lock",
            "held_lock",
            unique=True,
            where="held_lock IS NOT NULL",
        ),
        # Only of tasks that use them: the index of all others costs nothing.
        PartialIndex(
            f"uq_{CONF.table_prefix}activity_debounce_key",
            "debounce_key",
            unique=True,
            where="debounce_key IS NOT NULL",
        ),
        PartialIndex(f"ix_{CONF.table_prefix}activity_expires", "expires_at", where="expires_at IS NOT NULL"),
    )


set_storage(Activity, VACUUM)


class ActivityLog(Base):
    """One line of an activity's history; rows are added, never changed."""

    __tablename__ = f"{CONF.table_prefix}activity_log"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    activity_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE")
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    status: Mapped[Status] = mapped_column(StatusType, doc="The status after this line.")
    message: Mapped[str] = mapped_column(LongText)
    percentage: Mapped[int | None] = mapped_column(SmallInteger)

    activity: Mapped[Activity] = relationship(viewonly=True, back_populates="logs")

    __table_args__ = (Index(f"ix_{CONF.table_prefix}activity_log_activity", "activity_id", "id"),)


class ActivityLabel(Base):
    """One value of an activity's metadata, by which it is found: no database searches JSON as fast.

    `value` is JSON, see activity/queries/labels.py; `created_at` is the activity's, so that the newest come first.
    """

    __tablename__ = f"{CONF.table_prefix}activity_label"

    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(ExactText(MAX_LABEL), primary_key=True)
    value: Mapped[str] = mapped_column(ExactText(MAX_LABEL), doc="As JSON; a long one as its hash.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}activity_label_value", "name", "value", "created_at", "agent_id"),
    )


class ActivityResult(Base):
    """The result of a completed task as JSON, until `expires_at`; a result of None has no row.

    It is written in the transaction that makes the task COMPLETE, so a crash cannot leave one without the other.
    """

    __tablename__ = f"{CONF.table_prefix}result"

    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), primary_key=True
    )
    value: Mapped[str] = mapped_column(Payload)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index(f"ix_{CONF.table_prefix}result_expires", "expires_at"),)


class FollowUp(Base):
    """An ending after which something is due: `on_failure` handlers, a webhook. Maintenance takes it within seconds.

    It is written in the transaction of the ending, so a crash cannot leave one without the other.
    """

    __tablename__ = f"{CONF.table_prefix}follow_up"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE")
    )
    queue: Mapped[str] = mapped_column(String(MAX_QUEUE_NAME))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    is_failure: Mapped[bool] = mapped_column(
        Boolean(create_constraint=False), doc="It failed or expired; False if it completed or was canceled."
    )

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}follow_up_queue", "queue", "id"),
        Index(f"ix_{CONF.table_prefix}follow_up_activity", "agent_id"),
    )


class WebhookMessage(Base):
    """A webhook message about a task's end, and its delivery."""

    __tablename__ = f"{CONF.table_prefix}webhook"

    message_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE")
    )
    url: Mapped[str] = mapped_column(Text)
    event: Mapped[str] = mapped_column(String(40), doc="Type of the message, like task.completed.")
    body: Mapped[str | None] = mapped_column(Payload, doc="The message as JSON; NULL once it has ended.")
    state: Mapped[str] = mapped_column(String(10), doc="pending, delivered or failed.")
    attempts: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, doc="Latest attempt.")
    next_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, doc="Its next attempt; NULL once it has ended."
    )
    outcome: Mapped[str | None] = mapped_column(Text, doc="The latest attempt's answer or error.")

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}webhook_next", "next_at"),
        Index(f"ix_{CONF.table_prefix}webhook_activity", "agent_id"),
    )


class WorkerProcess(Base):
    """A worker process that serves a queue, as of its latest report."""

    __tablename__ = f"{CONF.table_prefix}worker"

    worker_id: Mapped[str] = mapped_column(ExactText(MAX_LABEL), primary_key=True)
    queue: Mapped[str] = mapped_column(
        String(MAX_QUEUE_NAME), doc="The queue that it serves, or the first one."
    )
    queues: Mapped[str | None] = mapped_column(LongText, doc="Its queues as JSON, if it serves several.")
    versions: Mapped[str | None] = mapped_column(
        LongText, doc="Versions of its tasks as JSON; NULL if they have none."
    )
    host: Mapped[str] = mapped_column(String(MAX_NAME))
    pid: Mapped[int] = mapped_column(BigInteger)
    concurrency: Mapped[int] = mapped_column(Integer, doc="Maximum number of tasks that it runs at once.")
    running: Mapped[int] = mapped_column(Integer, doc="Tasks that it runs now.")
    draining: Mapped[bool] = mapped_column(Boolean(create_constraint=False), doc="It claims no more tasks.")
    cpu_percent: Mapped[float] = mapped_column(Double, doc="100 is one processor.")
    rss_bytes: Mapped[int] = mapped_column(BigInteger, doc="Memory.")
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime, doc="Its latest report.")


def queues_of(worker: Any) -> list[str]:
    """Return the queues that a worker process serves, by its row."""
    return read_queues(worker.queue, worker.queues)


def read_queues(first: str, queues: Any) -> list[str]:
    """Return the queues that two columns of a worker process name."""
    try:
        found = json.loads(queues)
    except (TypeError, ValueError, RecursionError):  # it serves one, or somebody else has written to its row
        return [first]
    names = [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
    return names or [first]


class QueuePause(Base):
    """The latest pause of a queue: since when, by whom, and whether it is over."""

    __tablename__ = f"{CONF.table_prefix}queue_pause"

    queue: Mapped[str] = mapped_column(ExactText(MAX_QUEUE_NAME), primary_key=True)
    paused_at: Mapped[datetime] = mapped_column(UtcDateTime)
    paused_by: Mapped[str] = mapped_column(
        String(MAX_NAME), doc="The user and host of the command, or a given name."
    )
    reason: Mapped[str | None] = mapped_column(LongText)
    resumed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="NULL while the queue is paused.")
    resumed_by: Mapped[str | None] = mapped_column(String(MAX_NAME))


class Schedule(Base):
    """A schedule that some worker's module declares. It ticks while a worker has it."""

    __tablename__ = f"{CONF.table_prefix}schedule"

    queue: Mapped[str] = mapped_column(ExactText(MAX_QUEUE_NAME), primary_key=True)
    name: Mapped[str] = mapped_column(ExactText(MAX_NAME), primary_key=True)
    task_name: Mapped[str] = mapped_column(String(MAX_NAME))
    cron: Mapped[str] = mapped_column(String(MAX_NAME), doc='A cron expression, or "@every SECONDS".')
    timezone: Mapped[str] = mapped_column(String(64))
    context: Mapped[str | None] = mapped_column(Payload, doc="Context of its tasks, as JSON.")
    labels: Mapped[dict[str, Any] | None] = mapped_column(JsonObject, doc="Metadata of its tasks.")
    priority: Mapped[int] = mapped_column(SmallInteger)
    repeat: Mapped[int | None] = mapped_column(Integer, doc="Number of tasks after which it ends.")
    backfill: Mapped[bool] = mapped_column(Boolean(create_constraint=False))
    runs: Mapped[int] = mapped_column(BigInteger, doc="Number of tasks so far.")
    next_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, doc="Its next tick; NULL once it has ended."
    )
    last_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="The tick of its latest task.")
    last_agent_id: Mapped[UUID | None] = mapped_column(Uuid)
    paused_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="Since when it is paused.")


class Meta(Base):
    """Facts about the deployment, such as the state backend that its workers use."""

    __tablename__ = f"{CONF.table_prefix}meta"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[str] = mapped_column(LongText)
