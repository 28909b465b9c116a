"""The ledger of budgets: what a recorded response has spent is added in the transaction that records it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, bindparam, case, delete, select, update

from agentexec.activity.budget_models import Budget, BudgetHold
from agentexec.activity.models import Activity
from agentexec.arguments.budgets import NO_BUDGET, Limit, dump_budget, load_budget, task_account

BUDGET: Any = Budget.__table__
HOLD: Any = BudgetHold.__table__
_ACTIVITY: Any = Activity.__table__

_ADD_SPENT = (
    update(BUDGET)
    .where(BUDGET.c.name == bindparam("account"))
    .values(
        spent_nanos=BUDGET.c.spent_nanos + bindparam("nanos"),
        spent_tokens=BUDGET.c.spent_tokens + bindparam("tokens"),
        updated_at=bindparam("now", type_=BUDGET.c.updated_at.type),
    )
)
DELETE_HOLD = delete(HOLD).where(HOLD.c.hold_id == bindparam("id", type_=HOLD.c.hold_id.type))


class Charge(NamedTuple):
    """Cost of a response, for the accounts on which its call has a hold, in the order in which the database locks them."""

    hold_id: UUID
    accounts: tuple[str, ...]
    nanos: int
    tokens: int


def settle(connection: Connection, charge: Charge, now: datetime) -> None:
    """Turn the hold of a call into what it has spent, in statements that may be `batched`."""
    for account in charge.accounts:
        values = {"account": account, "nanos": charge.nanos, "tokens": charge.tokens, "now": now}
        connection.execute(_ADD_SPENT, values)
    connection.execute(DELETE_HOLD, {"id": charge.hold_id})


def replace_limit(connection: Connection, agent_id: UUID, limit: Limit, now: datetime) -> None:
    """Give a task whose row is locked another limit. What it has spent stays, and what people have added to its limit."""
    this_task = _ACTIVITY.c.agent_id == agent_id
    try:
        budget = load_budget(connection.execute(select(_ACTIVITY.c.budget).where(this_task)).scalar_one())
    except ValueError:
        budget = NO_BUDGET  # a damaged one ends each attempt, until it is replaced
    stored = dump_budget(budget._replace(limit=limit))
    connection.execute(update(_ACTIVITY).where(this_task).values(budget=stored))
    # Its children read the limit in the account, perhaps before its own next call.
    connection.execute(
        update(BUDGET)
        .where(BUDGET.c.name == task_account(agent_id))
        .values(
            raised=case((BUDGET.c.unit == limit.unit, BUDGET.c.raised), else_=0),
            unit=limit.unit,
            amount=limit.amount,
            updated_at=now,
        )
    )


def has_limit(connection: Connection, account: str, limit: int) -> bool:
    """Return True if an account has this limit now, raises included, and lock it.

    Whoever sets a limit changes this row first and then looks for the questions about it. So each sees the other.
    """
    query = select(BUDGET.c.amount + BUDGET.c.raised).where(BUDGET.c.name == account)
    return connection.execute(query.with_for_update()).scalar() == limit
