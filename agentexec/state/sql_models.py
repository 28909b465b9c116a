"""Tables of the SQL state backend. They may be emptied: the reconciler restores the queue from the record.

They are part of every schema, so they are outside `sql_backend`, which a deployment with Redis never imports.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import BigInteger, Index, Integer, SmallInteger, String, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from agentexec.config import CONF
from agentexec.db.base import Base, set_storage
from agentexec.db.columns import BigId, ExactText, LongText, PartialIndex

LEASED = 2
"""Lane of leased tasks, after those of Priority.HIGH and Priority.LOW."""

PARKED = 3
"""Lane of tasks that wait for a lock or a limit."""

RANKED = 10
"""Lane of tasks with a fairness key that have a turn: 10 for HIGH, 11 for LOW."""

UNRANKED = 20
"""Lane of tasks with a fairness key that have no turn yet: 20 for HIGH, 21 for LOW."""

RANKED_ONLY = f"lane + 0 BETWEEN {RANKED} AND {UNRANKED - 1}"
"""Condition of the rows with a turn, as in the index that has only those. No planner takes it for a range to search."""

MAX_GROUP = 410
"""Characters of the longest name of a group: of a task and a key, and what separates them."""

VACUUM = {
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_cost_delay": 0,
    "autovacuum_analyze_scale_factor": 0.02,
    "vacuum_truncate": "false",
}
"""Parameters of the queue's table on PostgreSQL: each task leaves three dead rows, most of them where claims read next. A
table that became empty keeps its size, as shrinking it would lock it."""

MAX_NAME = 200
"""Characters of the longest name of a worker, mailbox, counter or role."""


class QueueEntry(Base):
    """Task on a queue. The first index serves every query but one.

    In the lanes of the priorities and in PARKED, `at` is the time from which the task may start; in the lane LEASED, the time at which
    its lease expires. Both are microseconds since the Unix epoch. In the lanes RANKED it is the task's turn in millionths,
    as `sql_backend/fair_lanes.py` says, and in UNRANKED the time from which the task may start.
    """

    __tablename__ = f"{CONF.table_prefix}queue"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    queue: Mapped[str] = mapped_column(String(100))
    priority: Mapped[int] = mapped_column(SmallInteger)
    lane: Mapped[int] = mapped_column(
        SmallInteger,
        doc="0 HIGH, 1 LOW, 2 leased to a worker, 3 waits for a group, 10 and 11, 20 and 21: HIGH and LOW, with a key.",
    )
    at: Mapped[int] = mapped_column(
        BigInteger, doc="Start time or turn of a waiting task, end of the lease of a leased one."
    )
    epoch: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str | None] = mapped_column(String(MAX_NAME), doc="Worker that holds the lease.")
    grouped: Mapped[int] = mapped_column(
        SmallInteger, server_default=text("0"), doc="1 for a task with groups, see queue_member."
    )

    flow: Mapped[int | None] = mapped_column(BigInteger, doc="Hash of the fairness key.")
    step: Mapped[int | None] = mapped_column(BigInteger, doc="Millionths of a turn that the task takes.")

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}queue_lane", "queue", "lane", "at"),
        # The last turn of a key. Only tasks with a turn are in it, where the database can leave rows out.
        PartialIndex(f"ix_{CONF.table_prefix}queue_flow", "queue", "lane", "flow", "at", where=RANKED_ONLY),
    )


set_storage(QueueEntry, VACUUM)


class QueueMember(Base):
    """Task in one of its groups, a lock or a limit. Tasks without groups have no row."""

    __tablename__ = f"{CONF.table_prefix}queue_member"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(
        ExactText(MAX_GROUP), primary_key=True, doc="The group, see agentexec.state.groups."
    )
    queue: Mapped[str] = mapped_column(String(100))
    state: Mapped[int] = mapped_column(
        SmallInteger, doc="0 neither, 1 has the lock, 2 counts in the limit, 3 waits for the group."
    )
    priority: Mapped[int] = mapped_column(SmallInteger, doc="Order of those that wait, with place.")
    place: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}queue_member_line", "queue", "name", "state", "priority", "place"),
    )


class Watch(Base):
    """Mailbox that is told when a task is done."""

    __tablename__ = f"{CONF.table_prefix}watch"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    mailbox: Mapped[str] = mapped_column(String(MAX_NAME), primary_key=True)
    lapses_at: Mapped[int] = mapped_column(BigInteger, index=True)


class Message(Base):
    """Message in a mailbox, until it is read."""

    __tablename__ = f"{CONF.table_prefix}message"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    mailbox: Mapped[str] = mapped_column(String(MAX_NAME))
    text: Mapped[str] = mapped_column(String(1000))
    sent_at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index(f"ix_{CONF.table_prefix}message_mailbox", "mailbox", "id"),)


class Counter(Base):
    """Number that the backend keeps: a queue's index is complete, or the fill level of a token bucket."""

    __tablename__ = f"{CONF.table_prefix}counter"

    name: Mapped[str] = mapped_column(String(MAX_NAME), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class Leader(Base):
    """Owner of a role, and the end of its leadership in microseconds since the Unix epoch."""

    __tablename__ = f"{CONF.table_prefix}leader"

    role: Mapped[str] = mapped_column(String(MAX_NAME), primary_key=True)
    owner: Mapped[str] = mapped_column(String(MAX_NAME))
    until: Mapped[int] = mapped_column(BigInteger)


class EventRow(Base):
    """Live event of a task, kept for minutes. Each number is 1 above the one before it."""

    __tablename__ = f"{CONF.table_prefix}event"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(LongText)
    at: Mapped[int] = mapped_column(BigInteger, index=True)


class Follow(Base):
    """Mailbox that is told about a task's events."""

    __tablename__ = f"{CONF.table_prefix}follow"

    agent_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    mailbox: Mapped[str] = mapped_column(String(MAX_NAME), primary_key=True)
    lapses_at: Mapped[int] = mapped_column(BigInteger, index=True)
