"""The journal's tables: recorded steps of tasks, questions to people, events and who waits for them, trackers."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from agentexec.config import CONF
from agentexec.db.base import Base
from agentexec.db.columns import BigId, ExactText, LongText, UtcDateTime

MAX_PATH = 255

# Call ids may differ in nothing but case.
PathText = ExactText(MAX_PATH)


class JournalEntry(Base):
    """One recorded fact of a run: that it began, a model's response, or a call's intent or outcome.

    `path` names the run or call within the task, `seq` counts its facts. The key makes it impossible to record
    the same fact twice. Rows go with their activity.
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
        String(10), doc="What is recorded: a run, a response, an intent, an outcome."
    )
    input_hash: Mapped[str] = mapped_column(
        String(64), doc="What was asked, so that a replay that diverges is found."
    )
    value: Mapped[str] = mapped_column(LongText, doc="What was answered, as JSON.")
    epoch: Mapped[int] = mapped_column(Integer, doc="The claim under which it was written.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Approval(Base):
    """A question about one call, and its answer.

    `seq` counts the questions about it; the first may be its approval, each further one whether it is to be made again.
    Rows go with their activity.

    `wake_at` is set while the queue is still to be told of the answer.
    """

    __tablename__ = f"{CONF.table_prefix}approval"

    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), primary_key=True
    )
    path: Mapped[str] = mapped_column(PathText, primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    call_id: Mapped[str] = mapped_column(PathText, doc="The call that waits.")
    kind: Mapped[str] = mapped_column(String(10), doc="approval, or repeat for a call that was cut off.")
    tool: Mapped[str] = mapped_column(LongText)
    arguments: Mapped[str] = mapped_column(LongText)
    status: Mapped[str] = mapped_column(String(10))
    message: Mapped[str | None] = mapped_column(LongText)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="Rejected by itself from then on.")
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    wake_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}approval_status", "status", "created_at"),
        Index(f"ix_{CONF.table_prefix}approval_wake", "wake_at"),
    )


class SentEvent(Base):
    """An event that `ax.send_event` has sent. Rows go after some weeks."""

    __tablename__ = f"{CONF.table_prefix}sent_event"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(PathText)
    key: Mapped[str] = mapped_column(PathText)
    value: Mapped[str] = mapped_column(LongText)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}sent_event_name", "name", "key"),
        Index(f"ix_{CONF.table_prefix}sent_event_created", "created_at"),
    )


class EventWait(Base):
    """A task's wait for an event. `event_id`: the one it got. `wake_at`: since when its queue is to be told of one.

    Rows go with their activity.
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
    """The count of a tracker, and the task that is enqueued when it is complete (JSON, once: `fired_at`)."""

    __tablename__ = f"{CONF.table_prefix}tracker"

    key: Mapped[str] = mapped_column(PathText, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    counted: Mapped[bool] = mapped_column(Boolean(create_constraint=False))
    task: Mapped[str | None] = mapped_column(LongText)
    fired_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index(f"ix_{CONF.table_prefix}tracker_updated", "updated_at"),)


class TrackerMark(Base):
    """One change of a tracker by a task, so that the task's next attempt does not count again. Goes with its activity."""

    __tablename__ = f"{CONF.table_prefix}tracker_mark"

    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), primary_key=True
    )
    path: Mapped[str] = mapped_column(PathText, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
