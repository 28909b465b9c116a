"""Reservations of budgets: each model call holds what it is expected to cost, until its response is recorded.

A hold counts while its attempt runs: those of a task that went on under another epoch, or has ended, are removed before
a call is refused. So a killed worker's holds need no repair, and nothing is released twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from agentexec.arguments.budgets import MAX_AMOUNT, Limit, Period, load_budget, task_account
from agentexec.db.chunks import chunks
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.round_trips import batched
from agentexec.db.transactions import reading, writing
from agentexec.errors import LeaseLostError
from agentexec.journal.ledger import BUDGET, DELETE_HOLD, HOLD
from agentexec.journal.store import ACTIVITY, require_lease
from agentexec.task import Lease, Status

KEPT_DAYS = 40
"""Days after its end for which the account of a window is kept."""

TASK = "task"
"""Title of the account of a task."""


class Account(NamedTuple):
    """Account that a model call counts for, and its limit. `agent_id` is the task's that has it, None for a window."""

    name: str
    title: str
    limit: Limit
    agent_id: UUID | None = None
    sets_limit: bool = True
    """True if its limit replaces the recorded one: the newest declaration counts."""
    period: Period | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None


def account_of_task(agent_id: UUID, limit: Limit, *, own: bool) -> Account:
    """Return the account of a task; `own`: the task itself uses it, not one of its children."""
    return Account(task_account(agent_id), TASK, limit, agent_id, own)


@dataclass(frozen=True, slots=True)
class Claim:
    """Amounts that a model call wants to reserve. Its place, `path` and `seq`, is the same in every attempt."""

    path: str
    seq: int
    nanos: int
    tokens: int
    is_forced: bool = False
    """True for the call with which an agent wraps up, and for one that is made already: it may exceed the limit."""
    raises: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Raises by people: for each approval, the account and the amount."""


class Hold(NamedTuple):
    """A reservation that was made."""

    hold_id: UUID
    accounts: tuple[str, ...]


class Refusal(NamedTuple):
    """A limit that a call does not fit into. All amounts are in its unit."""

    account: Account
    limit: int
    spent: int
    reserved: int
    wanted: int

    @property
    def may_pass(self) -> bool:
        """True if only calls in flight stand in the way, which may turn out to cost less."""
        return self.reserved > 0 and self.spent + self.wanted <= self.limit


@retry_on_deadlock
def reserve(
    engine: Engine, lease: Lease, accounts: Sequence[Account], claim: Claim, now: datetime
) -> Hold | Refusal:
    """Reserve what a call is expected to cost, in all accounts or in none; it replaces what the same call had reserved.

    Raises LeaseLostError if another worker has the task, UnavailableError.
    """
    while True:
        outcome = _reserve(engine, lease, accounts, claim, now)
        if not isinstance(outcome, list):
            return outcome
        gone = {account.name for account in outcome if not open_account(engine, account, now)}
        accounts = [account for account in accounts if account.name not in gone]


def _reserve(
    engine: Engine, lease: Lease, accounts: Sequence[Account], claim: Claim, now: datetime
) -> Hold | Refusal | list[Account]:
    """Reserve, or return the accounts that are to be opened first."""
    with writing(engine, relaxed=True) as connection:
        row = require_lease(connection, lease, ACTIVITY.c.budget)
        accounts = _with_limit(accounts, lease, row.budget)
        names = [account.name for account in accounts]
        query = select(BUDGET).where(BUDGET.c.name.in_(names)).order_by(BUDGET.c.name).with_for_update()
        rows = {row.name: row for row in connection.execute(query)}
        missing = [account for account in accounts if account.name not in rows]
        if missing:
            return missing
        changes = {account.name: _changes(account, rows[account.name], claim) for account in accounts}
        updates = {name: {**changed, "updated_at": now} for name, changed in changes.items() if changed}
        refusal = None
        if not claim.is_forced:
            refusal = _first_refusal(connection, accounts, rows, changes, lease, claim)
        if refusal is not None:
            _write_updates(connection, updates)
            return refusal
        hold = Hold(uuid4(), tuple(rows))
        with batched(connection, commit=True):
            _write_updates(connection, updates)
            connection.execute(delete(HOLD).where(_replaced(lease, claim)))
            connection.execute(insert(HOLD), [_hold_row(hold, name, lease, claim, now) for name in rows])
        return hold


def _with_limit(accounts: Sequence[Account], lease: Lease, stored: str | None) -> Sequence[Account]:
    """Return accounts with the limit that the task has now: somebody may have changed it since the attempt began."""
    try:
        limit = load_budget(stored).limit
    except ValueError:
        limit = None  # the next attempt says so
    if limit is None:
        return accounts
    return [
        account._replace(limit=limit)
        if account.agent_id == lease.agent_id and account.limit.unit == limit.unit
        else account
        for account in accounts
    ]


def _first_refusal(
    connection: Connection,
    accounts: Sequence[Account],
    rows: Mapping[str, Any],
    changes: Mapping[str, dict[str, Any]],
    lease: Lease,
    claim: Claim,
) -> Refusal | None:
    """Return the first limit that a call does not fit into, without the holds of attempts that are over."""
    totals = _held(connection, list(rows), lease, claim)
    for account in accounts:
        row, changed = rows[account.name], changes[account.name]
        refusal = _refusal(account, row, changed, totals, claim)
        if refusal is not None and refusal.reserved and _drop_dead_holds(connection, account.name):
            totals |= _held(connection, [account.name], lease, claim, empty=True)
            refusal = _refusal(account, row, changed, totals, claim)
        if refusal is not None:
            return refusal
    return None


def _replaced(lease: Lease, claim: Claim) -> Any:
    """Return the condition for what the same call, or an earlier attempt, has reserved."""
    same_call = and_(HOLD.c.path == claim.path, HOLD.c.seq == claim.seq)
    return and_(HOLD.c.agent_id == lease.agent_id, or_(HOLD.c.epoch < lease.epoch, same_call))


def _held(
    connection: Connection, names: Sequence[str], lease: Lease, claim: Claim, *, empty: bool = False
) -> dict[str, tuple[int, int]]:
    """Return the nanodollars and tokens that others hold of each account; `empty`: also of those without a hold."""
    query = (
        select(HOLD.c.budget, func.sum(HOLD.c.nanos), func.sum(HOLD.c.tokens))
        .where(HOLD.c.budget.in_(names), ~_replaced(lease, claim))
        .group_by(HOLD.c.budget)
    )
    found = {name: (int(nanos), int(tokens)) for name, nanos, tokens in connection.execute(query)}
    return {**dict.fromkeys(names, (0, 0)), **found} if empty else found


def _changes(account: Account, row: Any, claim: Claim) -> dict[str, Any]:
    """Return what changes in an account: its limit, by the newest declaration or by approvals that were not counted."""
    changes: dict[str, Any] = {}
    if account.sets_limit and (row.unit, row.amount) != tuple(account.limit):
        changes |= {"unit": account.limit.unit, "amount": account.limit.amount}
    if changes.get("unit", row.unit) != row.unit:
        changes["raised"] = 0  # it was in the other unit
    known = _known_raises(row)
    new = {key: amount for key, (name, amount) in claim.raises.items() if name == account.name}
    if new.keys() - set(known):
        more = sum(amount for key, amount in new.items() if key not in known)
        changes["raised"] = min(changes.get("raised", row.raised) + more, MAX_AMOUNT)
        changes["raises"] = json.dumps(sorted({*known, *new}))
    return changes


def _known_raises(row: Any) -> list[str]:
    try:
        found = json.loads(row.raises)
    except (ValueError, TypeError, RecursionError):
        return []
    return [key for key in found if isinstance(key, str)] if isinstance(found, list) else []


def _refusal(
    account: Account,
    row: Any,
    changes: Mapping[str, Any],
    totals: Mapping[str, tuple[int, int]],
    claim: Claim,
) -> Refusal | None:
    unit = changes.get("unit", row.unit)
    limit = changes.get("amount", row.amount) + changes.get("raised", row.raised)
    held = totals.get(row.name, (0, 0))
    if unit == "tokens":
        spent, reserved, wanted = row.spent_tokens, held[1], claim.tokens
    else:
        spent, reserved, wanted = row.spent_nanos, held[0], claim.nanos
    if spent + reserved + wanted <= limit:
        return None
    # A child knows the limit of its parent as it was when the child was enqueued.
    declared = Limit(unit, changes.get("amount", row.amount))
    return Refusal(account._replace(limit=declared), limit, spent, reserved, wanted)


def _drop_dead_holds(connection: Connection, name: str) -> int:
    """Remove the holds of attempts that are over: of killed workers, and of calls whose end could not be noted."""
    alive = (
        select(ACTIVITY.c.agent_id)
        .where(
            ACTIVITY.c.agent_id == HOLD.c.agent_id,
            ACTIVITY.c.epoch == HOLD.c.epoch,
            ACTIVITY.c.status == Status.RUNNING,
        )
        .exists()
    )
    # Read first: on MySQL, a DELETE would wait for the rows of all these tasks, whose owners may wait for this account.
    dead = list(connection.execute(select(HOLD.c.hold_id).where(HOLD.c.budget == name, ~alive)).scalars())
    for chunk in chunks(dead):
        connection.execute(delete(HOLD).where(HOLD.c.hold_id.in_(chunk), HOLD.c.budget == name))
    return len(dead)


def _write_updates(connection: Connection, updates: Mapping[str, dict[str, Any]]) -> None:
    for name, values in updates.items():
        connection.execute(update(BUDGET).where(BUDGET.c.name == name).values(values))


def _hold_row(hold: Hold, name: str, lease: Lease, claim: Claim, now: datetime) -> dict[str, Any]:
    return {
        "hold_id": hold.hold_id,
        "budget": name,
        "agent_id": lease.agent_id,
        "epoch": lease.epoch,
        "path": claim.path,
        "seq": claim.seq,
        "nanos": claim.nanos,
        "tokens": claim.tokens,
        "created_at": now,
    }


def open_account(engine: Engine, account: Account, now: datetime) -> bool:
    """Add an account, unless another process just did; return False if its task is gone from the record.

    In a transaction of its own: in the caller's, two processes that open several accounts could wait for each other.
    """
    values = {
        "name": account.name,
        "title": account.title,
        "agent_id": account.agent_id,
        "unit": account.limit.unit,
        "amount": account.limit.amount,
        "raised": 0,
        "raises": "[]",
        "spent_nanos": 0,
        "spent_tokens": 0,
        "period": account.period,
        "starts_at": account.starts_at,
        "ends_at": account.ends_at,
        "updated_at": now,
    }
    try:
        with writing(engine) as connection:
            if account.ends_at is not None:
                over = BUDGET.c.ends_at < now - timedelta(days=KEPT_DAYS)
                connection.execute(delete(BUDGET).where(over))
            connection.execute(insert(BUDGET), values)
    except IntegrityError:
        with reading(engine) as connection:
            query = select(BUDGET.c.name).where(BUDGET.c.name == account.name)
            return connection.execute(query).one_or_none() is not None
    return True


def release(engine: Engine, hold: Hold) -> None:
    """Give back what a failed call has reserved; nothing happens if its response is recorded. Raises UnavailableError."""
    with writing(engine, relaxed=True) as connection:
        connection.execute(DELETE_HOLD, {"id": hold.hold_id})


def read_labels(engine: Engine, lease: Lease) -> dict[str, Any]:
    """Return the metadata of a task. Raises LeaseLostError if the task is gone, UnavailableError."""
    with reading(engine) as connection:
        row = connection.execute(
            select(ACTIVITY.c["metadata"]).where(ACTIVITY.c.agent_id == lease.agent_id)
        ).one_or_none()
    if row is None:
        raise LeaseLostError(lease.agent_id)
    return row[0] or {}
