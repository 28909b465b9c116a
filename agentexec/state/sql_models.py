"""Tables of the SQL state backend. They may be emptied: the reconciler fills the queue again from the record."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, Index, Integer, SmallInteger, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from agentexec.config import CONF
from agentexec.db.base import Base
from agentexec.db.columns import BigId, LongText

LEASED = 2
"""The lane of tasks that a worker holds, behind those of Priority.HIGH and Priority.LOW."""

MAX_NAME = 200


class QueueEntry(Base):
    """A task on a queue. One index serves everything: in the lanes of the priorities `at` is the moment from
    which the task may start, in the lane LEASED the moment its lease runs out. Microseconds since the epoch.
    """

    __tablename__ = f"{CONF.table_prefix}queue"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    queue: Mapped[str] = mapped_column(String(100))
    priority: Mapped[int] = mapped_column(SmallInteger)
    lane: Mapped[int] = mapped_column(SmallInteger, doc="0 HIGH, 1 LOW, 2 held by a worker.")
    at: Mapped[int] = mapped_column(
        BigInteger, doc="May start from then on; of a held task, the end of its lease."
    )
    epoch: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str | None] = mapped_column(String(MAX_NAME), doc="Who holds it.")

    __table_args__ = (Index(f"ix_{CONF.table_prefix}queue_lane", "queue", "lane", "at"),)


class Watch(Base):
    """A mailbox that is to hear of a task's end."""

    __tablename__ = f"{CONF.table_prefix}watch"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    mailbox: Mapped[str] = mapped_column(String(MAX_NAME), primary_key=True)
    lapses_at: Mapped[int] = mapped_column(BigInteger, index=True)


class Message(Base):
    """A message in a mailbox, until it is read."""

    __tablename__ = f"{CONF.table_prefix}message"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    mailbox: Mapped[str] = mapped_column(String(MAX_NAME))
    text: Mapped[str] = mapped_column(String(1000))
    sent_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index(f"ix_{CONF.table_prefix}message_mailbox", "mailbox", "id"),)


class Counter(Base):
    """A number of the backend's own: that a queue's index is whole, how full a token bucket is."""

    __tablename__ = f"{CONF.table_prefix}counter"

    name: Mapped[str] = mapped_column(String(MAX_NAME), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class Leader(Base):
    """Who leads a role, and until when (microseconds since the epoch)."""

    __tablename__ = f"{CONF.table_prefix}leader"

    role: Mapped[str] = mapped_column(String(MAX_NAME), primary_key=True)
    owner: Mapped[str] = mapped_column(String(MAX_NAME))
    until: Mapped[int] = mapped_column(BigInteger)


class EventRow(Base):
    """A short-lived event of a task; numbers count up by one. Kept for minutes."""

    __tablename__ = f"{CONF.table_prefix}event"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(LongText)
    at: Mapped[int] = mapped_column(BigInteger, index=True)


class Follow(Base):
    """A mailbox that is told of a task's events."""

    __tablename__ = f"{CONF.table_prefix}follow"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    mailbox: Mapped[str] = mapped_column(String(MAX_NAME), primary_key=True)
    lapses_at: Mapped[int] = mapped_column(BigInteger, index=True)
