"""What the monitor shows, read with two queries, whatever the number of tasks; more only for the details of one."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

import agentexec as ax
from agentexec.activity.queries.listing import Filter, page_query
from agentexec.activity.queries.overview import OverviewSchema, SpentSchema, overview, spent
from agentexec.activity.schemas import ActivityDetailSchema, ActivityListItemSchema
from agentexec.cli.database import session
from agentexec.errors import UsageError
from agentexec.task import Status

if TYPE_CHECKING:
    from agentexec.client.approvals import ApprovalSchema
    from agentexec.journal.history import Step

MINUTES = 30
"""Length of the history in the header."""

PRINTED_TASKS = 50
"""Tasks that are printed at once."""


class Query(NamedTuple):
    """Which tasks are shown."""

    status: Status | None = None
    agent_type: str | None = None
    text: str | None = None
    metadata: Mapping[str, str] | None = None

    @property
    def filter(self) -> Filter:
        """For the list."""
        return Filter(self.status, self.agent_type, self.text, None, None, self.metadata)

    def __str__(self) -> str:
        parts = [f"status:{self.status}"] if self.status else []
        words = [f"type:{self.agent_type}"] if self.agent_type else []
        words += [f"{name}={value}" for name, value in (self.metadata or {}).items()]
        parts += [word if re.fullmatch(r"[^\s'\"]+", word) else shlex.quote(word) for word in words]
        return " ".join([*parts, *([self.text] if self.text else [])])

    @classmethod
    def parse(cls, line: str) -> Query:
        """Words like status:error, type:research, tenant=a, 'tenant=a b'; all others are the text. Raises UsageError."""
        status: Status | None = None
        agent_type: str | None = None
        metadata: dict[str, str] = {}
        words: list[str] = []
        for word in _words(line):
            if match := re.fullmatch(r"status:(\w+)", word):
                try:
                    status = Status(match[1].lower())
                except ValueError:
                    raise UsageError(f"There is no status {match[1]}.") from None
            elif match := re.fullmatch(r"type:(.+)", word):
                agent_type = match[1]
            elif match := re.fullmatch(r"([^=\s]+)=(.*)", word):
                metadata[match[1]] = match[2]
            else:
                words.append(word)
        return cls(status, agent_type, " ".join(words) or None, metadata or None)


def _words(line: str) -> list[str]:
    """The words of a line; quotes hold one together."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    try:
        return list(lexer)
    except ValueError:  # an apostrophe
        return line.split()


class Snapshot(NamedTuple):
    """One look at everything."""

    overview: OverviewSchema
    items: list[ActivityListItemSchema]
    has_more: bool
    """There is a further page."""


class Detail(NamedTuple):
    """One task with what it has recorded and what it waits for."""

    activity: ActivityDetailSchema
    steps: list[Step]
    approvals: list[ApprovalSchema]


def load_snapshot(db: Session, query: Query, limit: int, offset: int) -> Snapshot:
    """The header, the workers, and one page of tasks. Two statements."""
    head = overview(db, MINUTES, metadata_filter=query.metadata)
    rows = db.execute(page_query(query.filter, limit + 1, offset=offset)).all()
    items = [ActivityListItemSchema.model_validate(row.Activity) for row in rows[:limit]]
    return Snapshot(head, items, len(rows) > limit)


def load_detail(db: Session, agent_id: UUID, query: Query) -> Detail:
    """Everything about one task."""
    found = ax.activity.detail(db, agent_id, metadata_filter=query.metadata)
    waiting = ax.approvals.list(db, agent_id, metadata_filter=query.metadata)
    # Imported on use: the list of tasks is shown sooner without the journal's tables.
    from agentexec.journal.history import steps

    return Detail(found, steps(db, agent_id), waiting)


def load_usage(db: Session, query: Query) -> SpentSchema:
    """Tokens and cost of what ended lately."""
    return spent(db, metadata_filter=query.metadata)


def snapshot_json(query: Query) -> str:
    """One look as JSON."""
    with session() as db:
        found = load_snapshot(db, query, PRINTED_TASKS, 0)
        cost = load_usage(db, query)
    value: dict[str, Any] = {
        "overview": found.overview.model_dump(mode="json"),
        "spent": cost.model_dump(mode="json"),
        "activities": [one.model_dump(mode="json") for one in found.items],
    }
    return json.dumps(value, ensure_ascii=False)
