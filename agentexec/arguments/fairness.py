"""Options of fairness: whose task it is, and how many tasks of a key each turn has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentexec.arguments.checks import check_number, check_text, shown
from agentexec.arguments.key_templates import check_template

MIN_WEIGHT, MAX_WEIGHT = 0.001, 1000.0
"""Limits of a weight."""

MAX_KEY = 200
"""Characters of the longest fairness key."""


def checked_fairness_key(name: str, value: Any) -> str | None:
    """Return the template of a fairness key, or None. Raises UsageError."""
    return None if value is None else check_template(name, value, MAX_KEY)


def checked_weight(name: str, value: Any) -> float:
    """Return a weight. Raises UsageError."""
    return check_number(name, value, minimum=MIN_WEIGHT, maximum=MAX_WEIGHT)


def checked_fairness_weight(name: str, value: Any) -> float | Mapping[str, float]:
    """Return the weight of all keys, or those of some; 1 by default. Raises UsageError."""
    if value is None:
        return 1.0
    if not isinstance(value, Mapping):
        return checked_weight(name, value)
    return {
        check_text(f"A key of {name}", key, MAX_KEY): checked_weight(f"{name} of {shown(key)}", weight)
        for key, weight in value.items()
    }


def weight_of(key: str | None, weights: float | Mapping[str, float]) -> float:
    """Return the weight of a key; 1 for one that a mapping lacks."""
    if key is None:
        return 1.0
    return weights.get(key, 1.0) if isinstance(weights, Mapping) else weights
