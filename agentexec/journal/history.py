"""The steps of a task for people to read: each model call, tool call and pipeline step, by name, without its contents."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from agentexec.journal.models import JournalEntry
from agentexec.journal.store import FactKind

JOURNAL: Any = JournalEntry.__table__
MOST = 500
READ_CHARACTERS = 4_000
"""A longer fact is not read for names: the history of a long run must stay cheap to show."""


class Step(NamedTuple):
    """A recorded fact: where, what, when, in which epoch. `what`: the tools that a model has called, or the call's tool."""

    path: str
    kind: FactKind
    at: datetime
    epoch: int
    what: str = ""


def steps(db: Session, agent_id: UUID) -> list[Step]:
    """The newest 500 recorded facts of a task, oldest first."""
    value = case((func.length(JOURNAL.c.value) <= READ_CHARACTERS, JOURNAL.c.value), else_="")
    query = (
        select(JOURNAL.c.path, JOURNAL.c.kind, JOURNAL.c.created_at, JOURNAL.c.epoch, value.label("value"))
        .where(JOURNAL.c.agent_id == agent_id)
        .order_by(JOURNAL.c.created_at.desc(), JOURNAL.c.path.desc(), JOURNAL.c.seq.desc())
        .limit(MOST)
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
            what = tools.setdefault(row.path, str(fact.get("name") or "") if kind is FactKind.INTENT else "")
            if kind is FactKind.OUTCOME and fact.get("error") is True:
                what = f"{what} failed".strip()
        found.append(Step(row.path, kind, row.created_at, row.epoch, what))
    return found


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _calls(fact: dict[str, Any]) -> list[tuple[str, str]]:
    """The tools that a model's response calls: call id and name."""
    output = fact.get("output")
    items = [one for one in output if isinstance(one, dict)] if isinstance(output, list) else []
    return [
        (str(one.get("call_id")), str(one["name"])) for one in items if "call_id" in one and "name" in one
    ]
