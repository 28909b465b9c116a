"""Budgets: limits in dollars or tokens, as users write them, and the windows of AGENTEXEC_BUDGETS. No clock, no I/O."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID

from agentexec.arguments.checks import shown
from agentexec.errors import UsageError

NANOS = 1_000_000_000
"""Nanodollars in a dollar. A token of the cheapest models costs some of them, so sums of integers stay exact."""

MAX_AMOUNT = 2**62
"""Largest limit, which every database stores with what may be added to it."""

Unit = Literal["dollars", "tokens"]
OnBudget = Literal["fail", "wrap_up", "ask"]
Period = Literal["minute", "hour", "day", "week", "month"]

ANY_TASK = "*"
"""Name of the windows that count every task."""

MAX_ACCOUNT = 255
"""Maximum characters of an account's name."""

MAX_TITLE = 200
"""Characters of a label and its value that the record keeps of a window."""

SHOWN_TITLE = 60
"""Characters of them in a message or on a screen."""

MAX_ANCESTORS = 50
"""Enclosing tasks whose budgets a task counts for, the nearest ones."""

_SIGNS = re.compile(r"[/,]")
"""Characters that no label of a window has: it would be of another entry."""

# Plain digits only: an amount that a reader takes for another one is refused, not guessed.
_DOLLARS = re.compile(r"\$\s*([0-9]+)(?:\.([0-9]{1,9}))?")
_TOKENS = re.compile(r"([0-9]+)\s*tokens?", re.IGNORECASE | re.ASCII)


class Limit(NamedTuple):
    """Amount that may be spent: nanodollars or tokens."""

    unit: Unit
    amount: int

    def __str__(self) -> str:
        return format_amount(self.unit, self.amount)


class Window(NamedTuple):
    """Limit that tasks share in each period, by the value of a label; `label` is "*" for all tasks together."""

    label: str
    limit: Limit
    period: Period


class TaskBudget(NamedTuple):
    """Budget of a task: its own limit and policy, and the limits of the tasks that it counts for, the nearest first."""

    limit: Limit | None = None
    on_budget: OnBudget | None = None
    ancestors: tuple[tuple[UUID, Limit], ...] = ()


NO_BUDGET = TaskBudget()


def parse_limit(text: str) -> Limit:
    """Parse a limit like "$2.00" or "500000 tokens". Raises ValueError that says what to write instead."""
    if (match := _DOLLARS.fullmatch(text.strip())) is not None:
        amount, unit = int(match[1]) * NANOS + int((match[2] or "").ljust(9, "0")), "dollars"
    elif (match := _TOKENS.fullmatch(text.strip())) is not None:
        amount, unit = int(match[1]), "tokens"
    else:
        raise ValueError(f'{shown(text)} is not a budget; write it like "$2.00" or "500000 tokens"')
    if not 0 < amount <= MAX_AMOUNT:
        raise ValueError(f"{shown(text)} is not a budget; it must be above 0 and below 4 billion dollars")
    return Limit("dollars" if unit == "dollars" else "tokens", amount)


def checked_limit(name: str, value: Any) -> Limit | None:
    """Return a `budget=`, or None. Raises UsageError."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise UsageError(f'{name} must be a text like "$2.00" or "500000 tokens", not {shown(value)}.')
    try:
        return parse_limit(value)
    except ValueError as error:
        raise UsageError(f"{name}: {error}.") from None


def checked_policy(name: str, value: Any) -> OnBudget | None:
    """Return an `on_budget=`, or None. Raises UsageError."""
    if value is None:
        return None
    if not isinstance(value, str) or value not in get_args(OnBudget):
        raise UsageError(f'{name} must be "fail", "wrap_up" or "ask", not {shown(value)}.')
    policy: Any = value
    return policy


def parse_windows(text: str) -> tuple[Window, ...]:
    """Parse windows like "tenant=$50/day; *=$500/day". Raises ValueError that says what to write instead."""
    windows: list[Window] = []
    for entry in text.split(";"):
        if not entry.strip():
            continue
        label, equals, rest = entry.rpartition("=")
        limit, slash, period = rest.rpartition("/")
        label, period = label.strip(), period.strip().lower()
        # A budget for such a label would count for no task, without a word.
        if not (equals and label and slash) or period not in get_args(Period) or _SIGNS.search(label):
            raise ValueError(
                f"{shown(entry.strip())} is not a budget; write it like tenant=$50/day, with minute, hour, day, week or month, "
                "and part budgets by semicolons"
            )
        found: Any = period
        window = Window(label, parse_limit(limit), found)
        if any((window.label, window.limit.unit, window.period) == _kind(known) for known in windows):
            raise ValueError(f"{label} has two budgets in {window.limit.unit} per {period}; write one")
        windows.append(window)
    return tuple(windows)


def _kind(window: Window) -> tuple[str, Unit, Period]:
    return window.label, window.limit.unit, window.period


def bounds(period: Period, now: datetime) -> tuple[datetime, datetime]:
    """Return begin and end of the period in which a moment is, in UTC; weeks begin on Monday."""
    minute = now.replace(second=0, microsecond=0)
    day = minute.replace(hour=0, minute=0)
    if period == "minute":
        return minute, minute + timedelta(minutes=1)
    if period == "hour":
        hour = minute.replace(minute=0)
        return hour, hour + timedelta(hours=1)
    if period == "day":
        return day, day + timedelta(days=1)
    if period == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    first = day.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def task_account(agent_id: UUID) -> str:
    """Return the name of the account of a task's own budget."""
    return f"task:{agent_id}"


def window_account(window: Window, title: str, begin: datetime) -> str:
    """Return the name of the account of one window; a long title is replaced by its hash."""
    tail = f"/{window.limit.unit}/{window.period}/{begin:%Y-%m-%dT%H:%M}"
    name = f"{title}{tail}"
    if len(name) <= MAX_ACCOUNT and not name.startswith("task:"):
        return name
    return f"#{hashlib.sha256(title.encode('utf-8', 'replace')).hexdigest()}{tail}"


def dump_budget(budget: TaskBudget) -> str | None:
    """Return a task's budget as the record keeps it; None if there is none."""
    if budget == NO_BUDGET:
        return None
    data: dict[str, Any] = {}
    if budget.limit is not None:
        data["limit"] = list(budget.limit)
    if budget.on_budget is not None:
        data["on_budget"] = budget.on_budget
    if budget.ancestors:
        data["ancestors"] = [[str(agent_id), *limit] for agent_id, limit in budget.ancestors]
    return json.dumps(data, separators=(",", ":"))


def load_budget(text: str | None) -> TaskBudget:
    """Return what `dump_budget` was given. Raises ValueError for anything else: a damaged budget is not no budget."""
    if text is None:
        return NO_BUDGET
    try:
        data = json.loads(text)
        limit, policy = data.get("limit"), data.get("on_budget")
        if policy is not None and policy not in get_args(OnBudget):
            raise ValueError
        ancestors = [(UUID(agent_id), _limit(rest)) for agent_id, *rest in data.get("ancestors", ())]
        own = None if limit is None else _limit(limit)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise ValueError("the budget in the task's row is damaged") from None
    return TaskBudget(own, policy, tuple(ancestors[:MAX_ANCESTORS]))


def _limit(parts: Sequence[Any]) -> Limit:
    unit, amount = parts
    if unit not in get_args(Unit) or type(amount) is not int or not 0 < amount <= MAX_AMOUNT:
        raise ValueError
    return Limit(unit, amount)


def inherit_budget(child: TaskBudget, parent_id: UUID, parent: TaskBudget) -> TaskBudget:
    """Return the budget of a child, which counts for all that its parent counts for, and takes over the parent's policy."""
    own = () if parent.limit is None else ((parent_id, parent.limit),)
    ancestors = (*own, *parent.ancestors)[:MAX_ANCESTORS]
    return TaskBudget(child.limit, child.on_budget or parent.on_budget, ancestors)


def without_ancestors(text: str | None) -> str | None:
    """Return a stored budget for a task that has no parent; a damaged one as it is, for the worker to refuse."""
    try:
        return dump_budget(load_budget(text)._replace(ancestors=()))
    except ValueError:
        return text


def effective_budget(given: TaskBudget, declared: TaskBudget) -> TaskBudget:
    """Return the budget of a task: what its enqueue gave, else what its definition declares."""
    if declared == NO_BUDGET:
        return given
    return TaskBudget(given.limit or declared.limit, given.on_budget or declared.on_budget, given.ancestors)


def format_amount(unit: str, amount: int) -> str:
    """Return an amount for people, like "$2.00" or "500,000 tokens"."""
    if unit == "tokens":
        return f"{amount:,} tokens"
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    fraction = f"{amount % NANOS:09d}".rstrip("0").ljust(2, "0")
    if len(fraction) > 4 and amount >= NANOS // 10_000:
        # Four places are enough for people; a smaller amount shows its first digits.
        rounded = round(amount / NANOS * 10_000)
        return f"{sign}${rounded // 10_000:,}.{rounded % 10_000:04d}"
    return f"{sign}${amount // NANOS:,}.{fraction}"


def short_title(title: str, characters: int = SHOWN_TITLE) -> str:
    """Return the title of a budget for a message; the rest of a long one is left out."""
    return title if len(title) <= characters else f"{title[: characters - 1]}…"


def label_text(value: Any) -> str | None:
    """Return the value of a label as the name of an account shows it; None for null.

    A list or an object has a budget of its own, under its JSON text with sorted keys: it must not escape the window.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def accounts_of_labels(
    windows: Sequence[Window], labels: Mapping[str, Any], now: datetime
) -> list[tuple[str, str, Window, tuple[datetime, datetime]]]:
    """Return name, title, window and bounds of each window that a task with these labels counts for."""
    found = []
    for window in windows:
        title = ANY_TASK
        if window.label != ANY_TASK:
            value = label_text(labels.get(window.label))
            if value is None:
                continue
            title = f"{window.label}={value}"
        period = bounds(window.period, now)
        name = window_account(window, title, period[0])
        found.append((name, short_title(title, MAX_TITLE), window, period))
    return found
