"""Conditions on the arguments of a call, such as `amount<=100` and `to=*@example.com`: plain comparisons, no expressions.

Matching takes time in proportion to the lengths of pattern and text, whoever wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from agentexec.arguments.checks import check_depth, check_storable, shown
from agentexec.errors import UsageError

MAX_CONDITIONS = 20
"""Maximum number of conditions of one rule."""

MAX_CONDITION = 500
"""Maximum characters of one condition."""

MAX_NAME_PARTS = 8
"""Maximum depth of a name like `customer.address.city`."""

MAX_STARS = 10
"""Maximum number of `*` in one pattern."""

Operator = Literal["=", "<=", ">="]

MISSING = object()


class Condition(NamedTuple):
    """Condition on one argument, whose name may lead into objects: `customer.id`."""

    name: str
    operator: Operator
    value: str


def parse_condition(text: Any) -> Condition:
    """Return a condition that is written as NAME=VALUE, NAME<=NUMBER or NAME>=NUMBER. Raises UsageError."""
    text = check_storable("A condition", text)
    if len(text) > MAX_CONDITION:
        raise UsageError(f"A condition has at most {MAX_CONDITION} characters; this one has {len(text)}.")
    name, sign, value = text.partition("=")
    operator: Operator = "="
    if sign and name.endswith(("<", ">")):
        operator = "<=" if name.endswith("<") else ">="
        name = name[:-1]
    name, value = name.strip(), value.strip()
    if not sign or not all(name.split(".")) or name.count(".") >= MAX_NAME_PARTS:
        raise UsageError(
            f"{shown(text)} is not a condition; write one like amount<=100, to=*@example.com or customer.id=42."
        )
    if _has_other_sign(name, value):
        raise UsageError(f"{shown(text)} is not a condition; compare with =, <= or >=.")
    if operator != "=" and number_of(read_json(value)) is None:
        raise UsageError(f"{shown(text)} must compare with a number, like amount<=100.")
    if value.count("*") > MAX_STARS:
        raise UsageError(f"{shown(text)} has more than {MAX_STARS} stars.")
    return Condition(name, operator, value)


def _has_other_sign(name: str, value: str) -> bool:
    """Return True for what is left of `amount!=5`, `amount==5` and `amount=<5`."""
    is_turned = value.startswith(("<", ">")) and number_of(read_json(value[1:].strip())) is not None
    return name.endswith(("!", "<", ">")) or value.startswith("=") or is_turned


def parse_conditions(texts: Iterable[Any]) -> list[Condition]:
    """Return conditions from their texts. Raises UsageError."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise UsageError(
            f"where= must be a list of conditions, like ['amount<=100'], not {type(texts).__name__}."
        )
    conditions = [parse_condition(text) for text in texts]
    if len(conditions) > MAX_CONDITIONS:
        raise UsageError(f"A rule has at most {MAX_CONDITIONS} conditions, not {len(conditions)}.")
    return conditions


def read_arguments(text: str) -> dict[str, Any] | None:
    """Return the arguments of a call as an object; None if they are anything else, or could be read in two ways.

    Of two values with the same name, a tool may take the other one.
    """
    try:
        check_depth("The arguments", text)
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError, UsageError):
        return None
    return found if isinstance(found, dict) else None


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def meets(arguments: dict[str, Any], condition: Condition) -> bool:
    """Return True if the arguments meet a condition. An argument that is missing meets none."""
    found: Any = arguments
    for part in condition.name.split("."):
        found = found.get(part, MISSING) if isinstance(found, dict) else MISSING
    if found is MISSING:
        return False
    if condition.operator == "=":
        return _equals(found, condition.value)
    bound, number = number_of(read_json(condition.value)), number_of(found)
    if bound is None or number is None:
        return False
    return number <= bound if condition.operator == "<=" else number >= bound


def _equals(found: Any, pattern: str) -> bool:
    if pattern == "*":
        return True
    if isinstance(found, str):
        return matches_glob(pattern, found)
    wanted = read_json(pattern)
    return wanted is not MISSING and canonical(wanted) == canonical(found)


def matches_glob(pattern: str, text: str) -> bool:
    """Return True if a text matches a pattern in which `*` stands for any characters, and nothing else is special."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def canonical(value: Any) -> str:
    """Return JSON data as a text that is the same for equal data: 1 and 1.0 are equal, 1 and true are not."""
    return json.dumps(_plain(value), sort_keys=True, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def read_json(text: str) -> Any:
    """Return the JSON value that a text holds, or MISSING."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return MISSING


def number_of(value: Any) -> int | float | None:
    """Return a number; None for anything else, truth values and infinity included."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value in (float("inf"), float("-inf"))
    ):
        return None
    return value
