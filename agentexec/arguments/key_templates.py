"""Keys of tasks, such as "user:{user_id}": a text with fields of the task's context."""

from __future__ import annotations

import json
from string import Formatter
from typing import Any

from agentexec.arguments.checks import check_text, shown
from agentexec.errors import ContextInvalidError, UsageError


def check_template(name: str, template: Any, limit: int) -> str:
    """Return a template of a key, whose fields are in braces. Raises UsageError for another value."""
    template = check_text(name, template, limit)
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UsageError(
            f"{name} cannot be read: {error}; write {{{{ for a brace of the key itself."
        ) from None
    for _, field, spec, conversion in parts:
        if field is not None and (spec or conversion or not all(field.split("."))):
            raise UsageError(
                f'{name} names a field of the context in each pair of braces, like "{{tenant}}" or "{{user.id}}", not '
                f"{shown(field)}."
            )
    return template


def fill_template(name: str, template: str, context: str | None, limit: int) -> str | None:
    """Return the key of a task with this context, which is JSON text; None if a field of the template is null.

    Raises ContextInvalidError if the context lacks a field, or has no text, number or boolean there.
    """
    values: Any = None
    key = ""
    for literal, field, _, _ in Formatter().parse(template):
        key += literal
        if field is None:
            continue
        if values is None:
            values = {} if context is None else json.loads(context)
        value = _look_up(name, values, field)
        if value is None:
            return None
        key += value if isinstance(value, str) else json.dumps(value)
    try:
        return check_text(name, key, limit)
    except UsageError as error:
        raise ContextInvalidError(str(error)) from None


def _look_up(name: str, values: Any, field: str) -> str | int | float | None:
    for part in field.split("."):
        if not isinstance(values, dict) or part not in values:
            raise ContextInvalidError(f"{name} names the field {field}, which the context does not have.")
        values = values[part]
    if values is None or isinstance(values, str | int | float):
        return values
    raise ContextInvalidError(f"{name} names the field {field}, which is not a text, a number or a boolean.")
