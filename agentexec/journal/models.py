"""The journal's tables: recorded facts of tasks, questions to people, events and waits for them, trackers."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Double, ForeignKey, Index, Integer, String, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from agentexec.config import CONF
from agentexec.db.base import Base
from agentexec.db.columns import BigId, ExactText, JsonObject, LongText, PartialIndex, UtcDateTime
from agentexec.payloads.columns import Payload

MAX_PATH = 255
"""Maximum characters of a path."""

PathText = ExactText(MAX_PATH)
"""Text of a path or name, compared exactly: the ids of two calls may differ only in case."""


class JournalEntry(Base):
    """One recorded fact: the begin of a run, a model's response, a call's intent, outcome or error, a sandbox's state.

    `path` names the run or call within the task, `seq` counts its facts. The key makes it impossible to record
    the same fact twice. Rows are deleted with their activity.
    """

    __tablename__ = f"{CONF.table_prefix}journal"

    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), primary_key=True
    )
    path: Mapped[str] = mapped_column(PathText, primary_key=True, doc="The run or call within the task.")
    seq: Mapped[int] = mapped_column(
        Integer, primary_key=True, autoincrement=False, doc="Counts the facts of a path."
    )
    kind: Mapped[str] = mapped_column(
        String(10), doc="Kind of the fact: run, model, intent, outcome, raised, sandbox, fork or background."
    )
    input_hash: Mapped[str] = mapped_column(
        String(64), doc="Digest of the input, by which a diverging replay is detected."
    )
    value: Mapped[str] = mapped_column(Payload, doc="Response, outcome, error or state, as JSON.")
    epoch: Mapped[int] = mapped_column(Integer, doc="Epoch of the lease under which it was written.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class JournalHistory(Base):
    """One fact of a run that was given up: `run` counts those of the task, from 1. Rows are deleted with their activity."""

    __tablename__ = f"{CONF.table_prefix}journal_history"

    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), primary_key=True
    )
    run: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    path: Mapped[str] = mapped_column(PathText, primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(10), doc="As in the journal; restart: why the run was given up.")
    input_hash: Mapped[str] = mapped_column(String(64))
    value: Mapped[str] = mapped_column(Payload)
    epoch: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Approval(Base):
    """A question about one call, and its answer.

    `seq` counts the questions about the call: the first may ask for its approval, each later one whether to repeat it.
    `wake_at` is set until the queue has been told about the answer. Rows are deleted with their activity.
    """

    __tablename__ = f"{CONF.table_prefix}approval"

    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), primary_key=True
    )
    path: Mapped[str] = mapped_column(PathText, primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    call_id: Mapped[str] = mapped_column(PathText, doc="The call that waits.")
    kind: Mapped[str] = mapped_column(String(10), doc="approval, or repeat for a call that was interrupted.")
    tool: Mapped[str] = mapped_column(LongText)
    arguments: Mapped[str] = mapped_column(Payload)
    status: Mapped[str] = mapped_column(String(10))
    message: Mapped[str | None] = mapped_column(LongText)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, doc="From then on it has its default answer."
    )
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    wake_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    # Of later releases than the columns above: workers of an earlier one leave them empty.
    arguments_schema: Mapped[str | None] = mapped_column(
        LongText, doc="JSON Schema of the tool's arguments; NULL if they cannot be changed."
    )
    decided_arguments: Mapped[str | None] = mapped_column(
        Payload, doc="Arguments with which it was approved, if they are not the model's."
    )
    decided_by: Mapped[str | None] = mapped_column(String(200), doc="Name of who decided.")
    decided_from: Mapped[str | None] = mapped_column(
        String(200), doc="Where the decision came from: cli, http or code and a place, a rule, the time-out."
    )
    reason: Mapped[str | None] = mapped_column(LongText, doc="Reason for people; the model gets `message`.")
    rule_id: Mapped[UUID | None] = mapped_column(Uuid, doc="The rule that decided.")
    default_answer: Mapped[str | None] = mapped_column(
        String(10), doc="Status after its time: approved, or NULL for expired."
    )
    superseded_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, doc="When a retry of the task made its answer count no more."
    )
    webhook: Mapped[str | None] = mapped_column(Text, doc="URL that is told of the question.")
    notice_at: Mapped[datetime | None] = mapped_column(
        UtcDateTime, doc="When hooks and webhook are told next; NULL if never."
    )
    notices: Mapped[int | None] = mapped_column(Integer, doc="Times that they were told.")
    reminder_seconds: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}approval_status", "status", "created_at"),
        Index(f"ix_{CONF.table_prefix}approval_wake", "wake_at"),
        PartialIndex(f"ix_{CONF.table_prefix}approval_notice", "notice_at", where="notice_at IS NOT NULL"),
    )


class ApprovalRule(Base):
    """A rule that approves calls like one that a person has approved, until it expires or is revoked.

    `scope_key` is what the tasks of its scope have in common, in one text that is looked up. Rows are deleted a while after
    their end.
    """

    __tablename__ = f"{CONF.table_prefix}approval_rule"

    rule_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    scope: Mapped[str] = mapped_column(String(20), doc="task, conversation or metadata.")
    scope_key: Mapped[str] = mapped_column(ExactText(80))
    agent_id: Mapped[UUID | None] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), doc="The task of its scope."
    )
    labels: Mapped[dict[str, Any] | None] = mapped_column(
        JsonObject, doc="Values that the metadata of its tasks has."
    )
    tool: Mapped[str] = mapped_column(LongText, doc="Name of the tool, with * for any characters.")
    conditions: Mapped[str | None] = mapped_column(Payload, doc="Conditions on the arguments, as JSON.")
    arguments: Mapped[str | None] = mapped_column(Payload, doc="The only arguments that match, as JSON.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str | None] = mapped_column(String(200))
    created_from: Mapped[str | None] = mapped_column(String(200))
    reason: Mapped[str | None] = mapped_column(LongText)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_by: Mapped[str | None] = mapped_column(String(200))

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}approval_rule_scope", "scope_key", "expires_at"),
        Index(f"ix_{CONF.table_prefix}approval_rule_expires", "expires_at"),
        Index(f"ix_{CONF.table_prefix}approval_rule_activity", "agent_id"),
    )


class SentEvent(Base):
    """An event that `ax.send_event` has sent. Rows are deleted after 30 days."""

    __tablename__ = f"{CONF.table_prefix}sent_event"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(PathText)
    key: Mapped[str] = mapped_column(PathText)
    value: Mapped[str] = mapped_column(Payload)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}sent_event_name", "name", "key"),
        Index(f"ix_{CONF.table_prefix}sent_event_created", "created_at"),
    )


class EventWait(Base):
    """A task's wait for an event, and the event that it got (`event_id`).

    `wake_at` is set until the queue has been told about the event. Rows are deleted with their activity.
    """

    __tablename__ = f"{CONF.table_prefix}event_wait"

    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), primary_key=True
    )
    path: Mapped[str] = mapped_column(PathText, primary_key=True)
    name: Mapped[str] = mapped_column(PathText)
    key: Mapped[str] = mapped_column(PathText)
    event_id: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    wake_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}event_wait_name", "name", "key"),
        Index(f"ix_{CONF.table_prefix}event_wait_wake", "wake_at"),
    )


class TrackerCount(Base):
    """The count of a tracker, and the task, as JSON, that is enqueued once when the count is complete (`fired_at`)."""

    __tablename__ = f"{CONF.table_prefix}tracker"

    key: Mapped[str] = mapped_column(PathText, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    counted: Mapped[bool] = mapped_column(Boolean(create_constraint=False))
    task: Mapped[str | None] = mapped_column(Payload)
    fired_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index(f"ix_{CONF.table_prefix}tracker_updated", "updated_at"),)


class TrackerMark(Base):
    """One change of a tracker by a task, so that the task's next attempt does not count it again.

    Rows are deleted with their activity.
    """

    __tablename__ = f"{CONF.table_prefix}tracker_mark"

    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), primary_key=True
    )
    path: Mapped[str] = mapped_column(PathText, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
