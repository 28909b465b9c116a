"""Data of the monitor. However many tasks there are, a refresh reads with two queries; details of one task take more."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from agentexec.activity.queries.listing import Filter, checked_filter, page_query
from agentexec.activity.queries.overview import OverviewSchema, SpentSchema, overview, spent
from agentexec.activity.schemas import ActivityDetailSchema, ActivityListItemSchema
from agentexec.cli.database import session
from agentexec.cli.queue_facts import queue_facts
from agentexec.cli.task_view import TaskView, load_view
from agentexec.errors import UsageError
from agentexec.task import Status

if TYPE_CHECKING:
    from agentexec.journal.history import Step

MINUTES = 30
"""Minutes of history in the header."""

PLAIN_TASKS = 50
"""Tasks printed by --once and --json."""


class Query(NamedTuple):
    """Filter of the tasks that are shown."""

    statuses: tuple[Status, ...] | None = None
    task_name: str | None = None
    text: str | None = None
    metadata: Mapping[str, str] | None = None

    @property
    def filter(self) -> Filter:
        """The same filter for a list of tasks. Raises UsageError."""
        return checked_filter(self.statuses, self.task_name, self.text, metadata_filter=self.metadata)

    def checked(self) -> Query:
        """Return itself, or raise UsageError before a database is asked."""
        _ = self.filter
        return self

    def __str__(self) -> str:
        parts = [f"status:{status}" for status in self.statuses or ()]
        words = [f"task:{self.task_name}"] if self.task_name else []
        words += [f"{name}={value}" for name, value in (self.metadata or {}).items()]
        parts += [word if re.fullmatch(r"[^\s'\"]+", word) else shlex.quote(word) for word in words]
        return " ".join([*parts, *([self.text] if self.text else [])])

    @classmethod
    def parse(cls, line: str) -> Query:
        """Parse words like status:error, task:research, tenant=a and 'tenant=a b'; all others are text to find.

        Raises UsageError.
        """
        statuses: dict[Status, None] = {}
        task_name: str | None = None
        metadata: dict[str, str] = {}
        words: list[str] = []
        for word in _words(line):
            if match := re.fullmatch(r"status:(\w+)", word):
                try:
                    statuses[Status(match[1].lower())] = None
                except ValueError:
                    raise UsageError(f"There is no status {match[1]}.") from None
            elif match := re.fullmatch(r"(?:task|type):(.+)", word):
                task_name = match[1]
            elif match := re.fullmatch(r"([^=\s]+)=(.*)", word):
                metadata[match[1]] = match[2]
            else:
                words.append(word)
        return cls(tuple(statuses) or None, task_name, " ".join(words) or None, metadata or None).checked()


def _words(line: str) -> list[str]:
    """Split a line into words; quotes hold a word together."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    try:
        return list(lexer)
    except ValueError:  # an apostrophe
        return line.split()


class Snapshot(NamedTuple):
    """The monitor's list at one moment."""

    overview: OverviewSchema
    items: list[ActivityListItemSchema]
    has_more: bool
    """True if there is another page."""


class Detail(NamedTuple):
    """One task, with its recorded steps."""

    view: TaskView
    steps: list[Step]

    @property
    def activity(self) -> ActivityDetailSchema:
        """The task itself."""
        return self.view.activity


def load_snapshot(db: Session, query: Query, limit: int, offset: int) -> Snapshot:
    """Read the header, the workers, and one page of tasks, with up to six statements."""
    header = overview(db, MINUTES, metadata_filter=query.metadata)
    rows = db.execute(page_query(query.filter, limit + 1, offset=offset)).all()
    items = [ActivityListItemSchema.model_validate(row.Activity) for row in rows[:limit]]
    return Snapshot(header, items, len(rows) > limit)


def load_detail(db: Session, agent_id: UUID, query: Query, known: Detail | None = None) -> Detail:
    """Read everything about one task. `known` is what was read of it before, and saves what cannot have changed."""
    view = load_view(db, agent_id, query.metadata, known and known.view)
    # Imported on use: the list of tasks appears sooner without the journal's tables.
    from agentexec.journal.history import steps

    return Detail(view, steps(db, agent_id))


def load_usage(db: Session, query: Query) -> SpentSchema:
    """Read the tokens and cost of the tasks that ended recently."""
    return spent(db, metadata_filter=query.metadata)


def snapshot_json(query: Query) -> str:
    """Return the current state as JSON."""
    with session() as db:
        snapshot = load_snapshot(db, query, PLAIN_TASKS, 0)
        usage = load_usage(db, query)
    value: dict[str, Any] = {
        "overview": snapshot.overview.model_dump(mode="json"),
        "spent": usage.model_dump(mode="json"),
        "activities": [{**task.model_dump(mode="json"), **queue_facts(task)} for task in snapshot.items],
    }
    return json.dumps(value, ensure_ascii=False)
