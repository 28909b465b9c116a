"""Budgets of tasks that have not ended: another limit, which counts from the next model call."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from agentexec.activity.changes.endings import with_log_line
from agentexec.activity.changes.progress import add_log_lines
from agentexec.activity.changes.statements import ACTIVITY
from agentexec.activity.queries.handle import find_task
from agentexec.arguments.actors import actor_name, checked_source, phrase
from agentexec.arguments.budgets import Limit, checked_limit, load_budget, task_account
from agentexec.client.approval_rules import wake_answered
from agentexec.db.chunks import chunks
from agentexec.db.clock import utc_now
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import writing
from agentexec.errors import UsageError
from agentexec.journal.ledger import BUDGET, replace_limit
from agentexec.journal.questions import APPROVED, Reply
from agentexec.journal.raises import answer_raises, note_answers, untold_tasks
from agentexec.journal.reservations import account_of_task, open_account
from agentexec.outage import wait_out
from agentexec.runtime import RUNTIME
from agentexec.task import Task, agent_id_of


class NewLimit(NamedTuple):
    """Another limit of a task, and who sets it."""

    agent_id: UUID
    limit: Limit
    by: str | None
    source: str
    now: datetime

    @property
    def message(self) -> str:
        """Line of the task's log."""
        return f"Budget set to {self.limit}{phrase(self.by)}."

    @property
    def reply(self) -> Reply:
        """Answer to the questions whether the budget is raised."""
        return Reply(APPROVED, self.source, by=self.by, reason=f"The budget is {self.limit} now.")


async def set_budget(
    task: Task | UUID | str,
    budget: str,
    *,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
    source: str | None = None,
) -> bool:
    """Give a task that has not ended another limit of what it may spend in all, children included.

    It counts from the next model call, of the task itself and of its children, and what has been spent stays counted. Where they
    wait for a person to raise this budget, the question is answered and they go on. A task that has had no budget
    keeps to it from its next attempt. For a task that has ended, call `ax.retry` with `budget=`.

    Args:
        task: Handle or agent_id of the task.
        budget: The new limit, like "$5.00" or "500000 tokens", in the unit of the present one. What approvals have added
            to the limit stays added.
        metadata_filter: Labels that the task must have, as for `ax.activity.detail`.
        by: Name of who does it, for the task's log.
        source: From where, for the record of the questions that this answers; by default "code" and the name of this host.

    Returns:
        False if the task has ended.

    Raises:
        ActivityNotFoundError: No task has this agent_id and these labels.
        UsageError: The budget is not an amount, or in another unit than the present one.
        UnavailableError: The database cannot be reached. Inside a task, the call waits for it.
    """
    return await RUNTIME.run_patiently(_set_budget, _new_limit(task, budget, by, source), metadata_filter)


def set_budget_sync(
    task: Task | UUID | str,
    budget: str,
    *,
    metadata_filter: Mapping[str, Any] | None = None,
    by: str | None = None,
    source: str | None = None,
) -> bool:
    """Set a budget: `set_budget` for code without an event loop, with the same arguments, result and errors."""
    return wait_out(_set_budget, _new_limit(task, budget, by, source), metadata_filter)


def _new_limit(task: Task | UUID | str, budget: str, by: str | None, source: str | None) -> NewLimit:
    limit = checked_limit("budget=", budget)
    if limit is None:
        raise UsageError('budget= must be a text like "$2.00" or "500000 tokens".')
    name = None if by is None else actor_name(by)
    return NewLimit(agent_id_of(task), limit, name, checked_source(source), utc_now())


def _set_budget(new: NewLimit, metadata_filter: Mapping[str, Any] | None) -> bool:
    """Set a budget. May be called again with the same arguments after UnavailableError."""
    find_task(RUNTIME.engine, new.agent_id, metadata_filter)
    # Children read the limit in the account, perhaps before the task's own first call.
    open_account(RUNTIME.engine, account_of_task(new.agent_id, new.limit, own=True), new.now)
    if not _record(new):
        return False
    for chunk in chunks(untold_tasks(RUNTIME.engine, new.now)):
        note_answers(RUNTIME.engine, chunk, new.reply, new.now)
        wake_answered(chunk)
    return True


@retry_on_deadlock
def _record(new: NewLimit) -> bool:
    with writing(RUNTIME.engine) as connection:
        query = select(ACTIVITY.c.status, ACTIVITY.c.budget)
        mine = ACTIVITY.c.agent_id == new.agent_id
        row = connection.execute(query.where(mine).with_for_update()).one_or_none()
        if row is None or row.status.final:
            return False
        if with_log_line(connection, [new.agent_id], new.message, new.now):
            return True  # an earlier try has done it, whose commit was not confirmed
        _require_unit(connection, row.budget, new)
        replace_limit(connection, new.agent_id, new.limit, new.now)
        answer_raises(connection, new.agent_id, new.reply, new.now)
        add_log_lines(connection, {new.agent_id: [new.message]}, new.now)
        return True


def _require_unit(connection: Connection, stored: str | None, new: NewLimit) -> None:
    """Raise UsageError for a limit in another unit: calls in flight, and the attempt that runs, count in the present one."""
    try:
        limit = load_budget(stored).limit
    except ValueError:
        return  # a damaged one ends each attempt, until it is replaced
    unit = None if limit is None else limit.unit
    if unit is None:
        query = select(BUDGET.c.unit).where(BUDGET.c.name == task_account(new.agent_id))
        unit = connection.execute(query).scalar()
    if unit is not None and unit != new.limit.unit:
        raise UsageError(f"The budget of task {new.agent_id} is in {unit}; give budget= in {unit} too.")
