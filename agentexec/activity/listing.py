"""Pages of activities: each status in turn by its index, so that a page costs the same among a million as among ten."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, String, and_, case, cast, func, literal, or_, select, union_all
from sqlalchemy.orm import Session, aliased, defer

from agentexec.activity import counts
from agentexec.activity.labels import Unindexed, having_too, storable, wanted_labels
from agentexec.activity.models import Activity, ActivityLabel
from agentexec.activity.queries import for_both
from agentexec.activity.schemas import ActivityListItemSchema, ActivityListSchema
from agentexec.errors import UsageError
from agentexec.task import FINAL_STATUSES, Status

MAX_PAGE_SIZE = 1000
MAX_COUNTED = 10_000
"""What matches metadata, times or a text is counted up to here."""

MAX_SEARCHED = 5_000
"""Of each status, a text is looked for in so many of the newest that meet the other filters."""

SEARCHED_CHARACTERS = 500
"""Of each message; MariaDB would write longer texts to disk before it looks."""

RANKS = {Status.RUNNING: 0, Status.QUEUED: 1, Status.COMPLETE: 2, Status.ERROR: 2, Status.CANCELED: 2}


class Filter(NamedTuple):
    """What a list is limited to; None: not by this."""

    status: Status | None = None
    agent_type: str | None = None
    text: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def is_plain(self) -> bool:
        """True if the numbers by type and status tell how many match."""
        return not (self.text or self.created_after or self.created_before or self.metadata)


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


@for_both
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
    its agent_id, in any case, looked for in the newest 5,000 of each status (and 500 characters of each) that meet the other filters;
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
        None if agent_type is None else storable(agent_type),
        storable(text) if text else None,
        created_after,
        created_before,
        _rarest_first(db, metadata_filter),
    )
    rows = db.execute(
        page_query(wanted, page_size, offset=(page - 1) * page_size, after=after),
        execution_options={"populate_existing": True},
    ).all()
    number, exact = _total(db, wanted, rows[0].number if rows and wanted.text else None)
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


def _union(wanted: Filter, limit: int, place: Place | None = None) -> Any:
    """The first `limit` of each status: every part is read in the order of an index, and no further."""
    kinds: list[tuple[Status, ...]] = [(status,) for status in RANKS]
    if wanted.metadata:
        # In the order of a label's index all that have ended are one.
        kinds = [(Status.RUNNING,), (Status.QUEUED,), tuple(FINAL_STATUSES)]
    parts = [
        _part(wanted, statuses if wanted.status is None else (wanted.status,), limit, place)
        for statuses in kinds
        if (wanted.status is None or wanted.status in statuses)
        and (place is None or RANKS[statuses[0]] >= place.rank)
    ]
    if not parts:
        parts = [_part(wanted, (Status.CANCELED,), 0, None)]
    # Each in a query of its own: SQLite takes no ORDER BY or LIMIT inside a UNION.
    each = [select(part.subquery(f"part_{number}")) for number, part in enumerate(parts)]
    return (union_all(*each) if len(each) > 1 else each[0]).subquery("found")


def _part(wanted: Filter, statuses: tuple[Status, ...], limit: int, place: Place | None) -> Select[Any]:
    """The first of some statuses of the same rank."""
    status = statuses[0]
    labels = wanted_labels(wanted.metadata)
    created_at: Any = Activity.created_at
    agent_id: Any = Activity.agent_id
    conditions: list[ColumnElement[bool]] = [
        Activity.status == status if len(statuses) == 1 else Activity.status.in_(statuses)
    ]
    joined = None
    if labels:
        joined = aliased(ActivityLabel)
        # Of the few that are active the label is looked up.
        value: Any = joined.value if status.final else Unindexed(joined.value)
        conditions += [joined.name == labels[0][0], value == labels[0][1], *map(having_too, labels[1:])]
        if status.final:
            # The first label leads, in the order of its index. Of the few that are active the labels are looked up.
            created_at, agent_id = joined.created_at, joined.agent_id
    if wanted.agent_type is not None:
        conditions.append(Activity.agent_type == wanted.agent_type)
    if wanted.created_after is not None:
        conditions.append(created_at >= wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(created_at < wanted.created_before)
    if place is not None and RANKS[status] == place.rank:
        conditions.append(created_at <= place.created_at)
        conditions.append(or_(created_at < place.created_at, agent_id < place.agent_id))
    columns = [agent_id.label("agent_id"), created_at.label("created_at")]
    rank = literal(RANKS[status]).label("rank")
    query = select(*columns, rank)
    if wanted.text is not None:
        message = cast(Activity.message, String(SEARCHED_CHARACTERS)).label("message")
        query = query.add_columns(Activity.agent_type, message)
    if joined is not None:
        first, second = (joined, Activity) if status.final else (Activity, joined)
        query = _in_order(query.select_from(first).join(second, joined.agent_id == Activity.agent_id))
    query = query.where(*conditions).order_by(created_at.desc(), agent_id.desc())
    if wanted.text is None:
        return query.limit(limit)
    window = query.limit(MAX_SEARCHED).subquery(f"window_{status.value}")
    matches = or_(
        window.c.message.icontains(wanted.text, autoescape=True),
        window.c.agent_type.icontains(wanted.text, autoescape=True),
        *([window.c.agent_id == key] if (key := _uuid(wanted.text)) else []),
    )
    return (
        select(window.c.agent_id, window.c.created_at, window.c.rank)
        .where(matches)
        .order_by(window.c.created_at.desc(), window.c.agent_id.desc())
        .limit(limit)
    )


def _in_order(query: Any) -> Any:
    """MariaDB would begin with the table that has fewer rows, and then sort them all."""
    return query.prefix_with("STRAIGHT_JOIN", dialect="mysql").prefix_with("STRAIGHT_JOIN", dialect="mariadb")


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def _rarest_first(db: Session, metadata_filter: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The labels of a filter with that first which the fewest have: it leads."""
    if metadata_filter is None or len(metadata_filter) < 2:
        return None if metadata_filter is None else dict(metadata_filter)
    numbers = {
        name: db.scalar(count_query(Filter(metadata={name: value}))) or 0
        for name, value in metadata_filter.items()
    }
    return {name: metadata_filter[name] for name in sorted(numbers, key=lambda name: numbers[name])}


def _total(db: Session, wanted: Filter, found: int | None = None) -> tuple[int, bool]:
    """How many match, and whether that is all of them. `found`: how many with the text there are, if that is known."""
    if wanted.is_plain:
        return counts.total(db, wanted.status, wanted.agent_type), True
    if wanted.text is None:
        number, looked = db.execute(count_query(wanted)).one()
        return min(number or 0, MAX_COUNTED), looked <= MAX_COUNTED
    number = found
    if number is None:
        number = db.scalar(select(func.count()).select_from(_union(wanted, MAX_SEARCHED))) or 0
    everything, exact = _total(db, wanted._replace(text=None))
    return number, exact and everything <= MAX_SEARCHED


def count_query(wanted: Filter) -> Any:
    """How many match a filter without text, and how many were looked at, each up to one above MAX_COUNTED."""
    labels = wanted_labels(wanted.metadata)
    rest = list(map(having_too, labels[1:]))
    if wanted.status is not None:
        rest.append(Activity.status == wanted.status)
    if wanted.agent_type is not None:
        rest.append(Activity.agent_type == wanted.agent_type)
    leads = bool(labels) and not (wanted.status is not None and not wanted.status.final)
    created_at: Any = ActivityLabel.created_at if leads else Activity.created_at
    times = []
    if wanted.created_after is not None:
        times.append(created_at >= wanted.created_after)
    if wanted.created_before is not None:
        times.append(created_at < wanted.created_before)
    if leads:
        name, value = labels[0]
        window = (
            select(ActivityLabel.agent_id)
            .where(ActivityLabel.name == name, ActivityLabel.value == value, *times)
            .order_by(ActivityLabel.created_at.desc(), ActivityLabel.agent_id.desc())
            .limit(MAX_COUNTED + 1)
            .subquery("counted")
        )
        if not rest:
            return select(func.count(), func.count()).select_from(window)
        match = func.sum(case((and_(*rest), 1), else_=0))
        query = select(match, func.count()).select_from(window)
        return _in_order(query.join(Activity, Activity.agent_id == window.c.agent_id))
    if labels:
        rest.append(having_too(labels[0]))
    elif wanted.status is None:
        rest.append(Activity.status.in_(RANKS))  # named, they let the index serve the time
    matches = select(literal(1).label("one")).select_from(Activity).where(*rest, *times)
    counted = matches.limit(MAX_COUNTED + 1).subquery("counted")
    return select(func.count(), func.count()).select_from(counted)
