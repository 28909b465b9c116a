"""Parameters that several endpoints have, and the session of their queries."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from agentexec.activity.models import MAX_NAME
from agentexec.activity.queries.labels import MAX_LABELS
from agentexec.activity.queries.listing import MAX_CURSOR, MAX_PAGE_SIZE, SEARCHED_CHARACTERS
from agentexec.arguments.checks import shown
from agentexec.db.errors import translating_db_errors
from agentexec.errors import UsageError
from agentexec.runtime import RUNTIME
from agentexec.task import Status

MAX_PAGE = 1_000_000
MAX_PAIR = 2_000
"""Characters of a label that is asked for."""

Pairs = Annotated[
    list[Annotated[str, Field(max_length=MAX_PAIR)]] | None,
    Query(
        max_length=MAX_LABELS,
        description="Only tasks with this value in their metadata: `key=text`, or `key:=json` for a number or boolean. "
        "May be given several times, for several keys.",
    ),
]
TaskName = Annotated[str | None, Query(max_length=MAX_NAME, description="Only tasks with this name.")]
QueueName = Annotated[str | None, Query(max_length=MAX_NAME, description="Only tasks of this queue.")]


class ListQuery(BaseModel):
    """Parameters of the list of activities."""

    page: int = Field(default=1, ge=1, le=MAX_PAGE, description="Number of the page, counted from 1.")
    page_size: int = Field(default=50, ge=1, le=MAX_PAGE_SIZE, description="Activities on a page.")
    after: str | None = Field(
        default=None,
        max_length=MAX_CURSOR,
        description="`next_cursor` of the page before, instead of `page`.",
    )
    status: list[Status] | None = Field(
        default=None, max_length=len(Status), description="Only tasks with this status, or one of these."
    )
    task_name: str | None = Field(default=None, max_length=MAX_NAME, description="Only tasks with this name.")
    queue: str | None = Field(default=None, max_length=MAX_NAME, description="Only tasks of this queue.")
    metadata: Pairs = None
    text: str | None = Field(
        default=None,
        max_length=SEARCHED_CHARACTERS,
        description="Only tasks with this text in their name or latest message, or with this agent_id.",
    )
    created_after: datetime | None = Field(
        default=None, description="Only tasks created at this time or later."
    )
    created_before: datetime | None = Field(default=None, description="Only tasks created before this time.")


def parse_pairs(pairs: list[str] | None) -> dict[str, Any]:
    """Return the labels of `metadata` parameters. Raises UsageError."""
    labels: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        is_json = name.endswith(":")
        name = name.removesuffix(":")
        if not equals or not name:
            raise UsageError(f"metadata: give key=text or key:=json, not {shown(pair)}.")
        if name in labels:
            raise UsageError(f"metadata: {shown(name)} is there twice; a task has one value.")
        labels[name] = _parse_json(name, value) if is_json else value
    return labels


def _parse_json(name: str, value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise UsageError(f"metadata: the value of {shown(name)} is not JSON.") from None


@contextmanager
def reading_session() -> Generator[Session]:
    """Open a session for queries; raises UnavailableError if the database cannot be reached."""
    engine = RUNTIME.engine
    with translating_db_errors(engine), Session(engine) as db:
        yield db
