"""Budgets for people to read: spent, reserved and limit."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from agentexec.activity.budget_models import Budget, BudgetHold
from agentexec.activity.models import Activity
from agentexec.activity.schemas import BudgetSchema
from agentexec.arguments.budgets import NANOS, load_budget, task_account
from agentexec.task import Status

MAX_WINDOWS = 20
"""Shared budgets that are shown: those of which the largest part is spent."""

MAX_READ = 1000
"""Shared budgets that are looked at."""

_HELD = (
    select(BudgetHold.budget, func.sum(BudgetHold.nanos), func.sum(BudgetHold.tokens))
    .join(Activity, Activity.agent_id == BudgetHold.agent_id)
    # What an attempt that is over has reserved counts no more.
    .where(Activity.epoch == BudgetHold.epoch, Activity.status == Status.RUNNING)
    .group_by(BudgetHold.budget)
)


def budget_of(db: Session, agent_id: UUID, stored: str | None) -> BudgetSchema | None:
    """Return the budget of a task; `stored` is the one in its row, which has spent nothing before its first call."""
    found = _read(db, Budget.name == task_account(agent_id))
    if found:
        return found[0]
    try:
        limit = load_budget(stored).limit
    except ValueError:
        return None
    if limit is None:
        return None
    scale = NANOS if limit.unit == "dollars" else 1
    return BudgetSchema(title="task", unit=limit.unit, limit=limit.amount / scale, spent=0, reserved=0)


def open_windows(db: Session, now: datetime) -> list[BudgetSchema]:
    """Return the shared budgets of the present periods, at most MAX_WINDOWS."""
    return _read(db, Budget.ends_at > now, Budget.starts_at <= now)


def _read(db: Session, *conditions: ColumnElement[bool]) -> list[BudgetSchema]:
    rows = db.execute(select(Budget.__table__).where(*conditions).limit(MAX_READ)).all()
    if not rows:
        return []
    shown = sorted(rows, key=_part_spent, reverse=True)[:MAX_WINDOWS]
    held = {
        name: (int(nanos), int(tokens))
        for name, nanos, tokens in db.execute(_HELD.where(BudgetHold.budget.in_([row.name for row in shown])))
    }
    return [_schema(row, *held.get(row.name, (0, 0))) for row in shown]


def _part_spent(row: Any) -> float:
    return (row.spent_nanos if row.unit == "dollars" else row.spent_tokens) / max(1, row.amount + row.raised)


def _schema(row: Any, nanos: int, tokens: int) -> BudgetSchema:
    is_dollars = row.unit == "dollars"
    scale = NANOS if is_dollars else 1
    return BudgetSchema(
        title=row.title,
        unit="dollars" if is_dollars else "tokens",
        limit=(row.amount + row.raised) / scale,
        spent=(row.spent_nanos if is_dollars else row.spent_tokens) / scale,
        reserved=(nanos if is_dollars else tokens) / scale,
        period=row.period,
        ends_at=row.ends_at,
    )
