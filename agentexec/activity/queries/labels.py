"""Labels: the indexed metadata of activities, one row for each value."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import ColumnElement, literal, select
from sqlalchemy.orm import aliased

from agentexec.activity.models import MAX_LABEL, Activity, ActivityLabel
from agentexec.arguments.checks import (
    check_depth,
    check_keys,
    check_mapping,
    check_size,
    check_text,
    check_texts,
    dump_json,
    shown,
)
from agentexec.config import CONF
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


def checked_metadata(metadata: Any) -> dict[str, Any] | None:
    """Return metadata as it is stored; raises UsageError or PayloadTooLargeError for what some database refuses."""
    if metadata is None:
        return None
    text = dump_json("metadata=", dict(check_mapping("metadata=", metadata)), jsonable)
    check_size("metadata=", text, CONF.max_payload_bytes)
    check_depth("metadata=", text)
    check_keys("metadata=", metadata)
    stored: dict[str, Any] = json.loads(text)
    check_texts("metadata=", stored)
    for key in stored:
        # The name of a label: MariaDB takes two that differ only in spaces at their ends for the same one.
        check_text("A key of metadata=", key, len(key), may_be_empty=True)
    check_label_count(stored)
    return stored


def jsonable(value: Any) -> Any:
    """Return a value that JSON lacks as one that it has, or raise TypeError: the `default` of `json.dumps`."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


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

    Raises UsageError for anything but None and a mapping of as many plain values as an activity can have.
    """
    if metadata_filter is None:
        return []
    _check_filter(metadata_filter)
    try:
        # Storable only to be a valid parameter: no activity has a label with such a name.
        return [(storable_text(name), value) for name, value in label_rows(metadata_filter)]
    except ValueError:
        raise UsageError("metadata_filter has a number with too many digits.") from None


def _check_filter(metadata_filter: Mapping[str, Any]) -> None:
    """Raise UsageError for a filter that no activity's metadata could match: without a bound, it costs a minute."""
    check_mapping("metadata_filter=", metadata_filter, maximum=MAX_LABELS)
    characters = 0
    for name, value in metadata_filter.items():
        if not isinstance(value, _PLAIN) or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(f"metadata_filter[{shown(name)}] must be a string, number or boolean.")
        characters += len(name) + (len(value) if isinstance(value, str) else 0)
    if characters > CONF.max_payload_bytes:
        raise UsageError(
            f"metadata_filter= has {characters} characters; metadata has at most "
            f"AGENTEXEC_MAX_PAYLOAD_BYTES={CONF.max_payload_bytes}."
        )


def storable_text(text: str) -> str:
    """Return text that every database accepts as a parameter: without NUL and without lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def metadata_conditions(metadata_filter: Mapping[str, Any] | None) -> list[ColumnElement[bool]]:
    """Return conditions that an activity, found by other conditions, has these labels with the same JSON types."""
    return label_conditions(wanted_labels(metadata_filter))


def label_conditions(labels: Sequence[tuple[str, str]]) -> list[ColumnElement[bool]]:
    """Return the same for labels as they are stored."""
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
