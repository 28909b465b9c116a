"""Options of locks and limits: the keys of a task, as templates and as texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentexec.arguments.checks import check_integer
from agentexec.arguments.key_templates import check_template, fill_template
from agentexec.errors import ContextInvalidError, UsageError

MAX_KEY = 200
"""Characters of the longest lock key or concurrency key."""

MAX_CONCURRENCY = 1_000_000
"""Largest limit of concurrency."""


def checked_groups(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a handler that say how many of its tasks run at once. Raises UsageError."""
    lock_key, limit, key = (options.get(part) for part in ("lock_key", "concurrency", "concurrency_key"))
    if key is not None and limit is None:
        raise UsageError(
            f"Task {name}: concurrency_key needs concurrency=, the number of tasks with one key."
        )
    return {
        "lock_key": None if lock_key is None else check_template(f"Task {name}: lock_key", lock_key, MAX_KEY),
        "concurrency": None
        if limit is None
        else check_integer(f"Task {name}: concurrency", limit, minimum=1, maximum=MAX_CONCURRENCY),
        "concurrency_key": None
        if key is None
        else check_template(f"Task {name}: concurrency_key", key, MAX_KEY),
    }


def fill_key(option: str, task_name: str, template: str | None, context: str | None) -> str | None:
    """Return a key of a task with this context, which is JSON text; None without a template.

    Raises ContextInvalidError if the context lacks a field, or if the field is null: such tasks would share a key.
    """
    if template is None:
        return None
    name = f"The {option} of task {task_name}"
    key = fill_template(name, template, context, MAX_KEY)
    if key is None:
        raise ContextInvalidError(f"{name} names a field of the context that is null.")
    return key


def fill_concurrency_key(
    task_name: str, limit: int | None, template: str | None, context: str | None
) -> str | None:
    """Return the key of a task's limit: empty for the limit of all tasks of its name, None without a limit."""
    return None if limit is None else fill_key("concurrency_key", task_name, template, context) or ""
