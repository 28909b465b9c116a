"""Difference of what two tasks have recorded, step by step."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator
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

READ_AT_ONCE = 50
"""Facts whose values are in memory together: a value may be large."""


class RecordedStep(NamedTuple):
    """A step of a task. `position` is its place among the steps of its task."""

    position: int
    path: str
    kind: str


class StepChange(NamedTuple):
    """A step that both tasks have, or only the first ("removed") or the second one ("added")."""

    change: Literal["same", "removed", "added"]
    step: RecordedStep


def compare_steps(db: Session, first: UUID, second: UUID, maximum: int = MAX_FACTS) -> list[StepChange]:
    """Return the steps of two tasks in order, each with who has it; of each task the first `maximum` steps."""
    left, right = _steps(db, first, maximum), _steps(db, second, maximum)
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


def read_contents(db: Session, agent_id: UUID, positions: Collection[int]) -> dict[int, Any]:
    """Return the contents of steps by their position: the text and calls of a response, the value of a call."""
    if not positions:
        return {}
    rows = _rows(db, agent_id, max(positions) + 1)
    return {
        position: _contents(row.kind, row.value) for position, row in enumerate(rows) if position in positions
    }


def _steps(db: Session, agent_id: UUID, maximum: int) -> list[tuple[tuple[str, int], RecordedStep]]:
    """Return the steps of a task, each with a key that no other step of the task has.

    Steps that say the same are told apart by their number: the comparison of many equal ones would take minutes.
    """
    seen: Counter[str] = Counter()
    steps = []
    for position, row in enumerate(_rows(db, agent_id, maximum)):
        digest = _digest(row.path, row.kind, row.value)
        seen[digest] += 1
        steps.append(((digest, seen[digest]), RecordedStep(position, row.path, row.kind)))
    return steps


def _rows(db: Session, agent_id: UUID, maximum: int) -> Iterator[Any]:
    query = (
        select(JOURNAL.c.path, JOURNAL.c.kind, JOURNAL.c.value)
        .where(JOURNAL.c.agent_id == agent_id, JOURNAL.c.kind.in_(SHOWN))
        .order_by(JOURNAL.c.epoch, JOURNAL.c.created_at, JOURNAL.c.path, JOURNAL.c.seq)
        .limit(maximum)
    )
    yield from db.execute(query, execution_options={"yield_per": READ_AT_ONCE})


def _digest(path: str, kind: str, value: str) -> str:
    return hashlib.sha256("\n".join((path, kind, value)).encode("utf-8", "replace")).hexdigest()


def _contents(kind: str, value: str) -> Any:
    """Return what a person wants to see of a fact's value."""
    try:
        data = json.loads(value)
    except (ValueError, RecursionError):
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
