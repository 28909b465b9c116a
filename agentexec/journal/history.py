"""The recorded steps of a task for people to read: model calls, tool calls and pipeline steps, without contents."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import Session

from agentexec.journal.facts import FactKind
from agentexec.journal.models import JournalEntry
from agentexec.payloads.columns import is_inline

JOURNAL: Any = JournalEntry.__table__
MAX_STEPS = 500
MAX_PARSED_CHARACTERS = 4_000
"""Characters above which a fact is not parsed for names: the history of a long run must stay cheap to show."""


class Step(NamedTuple):
    """A recorded fact for display. `what` names the tools that a model has called, or the call's own tool."""

    path: str
    kind: FactKind
    at: datetime
    epoch: int
    what: str = ""


def steps(db: Session, agent_id: UUID) -> list[Step]:
    """Return the newest MAX_STEPS recorded facts of a task, oldest first."""
    # What is in the payload store is large, and is not fetched for its names.
    is_short = and_(func.length(JOURNAL.c.value) <= MAX_PARSED_CHARACTERS, is_inline(JOURNAL.c.value))
    value = case((is_short, JOURNAL.c.value), else_="")
    query = (
        select(JOURNAL.c.path, JOURNAL.c.kind, JOURNAL.c.created_at, JOURNAL.c.epoch, value.label("value"))
        .where(JOURNAL.c.agent_id == agent_id)
        .order_by(JOURNAL.c.created_at.desc(), JOURNAL.c.path.desc(), JOURNAL.c.seq.desc())
        .limit(MAX_STEPS)
    )
    found: list[Step] = []
    tools: dict[str, str] = {}
    for row in db.execute(query).all()[::-1]:
        kind, fact = FactKind(row.kind), _parsed(row.value)
        if kind is FactKind.MODEL:
            calls = _calls(fact)
            tools.update({f"{row.path}/{call_id}": name for call_id, name in calls})
            what = f"calls {', '.join(name for _, name in calls)}" if calls else ""
        else:
            what = tools.setdefault(row.path, _named(kind, fact))
            if kind is FactKind.OUTCOME and fact.get("error") is True:
                what = f"{what} failed".strip()
        found.append(Step(row.path, kind, row.created_at, row.epoch, what))
    return found


def _named(kind: FactKind, fact: dict[str, Any]) -> str:
    """Return what the first fact of a path names: the tool of a call, or a background response."""
    if kind is FactKind.BACKGROUND:
        return str(fact.get("response_id") or "")
    return str(fact.get("name") or "") if kind is FactKind.INTENT else ""


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _calls(fact: dict[str, Any]) -> list[tuple[str, str]]:
    """Return call id and name of each tool that a model's response calls."""
    output = fact.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    return [
        (str(item["call_id"]), str(item["name"])) for item in items if "call_id" in item and "name" in item
    ]
