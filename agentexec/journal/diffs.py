"""Difference of what two tasks have recorded, step by step."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from agentexec.journal.cuts import output_items
from agentexec.journal.facts import FactKind
from agentexec.journal.store import JOURNAL

MAX_FACTS = 5_000
"""Facts of each task that are compared, the first ones."""

SHOWN = (FactKind.MODEL, FactKind.OUTCOME, FactKind.RAISED)
"""Kinds of facts that are steps for a person."""


class RecordedStep(NamedTuple):
    """A step with its contents: the text and calls of a response, the value of a call."""

    path: str
    kind: str
    contents: Any


class StepChange(NamedTuple):
    """A step that both tasks have, or only the first ("removed") or the second one ("added")."""

    change: Literal["same", "removed", "added"]
    step: RecordedStep


def compare_steps(db: Session, first: UUID, second: UUID) -> list[StepChange]:
    """Return the steps of two tasks in order, each with who has it."""
    left, right = _steps(db, first), _steps(db, second)
    matcher = difflib.SequenceMatcher(
        None, [key for key, _ in left], [key for key, _ in right], autojunk=False
    )
    changes: list[StepChange] = []
    for tag, left_start, left_end, right_start, right_end in matcher.get_opcodes():
        if tag == "equal":
            changes += [StepChange("same", step) for _, step in left[left_start:left_end]]
            continue
        changes += [StepChange("removed", step) for _, step in left[left_start:left_end]]
        changes += [StepChange("added", step) for _, step in right[right_start:right_end]]
    return changes


def _steps(db: Session, agent_id: UUID) -> list[tuple[str, RecordedStep]]:
    query = (
        select(JOURNAL.c.path, JOURNAL.c.kind, JOURNAL.c.value)
        .where(JOURNAL.c.agent_id == agent_id, JOURNAL.c.kind.in_(SHOWN))
        .order_by(JOURNAL.c.epoch, JOURNAL.c.created_at, JOURNAL.c.path, JOURNAL.c.seq)
        .limit(MAX_FACTS)
    )
    return [
        (
            _key(row.path, row.kind, row.value),
            RecordedStep(row.path, row.kind, _contents(row.kind, row.value)),
        )
        for row in db.execute(query)
    ]


def _key(path: str, kind: str, value: str) -> str:
    return hashlib.sha256("\n".join((path, kind, value)).encode("utf-8", "replace")).hexdigest()


def _contents(kind: str, value: str) -> Any:
    """Return what a person wants to see of a fact's value."""
    try:
        data = json.loads(value)
    except ValueError:
        return value
    if kind == FactKind.MODEL:
        return list(_parts(data))
    return data.get("output", data) if isinstance(data, dict) else data


def _parts(response: Any) -> Iterator[Any]:
    """Yield the texts and calls of a response."""
    for item in output_items(response):
        if "name" in item and "arguments" in item:
            yield {"call": item["name"], "arguments": item["arguments"]}
        for part in item.get("content") or ():
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
