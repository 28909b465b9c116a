"""Pages of activities. Each status is read by its index, so a page costs the same among a million as among ten."""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, String, and_, case, cast, func, literal, or_, select, union_all
from sqlalchemy.orm import Session, defer

from agentexec.activity.models import MAX_NAME, Activity, ActivityLabel
from agentexec.activity.queries import by_queue, counts
from agentexec.activity.queries.filters import (
    PROBE_LIMIT,
    RANKS,
    Filter,
    driving_conditions,
    residual_conditions,
    with_most_selective_index,
)
from agentexec.activity.queries.labels import storable_text, wanted_labels
from agentexec.activity.queries.sessions import in_index_order, sync_or_async
from agentexec.activity.queries.waits import add_waits
from agentexec.activity.schemas import ActivityListItemSchema, ActivityListSchema
from agentexec.arguments.checks import check_integer, check_iterable, check_moment, shown
from agentexec.db.clock import utc_now
from agentexec.errors import UsageError
from agentexec.task import Status

MAX_PAGE_SIZE = 1000
MAX_COUNTED = 10_000
"""Maximum number of matches that are counted; with residual conditions it is PROBE_LIMIT."""

MAX_SEARCHED = 3_000
"""Activities of each status, the newest that match the other filters, in which a text is searched for."""

SEARCHED_CHARACTERS = 500
"""Characters of each message in which a text is searched for: messages can be of any length."""

MAX_STATUSES = 50
"""Entries of a list of statuses that are read: there are fewer statuses."""

MAX_CURSOR = 200
"""Characters up to which a cursor is read."""


class Place(NamedTuple):
    """Place in the order of a list: that of a page's last activity."""

    rank: int
    created_at: datetime
    agent_id: UUID

    def cursor(self) -> str:
        """Return the place as opaque text."""
        text = f"{self.rank} {self.created_at.isoformat()} {self.agent_id.hex}"
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def parse(cls, cursor: str) -> Place:
        """Return the place that a cursor stands for. Raises UsageError."""
        try:
            rank, created_at, agent_id = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ")
            moment = datetime.fromisoformat(created_at)
            if moment.tzinfo is None or int(rank) not in RANKS.values():
                raise ValueError
            return cls(int(rank), moment.astimezone(UTC), UUID(agent_id))
        except (ValueError, OverflowError, binascii.Error):
            raise UsageError("after= takes the `next_cursor` of a list, unchanged.") from None


class _Page(NamedTuple):
    """Page that is asked for: by its number, or by the cursor of the page before it."""

    number: int
    size: int
    after: str | None

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.size

    @property
    def is_first(self) -> bool:
        return self.number == 1 and self.after is None


@sync_or_async
def list_activities(
    db: Session,
    page: int = 1,
    page_size: int = 50,
    *,
    status: Status | str | Collection[Status | str] | None = None,
    task_name: str | None = None,
    text: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    queue: str | None = None,
    after: str | None = None,
    agent_type: str | None = None,
) -> ActivityListSchema:
    """Return one page of activities: running ones first, then queued ones, then ended ones, each newest first.

    Args:
        db: Session or AsyncSession on the database of the record.
        page: Number of the page, counted from 1.
        page_size: Activities on a page, 1 to 1000.
        status: Only activities with this status, or with one of these.
        task_name: Only activities with this task name.
        text: Only activities that have this text of up to 500 characters, in upper or lower case, in their task name or in the first 500
            characters of their latest message, or whose agent_id it is. It is searched for in the newest 3,000
            activities of each status that match the other filters.
        created_after: Only activities created at this time or later; aware of its time zone.
        created_before: Only activities created before this time; aware of its time zone.
        metadata_filter: Only activities whose metadata has these values.
        queue: Only tasks of this queue, in the newest 10,000 activities of each status; with a task name, a text or
            labels in as many as a text is searched for.
        after: `next_cursor` of the page before, instead of `page`. Far from the first page it is much faster, and it
            skips no activity when new ones come in between.
        agent_type: Another name of `task_name`, after the column.

    Returns:
        The page, with the number of activities that match.

    Raises:
        UsageError: An argument is invalid.
    """
    wanted_page = _checked_page(page, page_size, after)
    page, page_size, after = wanted_page
    if None not in (task_name, agent_type) and task_name != agent_type:
        raise UsageError("Give either task_name= or agent_type=, which mean the same.")
    name = task_name if agent_type is None else agent_type
    wanted = checked_filter(status, name, text, created_after, created_before, metadata_filter, queue)
    with in_index_order(db):
        wanted = with_most_selective_index(db, wanted)
        query = (
            _plain_page_query(
                wanted.status,
                wanted.any_of,
                wanted.task_name,
                page_size,
                offset=wanted_page.offset,
                after=after,
            )
            if wanted.is_plain
            else page_query(wanted, page_size, offset=wanted_page.offset, after=after)
        )
        rows = db.execute(query, execution_options={"populate_existing": True}).all()
        counted = None if wanted.is_plain else _total(db, wanted, rows, wanted_page)
    # A number of all comes from the table in any order.
    total, exact = counted or counts.total(db, wanted.statuses, wanted.task_name)
    last = rows[-1] if len(rows) == page_size else None
    items = [ActivityListItemSchema.model_validate(row.Activity) for row in rows]
    add_waits(db, items, utc_now())
    return ActivityListSchema(
        items=items,
        total=total,
        total_is_exact=exact,
        page=page,
        page_size=page_size,
        next_cursor=last and Place(last.rank, last.Activity.created_at, last.Activity.agent_id).cursor(),
    )


def checked_filter(
    status: Status | str | Collection[Status | str] | None = None,
    task_name: str | None = None,
    text: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    metadata_filter: Mapping[str, Any] | None = None,
    queue: str | None = None,
) -> Filter:
    """Return the filter of these arguments of a list. Raises UsageError."""
    wanted_labels(metadata_filter)
    several = None if status is None or isinstance(status, str) else _parse_statuses(status)
    return Filter(
        _parse_status(status) if isinstance(status, str | None) else None,
        None if task_name is None else _searched_text("task_name=", task_name, MAX_NAME),
        None if text is None else _searched_text("text=", text, SEARCHED_CHARACTERS) or None,
        None if created_after is None else check_moment("created_after=", created_after),
        None if created_before is None else check_moment("created_before=", created_before),
        metadata_filter,
        several,
        None if queue is None else _searched_text("queue=", queue, MAX_NAME) or None,
    )


def _searched_text(name: str, value: Any, limit: int) -> str:
    """Return a text that can be compared with stored ones. A text that no activity has finds nothing.

    A longer one than `limit` is refused: databases bound the complexity of a pattern, each in its own way.
    """
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a text, not {type(value).__name__}.")
    if len(value) > limit:
        raise UsageError(f"{name} has at most {limit} characters; this text has {len(value)}.")
    return storable_text(str.__str__(value))


def _checked_page(page: int, page_size: int, after: str | None) -> _Page:
    page = check_integer("page=", page)
    page_size = check_integer("page_size=", page_size, maximum=MAX_PAGE_SIZE)
    if after is not None and (not isinstance(after, str) or len(after) > MAX_CURSOR):
        raise UsageError("after= takes the `next_cursor` of a list, unchanged.")
    if after is not None and page != 1:
        raise UsageError("Give either page= or after=, not both.")
    return _Page(page, page_size, after)


def _parse_statuses(statuses: Any) -> tuple[Status, ...] | None:
    """Return several statuses in the order of a list; None for all of them."""
    check_iterable("status=", statuses)
    found = {_parse_status(status) for status in itertools.islice(statuses, MAX_STATUSES)}
    if not found:
        raise UsageError("status= names no status; leave it out for tasks with any status.")
    return tuple(status for status in RANKS if status in found) if len(found) < len(RANKS) else None


def _parse_status(status: Status | str | None) -> Status | None:
    try:
        return None if status is None else Status(status)
    except Exception:
        known = ", ".join(status.value for status in Status)
        raise UsageError(f"There is no status {shown(status)}; the statuses are {known}.") from None


def page_query(wanted: Filter, limit: int, *, offset: int = 0, after: str | None = None) -> Select[Any]:
    """Return a query for one page in order: the activities, each with its `rank` and the `number` found by text.

    Raises UsageError for an invalid cursor.
    """
    place = None if after is None else Place.parse(after)
    found = _union(wanted, MAX_SEARCHED if wanted.is_search else limit + offset, place)
    # A search runs once: each row says how many activities it found.
    number = func.count().over() if wanted.is_search else literal(None)
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


@functools.lru_cache(maxsize=64)  # building the statement takes longer than running it
def _plain_page_query(
    status: Status | None,
    any_of: tuple[Status, ...] | None,
    task_name: str | None,
    limit: int,
    *,
    offset: int,
    after: str | None,
) -> Select[Any]:
    return page_query(Filter(status, task_name, any_of=any_of), limit, offset=offset, after=after)


def _union(wanted: Filter, limit: int, place: Place | None = None) -> Any:
    """Return the first `limit` activities of each status; every part is read in the order of an index."""
    parts = [
        _part(wanted, statuses, limit, place)
        for statuses in wanted.status_groups()
        if place is None or RANKS[statuses[0]] >= place.rank
    ]
    if not parts:
        parts = [_part(wanted, (Status.CANCELED,), 0, None)]
    # Each part is a subquery: SQLite does not accept ORDER BY or LIMIT inside a UNION.
    selects = [select(part.subquery(f"part_{number}")) for number, part in enumerate(parts)]
    return (union_all(*selects) if len(selects) > 1 else selects[0]).subquery("found")


def _part(wanted: Filter, statuses: tuple[Status, ...], limit: int, place: Place | None) -> Select[Any]:
    """Return the first activities with statuses of the same rank, in the order of the driving index."""
    rank = RANKS[statuses[0]]
    label = wanted.driving_label(rank)
    source: Any = Activity if label is None else ActivityLabel
    created_at, agent_id = source.created_at, source.agent_id
    conditions = [
        *driving_conditions(wanted, statuses, label, source),
        *residual_conditions(wanted, statuses, label, agent_id, created_at),
    ]
    if place is not None and rank == place.rank:
        conditions.append(created_at <= place.created_at)
        conditions.append(or_(created_at < place.created_at, agent_id < place.agent_id))
    columns = (agent_id.label("agent_id"), created_at.label("created_at"), literal(rank).label("rank"))
    query = select(*columns).where(*conditions).order_by(created_at.desc(), agent_id.desc())
    if not (wanted.is_search or wanted.is_by_queue):
        return query.limit(limit)
    if label is None:
        # Select whether the text matches, not the text itself: MariaDB materializes the window, and texts make it large.
        hit = case((_is_hit(wanted), 1), else_=0).label("hit")
        window = query.add_columns(hit).limit(_searched(wanted)).subquery(f"window_{statuses[0].value}")
        matches = select(window.c.agent_id, window.c.created_at, window.c.rank).where(window.c.hit == 1)
    else:
        window = query.limit(MAX_SEARCHED).subquery(f"window_{statuses[0].value}")
        matches = select(window).join(Activity, Activity.agent_id == window.c.agent_id)
        matches = matches.where(_is_hit(wanted))
    return matches.order_by(window.c.created_at.desc(), window.c.agent_id.desc()).limit(limit)


def _searched(wanted: Filter) -> int:
    return by_queue.MAX_SCANNED if wanted.is_by_queue else MAX_SEARCHED


def _is_hit(wanted: Filter) -> ColumnElement[bool]:
    """Return the condition that an activity has what no index has: the queue and the text of a filter."""
    conditions = [] if wanted.queue is None else [Activity.queue == wanted.queue]
    return and_(*conditions, *([] if wanted.text is None else [_has_text(wanted.text)]))


def _has_text(text: str) -> ColumnElement[bool]:
    message = cast(Activity.message, String(SEARCHED_CHARACTERS))
    return or_(
        message.icontains(text, autoescape=True),
        Activity.agent_type.icontains(text, autoescape=True),
        *([Activity.agent_id == agent_id] if (agent_id := _parse_id(text)) else []),
    )


def _parse_id(text: str) -> UUID | None:
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def _total(db: Session, wanted: Filter, rows: Sequence[Any], page: _Page) -> tuple[int, bool]:
    """Return how many activities match a filter that is not plain, and whether that is exact.

    It asks the database only if the page does not tell.
    """
    if wanted.is_search:
        return _total_of_search(db, wanted, rows, page)
    shown = 0 if page.after is not None else page.offset + len(rows)
    if wanted.is_by_queue:
        number, exact = by_queue.total(db, wanted)
        return max(number, shown), exact
    if page.after is None and len(rows) < page.size and (rows or page.is_first):
        return shown, True
    limit = PROBE_LIMIT if wanted.has_residual_conditions else MAX_COUNTED
    number, counted = db.execute(count_query(wanted, limit)).one()
    return max(min(number or 0, limit), shown), counted <= limit


def _total_of_search(db: Session, wanted: Filter, rows: Sequence[Any], page: _Page) -> tuple[int, bool]:
    if rows:
        number = rows[0].number
    elif page.is_first:
        number = 0
    else:
        number = db.scalar(select(func.count()).select_from(_union(wanted, MAX_SEARCHED))) or 0
    return number, _searches_everything(db, wanted._replace(text=None, queue=None))


def _searches_everything(db: Session, wanted: Filter) -> bool:
    """Return whether a text is searched for in all activities that match the other filters."""
    if wanted.is_plain:
        number, exact = counts.total(db, wanted.statuses, wanted.task_name, MAX_SEARCHED)
        return exact and number <= MAX_SEARCHED
    _, counted = db.execute(count_query(wanted, MAX_SEARCHED)).one()
    return counted <= MAX_SEARCHED


def count_query(wanted: Filter, limit: int) -> Any:
    """Return a query that counts, among the first `limit` + 1 rows of the driving condition, matches and rows.

    The filter has neither a text nor a queue.
    """
    # All statuses by name if the filter has none: that lets the index by status serve.
    statuses = wanted.statuses
    label = wanted.driving_label(max(RANKS[status] for status in statuses))
    source: Any = Activity if label is None else ActivityLabel
    candidates = select(source.agent_id, source.created_at).where(
        *driving_conditions(wanted, statuses, label, source)
    )
    if label is not None or len(statuses) == 1:  # otherwise no index has all statuses in the order of time
        candidates = candidates.order_by(source.created_at.desc(), source.agent_id.desc())
    window = candidates.limit(limit + 1).subquery("counted")
    residual = residual_conditions(wanted, statuses, label, window.c.agent_id, window.c.created_at)
    if not residual:
        return select(func.count(), func.count()).select_from(window)
    return select(func.sum(case((and_(*residual), 1), else_=0)), func.count()).select_from(window)
