"""Pages of activities: each status in turn by its index, so that a page costs the same among a million as among ten."""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, String, and_, case, cast, func, literal, or_, select, union_all
from sqlalchemy.orm import Session, defer

from agentexec.activity.models import Activity, ActivityLabel
from agentexec.activity.queries import counts
from agentexec.activity.queries.filters import (
    PROBE_LIMIT,
    RANKS,
    Filter,
    driving_conditions,
    residual_conditions,
    with_most_selective_index,
)
from agentexec.activity.queries.labels import storable_text
from agentexec.activity.queries.sessions import sync_or_async
from agentexec.activity.schemas import ActivityListItemSchema, ActivityListSchema
from agentexec.errors import UsageError
from agentexec.task import Status

MAX_PAGE_SIZE = 1000
MAX_COUNTED = 10_000
"""What matches metadata or times is counted up to here; with other conditions to be looked up, up to PROBE_LIMIT."""

MAX_SEARCHED = 3_000
"""Of each status, a text is looked for in so many of the newest that meet the other filters."""

SEARCHED_CHARACTERS = 500
"""Of each message: texts of any length may stand there."""


class Place(NamedTuple):
    """Where a page ended, in the order of the list."""

    rank: int
    created_at: datetime
    agent_id: UUID

    def cursor(self) -> str:
        """As a text without meaning for others."""
        text = f"{self.rank} {self.created_at.isoformat()} {self.agent_id.hex}"
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def parse(cls, cursor: str) -> Place:
        """The place of a cursor. Raises UsageError."""
        try:
            rank, created_at, agent_id = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ")
            moment = datetime.fromisoformat(created_at)
            if moment.tzinfo is None or int(rank) not in RANKS.values():
                raise ValueError
            return cls(int(rank), moment.astimezone(UTC), UUID(agent_id))
        except (ValueError, OverflowError, binascii.Error):
            raise UsageError("after= takes the `next_cursor` of a list, unchanged.") from None


def _known_status(status: Status | str | None) -> Status | None:
    try:
        return None if status is None else Status(status)
    except ValueError:
        known = ", ".join(one.value for one in Status)
        raise UsageError(f"There is no status {status!r}; the statuses are {known}.") from None


@sync_or_async
def list_activities(
    db: Session,
    page: int = 1,
    page_size: int = 50,
    *,
    status: Status | str | None = None,
    agent_type: str | None = None,
    text: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    after: str | None = None,
) -> ActivityListSchema:
    """One page of activities: running ones first, then queued ones, then the newest.

    `page` counts from 1; `page_size` is at most 1000. `after`: the `next_cursor` of the page before, instead of `page`;
    far from the first page it is much faster, and it skips nothing when new activities come in between.

    Filters: `status`; `agent_type`, the task's name; `text`, which is in the task's name, in its latest message or is
    its agent_id, in any case, looked for in the newest 3,000 of each status (and 500 characters of each) that meet the other filters;
    `created_after` and `created_before`, aware moments; `metadata_filter`, the values that the metadata must have.

    Raises UsageError for a page or a value that cannot be.
    """
    if page < 1 or not 1 <= page_size <= MAX_PAGE_SIZE:
        raise UsageError(
            f"Pages count from 1 and hold 1 to {MAX_PAGE_SIZE} items; got page={page}, page_size={page_size}."
        )
    if after is not None and page != 1:
        raise UsageError("Give either page= or after=, not both.")
    for name, moment in (("created_after", created_after), ("created_before", created_before)):
        if moment is not None and moment.tzinfo is None:
            raise UsageError(f"{name}= must be aware of its time zone, like datetime.now(UTC).")
    wanted = Filter(
        _known_status(status),
        None if agent_type is None else storable_text(agent_type),
        storable_text(text) if text else None,
        created_after,
        created_before,
        metadata_filter,
    )
    wanted = with_most_selective_index(db, wanted)
    place = {"offset": (page - 1) * page_size, "after": after}
    rows = db.execute(
        _plain_page_query(wanted.status, wanted.agent_type, page_size, **place)
        if wanted.is_plain
        else page_query(wanted, page_size, **place),
        execution_options={"populate_existing": True},
    ).all()
    number, exact = _total(db, wanted, rows, page, page_size, after)
    last = rows[-1] if len(rows) == page_size else None
    return ActivityListSchema(
        items=[ActivityListItemSchema.model_validate(row.Activity) for row in rows],
        total=number,
        total_is_exact=exact,
        page=page,
        page_size=page_size,
        next_cursor=last and Place(last.rank, last.Activity.created_at, last.Activity.agent_id).cursor(),
    )


def page_query(wanted: Filter, limit: int, *, offset: int = 0, after: str | None = None) -> Select[Any]:
    """The activities of one page in order, each with its `rank`, as one statement. Raises UsageError for a bad cursor."""
    place = None if after is None else Place.parse(after)
    found = _union(wanted, MAX_SEARCHED if wanted.text else limit + offset, place)
    # A text is looked for once: each row says how many were found.
    number = literal(None) if wanted.text is None else func.count().over()
    chosen = (
        select(found, number.label("number"))
        .order_by(found.c.rank, found.c.created_at.desc(), found.c.agent_id.desc())
        .limit(limit)
        .offset(offset)
        .subquery("chosen")
    )
    return (
        select(Activity, chosen.c.rank, chosen.c.number)
        .join(chosen, chosen.c.agent_id == Activity.agent_id)
        .order_by(chosen.c.rank, chosen.c.created_at.desc(), chosen.c.agent_id.desc())
        .options(defer(Activity.context), defer(Activity.error))
    )


@functools.lru_cache(maxsize=64)  # to build the statement takes longer than to run it
def _plain_page_query(
    status: Status | None, agent_type: str | None, limit: int, *, offset: int, after: str | None
) -> Select[Any]:
    return page_query(Filter(status, agent_type), limit, offset=offset, after=after)


def _union(wanted: Filter, limit: int, place: Place | None = None) -> Any:
    """The first `limit` of each status: every part is read in the order of an index, and no further."""
    parts = [
        _part(wanted, statuses, limit, place)
        for statuses in wanted.status_groups()
        if place is None or RANKS[statuses[0]] >= place.rank
    ]
    if not parts:
        parts = [_part(wanted, (Status.CANCELED,), 0, None)]
    # Each in a query of its own: SQLite takes no ORDER BY or LIMIT inside a UNION.
    each = [select(part.subquery(f"part_{number}")) for number, part in enumerate(parts)]
    return (union_all(*each) if len(each) > 1 else each[0]).subquery("found")


def _part(wanted: Filter, statuses: tuple[Status, ...], limit: int, place: Place | None) -> Select[Any]:
    """The first of some statuses of the same rank, in the order of the index that leads."""
    rank = RANKS[statuses[0]]
    lead = wanted.driving_label(rank)
    source: Any = Activity if lead is None else ActivityLabel
    created_at, agent_id = source.created_at, source.agent_id
    conditions = [
        *driving_conditions(wanted, statuses, lead, source),
        *residual_conditions(wanted, statuses, lead, agent_id, created_at),
    ]
    if place is not None and rank == place.rank:
        conditions.append(created_at <= place.created_at)
        conditions.append(or_(created_at < place.created_at, agent_id < place.agent_id))
    columns = (agent_id.label("agent_id"), created_at.label("created_at"), literal(rank).label("rank"))
    query = select(*columns).where(*conditions).order_by(created_at.desc(), agent_id.desc())
    if wanted.text is None:
        return query.limit(limit)
    if lead is None:
        # Whether a text matches, not the text: MariaDB makes a table of what is found, which with texts is a large one.
        hit = case((_has_text(wanted.text), 1), else_=0).label("hit")
        window = query.add_columns(hit).limit(MAX_SEARCHED).subquery(f"window_{statuses[0].value}")
        matches = select(window.c.agent_id, window.c.created_at, window.c.rank).where(window.c.hit == 1)
    else:
        window = query.limit(MAX_SEARCHED).subquery(f"window_{statuses[0].value}")
        matches = select(window).join(Activity, Activity.agent_id == window.c.agent_id)
        matches = matches.where(_has_text(wanted.text))
    return matches.order_by(window.c.created_at.desc(), window.c.agent_id.desc()).limit(limit)


def _has_text(text: str) -> ColumnElement[bool]:
    message = cast(Activity.message, String(SEARCHED_CHARACTERS))
    return or_(
        message.icontains(text, autoescape=True),
        Activity.agent_type.icontains(text, autoescape=True),
        *([Activity.agent_id == key] if (key := _uuid(text)) else []),
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def _total(
    db: Session, wanted: Filter, rows: Sequence[Any], page: int, page_size: int, after: str | None
) -> tuple[int, bool]:
    """How many match, and whether that is all of them, with what the page itself tells."""
    if wanted.is_plain:
        return counts.total(db, wanted.status, wanted.agent_type), True
    shown = None
    if after is None:
        shown = (page - 1) * page_size + len(rows)
        is_last = len(rows) < page_size and bool(rows or page == 1)
        if is_last and wanted.text is None:
            return shown, True
    if wanted.text is None:
        limit = PROBE_LIMIT if wanted.has_residual_conditions else MAX_COUNTED
        number, looked = db.execute(count_query(wanted, limit)).one()
        return max(min(number or 0, limit), shown or 0), looked <= limit
    if rows:
        number = rows[0].number
    elif page == 1 and after is None:
        number = 0
    else:
        number = db.scalar(select(func.count()).select_from(_union(wanted, MAX_SEARCHED))) or 0
    return number, _fits(db, wanted._replace(text=None))


def _fits(db: Session, wanted: Filter) -> bool:
    """True if a text was looked for in all that meet the other filters."""
    if wanted.is_plain:
        return counts.total(db, wanted.status, wanted.agent_type) <= MAX_SEARCHED
    _, looked = db.execute(count_query(wanted, MAX_SEARCHED)).one()
    return looked <= MAX_SEARCHED


def count_query(wanted: Filter, limit: int) -> Any:
    """How many match a filter without text, and how many were looked at, each up to one above the limit."""
    lead = wanted.driving_label(RANKS[wanted.status or Status.COMPLETE])
    source: Any = Activity if lead is None else ActivityLabel
    # All statuses, if none is asked for: named, they let the index serve.
    statuses = list(RANKS) if wanted.status is None else [wanted.status]
    looked_at = select(source.agent_id, source.created_at).where(
        *driving_conditions(wanted, statuses, lead, source)
    )
    if lead is not None or wanted.status is not None:  # else no index has all statuses in the order of time
        looked_at = looked_at.order_by(source.created_at.desc(), source.agent_id.desc())
    window = looked_at.limit(limit + 1).subquery("counted")
    rest = residual_conditions(wanted, statuses, lead, window.c.agent_id, window.c.created_at)
    if not rest:
        return select(func.count(), func.count()).select_from(window)
    return select(func.sum(case((and_(*rest), 1), else_=0)), func.count()).select_from(window)
