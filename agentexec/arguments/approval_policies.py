"""Policies of approvals: which tools ask, how long a question waits, and who is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from agentexec.arguments.argument_patterns import matches_glob
from agentexec.arguments.checks import check_mapping, check_seconds, check_text, shown
from agentexec.arguments.webhooks import check_url
from agentexec.errors import UsageError

Risk = Literal["safe", "ask", "never"]

RISKS: tuple[Risk, ...] = ("safe", "ask", "never")

DEFAULTS = ("reject", "approve")

MAX_PATTERNS = 500
"""Maximum number of patterns of tools in one policy."""

MAX_PATTERN = 200
"""Maximum characters of a pattern."""

MIN_REMINDER = 1.0
"""Shortest time between two reminders in seconds."""


def _seconds(name: str, value: Any, minimum: float) -> float | None:
    return None if value is None else check_seconds(name, value, minimum=minimum)


def _as_float(value: Any) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True)
class ApprovalPolicy:
    """Policy of approvals, for all tasks of a pool (`ax.Pool(approvals=)`) or for one task (`@pool.task(approvals=)`).

    What a task's policy leaves out is taken from the pool's. Of `tools`, the task's patterns come first.

    Args:
        tools: Risk of tools by name or pattern, such as `{"read_*": "safe", "refund": "ask", "drop_*": "never"}`; the first
            pattern that matches counts. "ask" asks a person before each call, "never" refuses each call and tells the model,
            "safe" adds nothing. The stricter of this and the tool's own `needs_approval` counts, so a "safe" tool with
            `needs_approval=True` still asks.
        timeout: Seconds, or a timedelta, after which a question that nobody has answered gets its default answer;
            `approval_timeout` of a runner takes precedence. None waits without limit.
        default: The answer after that time, "reject" (the default) or "approve". Only for calls of tools: a budget is never
            raised, and a call that was cut off never repeated, without a person.
        reminder: Seconds, or a timedelta, after which hooks and webhook are told again about a question that is still
            open, and then each time after as long, 20 times at most. None never reminds.
        webhook: URL that is told of each question and reminder, signed like the messages about the ends of tasks.

    Raises:
        UsageError: An argument is invalid.
    """

    tools: Mapping[str, Risk] = field(default_factory=dict)
    timeout: float | timedelta | None = None
    default: Literal["reject", "approve"] | None = None
    reminder: float | timedelta | None = None
    webhook: str | None = None

    def __post_init__(self) -> None:
        tools = dict(check_mapping("tools=", self.tools, maximum=MAX_PATTERNS))
        for pattern, risk in tools.items():
            check_text("A pattern of tools=", pattern, MAX_PATTERN)
            if risk not in RISKS:
                raise UsageError(
                    f"tools[{shown(pattern)}] must be one of {', '.join(RISKS)}, not {shown(risk)}."
                )
        if self.default not in (None, *DEFAULTS):
            raise UsageError(f"default= must be reject or approve, not {shown(self.default)}.")
        object.__setattr__(self, "tools", tools)
        object.__setattr__(self, "timeout", _seconds("timeout=", self.timeout, 0.0))
        object.__setattr__(self, "reminder", _seconds("reminder=", self.reminder, MIN_REMINDER))
        if self.webhook is not None:
            check_url("webhook=", self.webhook)

    @property
    def timeout_seconds(self) -> float | None:
        """Seconds after which a question gets its default answer; None if it never does."""
        return _as_float(self.timeout)

    @property
    def reminder_seconds(self) -> float | None:
        """Seconds between two reminders; None if there are none."""
        return _as_float(self.reminder)

    def risk_of(self, tool: str) -> Risk:
        """Return the risk of a tool: that of the first pattern that matches, else "safe"."""
        return next((risk for pattern, risk in self.tools.items() if matches_glob(pattern, tool)), "safe")

    def within(self, outer: ApprovalPolicy) -> ApprovalPolicy:
        """Return the policy of a task, whose pool has another one."""
        if outer is NO_POLICY or outer == self:
            return self
        if self is NO_POLICY:
            return outer
        # In this order: the first match counts.
        rest = {pattern: risk for pattern, risk in outer.tools.items() if pattern not in self.tools}
        return ApprovalPolicy(
            {**self.tools, **rest},
            timeout=outer.timeout if self.timeout is None else self.timeout,
            default=self.default or outer.default,
            reminder=outer.reminder if self.reminder is None else self.reminder,
            webhook=self.webhook or outer.webhook,
        )


NO_POLICY = ApprovalPolicy()
"""Policy of tasks that declare none."""


def checked_approvals(name: str, value: Any) -> ApprovalPolicy:
    """Return a policy that was given as an option. Raises UsageError."""
    if value is None:
        return NO_POLICY
    if not isinstance(value, ApprovalPolicy):
        raise UsageError(f"{name} must be an ax.ApprovalPolicy, not {shown(value)}.")
    return value
