"""Budgets of one attempt: the accounts that its model calls count for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from agentexec.arguments.budgets import NO_BUDGET, TaskBudget, accounts_of_labels, parse_windows
from agentexec.journal.reservations import Account, account_of_task
from agentexec.task import Lease


class AttemptBudget:
    """The budget of the task that an attempt runs, and what the attempt knows about it."""

    def __init__(self) -> None:
        self.task: TaskBudget = NO_BUDGET
        self.labels: Mapping[str, Any] | None = None
        """The task's metadata; None until a window needs it."""
        self.has_wrapped_up = False
        """True once an agent has had its last call: runs that start later get none."""

    def is_limited(self, windows: str) -> bool:
        """Return True if a model call may count for an account; `windows` is AGENTEXEC_BUDGETS."""
        return bool(windows) or self.task.limit is not None or bool(self.task.ancestors)

    def accounts(self, lease: Lease, windows: str, labels: Mapping[str, Any], now: datetime) -> list[Account]:
        """Return the accounts that a call counts for: of the task, of those that it counts for, and of the windows."""
        found: list[Account] = []
        if self.task.limit is not None:
            found.append(account_of_task(lease.agent_id, self.task.limit, own=True))
        found += [account_of_task(agent_id, limit, own=False) for agent_id, limit in self.task.ancestors]
        for name, title, window, (begin, end) in accounts_of_labels(parse_windows(windows), labels, now):
            found.append(
                Account(name, title, window.limit, period=window.period, starts_at=begin, ends_at=end)
            )
        return found
