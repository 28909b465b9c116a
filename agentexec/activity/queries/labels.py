"""Labels: the indexed metadata of activities, one row for each value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, literal, select
from sqlalchemy.orm import aliased

from agentexec.activity.models import MAX_LABEL, Activity, ActivityLabel
from agentexec.errors import UsageError

_OTHER = aliased(ActivityLabel)

MAX_LABELS = 64
"""Maximum number of labels of one activity: each is a row."""


def label_rows(metadata: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return name and value of each label. Lists, objects and null are not labels, so no filter finds them."""
    return [
        (_short(str(name)), _text(value))
        for name, value in (metadata or {}).items()
        if isinstance(value, _PLAIN)
    ]


def check_label_count(metadata: Mapping[str, Any] | None) -> None:
    """Raise UsageError for metadata with more than MAX_LABELS values."""
    number = len(label_rows(metadata))
    if number > MAX_LABELS:
        raise UsageError(
            f"The metadata has {number} values; at most {MAX_LABELS} can be indexed for filters. "
            "Put the values that nobody filters by into the context, or into an object."
        )


def wanted_labels(metadata_filter: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return the labels that an activity must have to match.

    Raises UsageError for a value that cannot be a label's.
    """
    for name, value in (metadata_filter or {}).items():
        if not isinstance(value, _PLAIN):
            raise UsageError(f"metadata_filter[{name!r}] must be a string, number or boolean.")
    try:
        # Storable only to be a valid parameter: no activity has a label with such a name.
        return [(storable_text(name), value) for name, value in label_rows(metadata_filter)]
    except ValueError:
        raise UsageError("metadata_filter has a number with too many digits.") from None


def storable_text(text: str) -> str:
    """Return text that every database accepts as a parameter: without NUL and without lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def metadata_conditions(metadata_filter: Mapping[str, Any] | None) -> list[ColumnElement[bool]]:
    """Return conditions that an activity, found by other conditions, has these labels with the same JSON types."""
    labels = wanted_labels(metadata_filter)
    return [residual_label_condition(label, Activity.agent_id, Activity.created_at) for label in labels]


def residual_label_condition(label: tuple[str, str], agent_id: Any, created_at: Any) -> ColumnElement[bool]:
    """Return the condition that an activity has a label: one look into an index that holds all columns it needs.

    It is a scalar subquery, because databases turn IN and EXISTS into joins and may then start with every activity
    that has the label.
    """
    name, value = label
    same = (_OTHER.agent_id == agent_id, _OTHER.created_at == created_at)
    found = select(literal(1)).where(_OTHER.name == name, _OTHER.value == value, *same)
    return found.scalar_subquery().is_not(None)


def driving_label_condition(label: tuple[str, str]) -> ColumnElement[bool]:
    """Return the condition that an activity has a label, for queries that may well start with the label."""
    name, value = label
    return Activity.agent_id.in_(
        select(ActivityLabel.agent_id).where(ActivityLabel.name == name, ActivityLabel.value == value)
    )


_PLAIN = (str, int, float, UUID)  # a bool is an int


def _text(value: Any) -> str:
    if isinstance(value, UUID):
        value = str(value)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number
    return _short(json.dumps(value))


def _short(text: str) -> str:
    if len(text) <= MAX_LABEL:
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
