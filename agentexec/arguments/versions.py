"""Versions of code, of a worker and of single tasks, and what is done with a run that the code at hand cannot replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agentexec.arguments.checks import check_flag, check_integer, check_text, shown
from agentexec.errors import UsageError

MAX_VERSION = 100
"""Maximum characters of a version."""

MAX_RESTARTS = 3
"""Restarts of a run by one version of the code, by default."""

DivergencePolicy = Literal["fail", "restart", "ask"]


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart of a run that the code at hand cannot replay: `@pool.task(on_divergence=ax.Restart(tell_effects=True))`.

    The journal of the old run is kept as history, and the run begins with the first line of the handler.

    Attributes:
        ask: Ask a person first, as an approval. A rejected restart ends the task with `ax.ReplayDivergedError`.
        tell_effects: Tell each agent which of its calls took effect in the old run, in a message after its input.
        limit: Restarts of a task by one version of the code. Then the task ends with `ax.ReplayDivergedError`, as code that
            diverges every time would go on for ever.

    Raises:
        UsageError: A value is of another type, or `limit` is less than 1.
    """

    ask: bool = False
    tell_effects: bool = False
    limit: int = MAX_RESTARTS

    def __post_init__(self) -> None:
        check_flag("ask=", self.ask)
        check_flag("tell_effects=", self.tell_effects)
        check_integer("limit=", self.limit)


def checked_version(name: str, value: Any) -> str | None:
    """Return a version, or None. Raises UsageError for what is not a text of 1 to MAX_VERSION characters."""
    return None if value is None else check_text(name, value, MAX_VERSION)


def checked_divergence(name: str, value: Any) -> DivergencePolicy | Restart | None:
    """Return an `on_divergence`, or None. Raises UsageError for anything else."""
    if value is None or isinstance(value, Restart) or value in ("fail", "restart", "ask"):
        return value
    raise UsageError(f'{name} must be "fail", "restart", "ask" or an ax.Restart, not {shown(value)}.')


def restart_of(policy: DivergencePolicy | Restart) -> Restart | None:
    """Return the restart that a policy allows; None for "fail"."""
    if isinstance(policy, Restart):
        return policy
    return None if policy == "fail" else Restart(ask=policy == "ask")
