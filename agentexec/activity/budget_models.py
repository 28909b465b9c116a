"""Tables of budgets: what has been spent of each, and what calls in flight have reserved."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from agentexec.config import CONF
from agentexec.db.base import Base
from agentexec.db.columns import ExactText, LongText, UtcDateTime

MAX_PATH = 255
"""Maximum characters of a path, and of an account's name."""

PathText = ExactText(MAX_PATH)


class Budget(Base):
    """Account of a budget: what its tasks have spent. A window of AGENTEXEC_BUDGETS has a row for each period.

    Money is in nanodollars, of calls whose model has a price. What calls in flight have reserved is in `budget_hold`.
    """

    __tablename__ = f"{CONF.table_prefix}budget"

    name: Mapped[str] = mapped_column(PathText, primary_key=True)
    title: Mapped[str] = mapped_column(
        LongText, doc='The label and its value, like "tenant=acme", or "task".'
    )
    agent_id: Mapped[UUID | None] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"),
        doc="The task whose budget it is; NULL for a window.",
    )
    unit: Mapped[str] = mapped_column(String(10), doc="dollars or tokens: the unit of its limit.")
    amount: Mapped[int] = mapped_column(BigInteger, doc="The limit, in nanodollars or tokens.")
    raised: Mapped[int] = mapped_column(BigInteger, doc="By how much people have raised the limit.")
    raises: Mapped[str] = mapped_column(LongText, doc="The approvals that raised it, as JSON.")
    spent_nanos: Mapped[int] = mapped_column(BigInteger)
    spent_tokens: Mapped[int] = mapped_column(BigInteger)
    period: Mapped[str | None] = mapped_column(String(10), doc="minute, hour, day, week or month.")
    starts_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="Begin of the window.")
    ends_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="End of the window.")
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}budget_activity", "agent_id"),
        Index(f"ix_{CONF.table_prefix}budget_ends", "ends_at"),
    )


class BudgetHold(Base):
    """Reservation of one model call in flight on one account, under the epoch of its attempt.

    It goes in the transaction that records the response. One of an attempt that is over counts no more.
    """

    __tablename__ = f"{CONF.table_prefix}budget_hold"

    hold_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    budget: Mapped[str] = mapped_column(PathText, primary_key=True, doc="Name of the account.")
    agent_id: Mapped[UUID] = mapped_column(
        ForeignKey(f"{CONF.table_prefix}activity.agent_id", ondelete="CASCADE"), doc="The task that calls."
    )
    epoch: Mapped[int] = mapped_column(Integer)
    path: Mapped[str] = mapped_column(PathText, doc="The run within the task.")
    seq: Mapped[int] = mapped_column(Integer, doc="The model call of the run.")
    nanos: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(f"ix_{CONF.table_prefix}budget_hold_budget", "budget"),
        Index(f"ix_{CONF.table_prefix}budget_hold_activity", "agent_id"),
    )
