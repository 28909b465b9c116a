"""Metadata as labels: a row for each value, by which activities are found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

from agentexec.activity.models import MAX_LABEL, Activity, ActivityLabel
from agentexec.errors import UsageError

MAX_LABELS = 64
"""Most values of one activity's metadata by which it can be found: each is a row."""


def label_rows(metadata: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Name and value of each label. Lists, objects and null are no labels: nothing is found by them."""
    return [
        (_short(str(name)), _text(value))
        for name, value in (metadata or {}).items()
        if isinstance(value, _PLAIN)
    ]


def require_labels(metadata: Mapping[str, Any] | None) -> None:
    """Raise UsageError for metadata with more than MAX_LABELS values."""
    number = len(label_rows(metadata))
    if number > MAX_LABELS:
        raise UsageError(
            f"The metadata has {number} values, of which at most {MAX_LABELS} can be filtered by; "
            "put what nobody filters by into the context, or into an object."
        )


def wanted_labels(metadata_filter: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The labels that an activity must have to match. Raises UsageError for a value that is no label's."""
    for name, value in (metadata_filter or {}).items():
        if not isinstance(value, _PLAIN):
            raise UsageError(f"metadata_filter[{name!r}] must be a string, number or boolean.")
    try:
        # No activity has a name that cannot be stored.
        return [(storable(name), value) for name, value in label_rows(metadata_filter)]
    except ValueError:
        raise UsageError("metadata_filter holds a number that is too long.") from None


def storable(text: str) -> str:
    """A text that every database takes as a parameter: without NUL and without lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def matching(metadata_filter: Mapping[str, Any] | None) -> list[ColumnElement[bool]]:
    """Conditions that an activity has all these labels, each compared with its JSON type."""
    return [having(label) for label in wanted_labels(metadata_filter)]


def having(label: tuple[str, str]) -> ColumnElement[bool]:
    """The condition that an activity has a label."""
    name, value = label
    return Activity.agent_id.in_(
        select(ActivityLabel.agent_id).where(ActivityLabel.name == name, ActivityLabel.value == value)
    )


def having_too(label: tuple[str, str]) -> ColumnElement[bool]:
    """`having` for rows that another condition has found: SQLite would collect all that have the label first."""
    name, value = label
    return Activity.agent_id.in_(
        select(ActivityLabel.agent_id).where(
            ActivityLabel.name == name, Unindexed(ActivityLabel.value) == value, _OfThisRow()
        )
    )


class Unindexed(FunctionElement[Any]):
    """A column by which SQLite does not search; the same column elsewhere."""

    name = "unindexed"
    inherit_cache = True

    def __init__(self, column: Any) -> None:
        super().__init__(column)
        self.type = column.type


class _OfThisRow(ColumnElement[Any]):
    """On SQLite: the label is that of the activity in the outer query."""

    inherit_cache = True
    type = NullType()  # a Boolean would be compared with 1, which no index serves


@compiles(Unindexed)
def _as_column(element: Unindexed, compiler: Any, **options: Any) -> str:
    return str(compiler.process(next(iter(element.clauses)), **options))


@compiles(Unindexed, "sqlite")
def _unindexed(element: Unindexed, compiler: Any, **options: Any) -> str:
    return f"+{_as_column(element, compiler, **options)}"


@compiles(_OfThisRow)
def _always(_element: _OfThisRow, _compiler: Any, **_options: Any) -> str:
    return "1 = 1"


@compiles(_OfThisRow, "sqlite")
def _of_this_row(_element: _OfThisRow, compiler: Any, **options: Any) -> str:
    return str(compiler.process(ActivityLabel.agent_id == Activity.agent_id, **options))


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
