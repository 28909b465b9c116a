"""List filters, and the choice of the most selective index."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal, select, union_all
from sqlalchemy.orm import Session, aliased

from agentexec.activity.models import Activity, ActivityLabel
from agentexec.activity.queries.labels import residual_label_condition, wanted_labels
from agentexec.task import Status

RANKS = {Status.RUNNING: 0, Status.QUEUED: 1, Status.COMPLETE: 2, Status.ERROR: 2, Status.CANCELED: 2}
"""Rank of each status: lists are ordered by rank, then by time."""

PROBE_LIMIT = 3_000
"""Rows counted per condition to estimate its selectivity.

Of two conditions that more rows meet, the one whose newest rows reach further back is the more selective one.
"""

MAX_PROBED_LABELS = 8
"""Labels of a filter that may drive the query, the first ones: each adds a part to the statement that estimates."""

_OTHER = aliased(
    Activity
)  # made once: making it takes SQLAlchemy longer than reading a page takes a database

DrivingLabels = tuple[int | None, int | None, int | None]
"""For each rank, the position of the label whose index drives the query; None where status and task name drive it."""


class Filter(NamedTuple):
    """Filter of a list; None does not filter by that field."""

    status: Status | None = None
    task_name: str | None = None
    text: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, Any] | None = None
    any_of: tuple[Status, ...] | None = None
    """Several statuses, instead of `status`."""
    queue: str | None = None
    driving_labels: DrivingLabels = (None, None, 0)
    """By default: few activities are active, and the first label is more selective than the task name."""

    @property
    def is_plain(self) -> bool:
        """True if the counts by task name and status tell how many activities match."""
        return not (
            self.is_search or self.is_by_queue or self.created_after or self.created_before or self.metadata
        )

    @property
    def is_search(self) -> bool:
        """True if there are conditions that no index has: they are searched for in a bounded number of activities."""
        return (self.text is not None or self.queue is not None) and not self.is_by_queue

    @property
    def is_by_queue(self) -> bool:
        """True if the queue is looked for in the index by status alone: in more activities than a text."""
        return self.queue is not None and not (self.text is not None or self.task_name or self.metadata)

    @property
    def statuses(self) -> list[Status]:
        """All statuses that are wanted, in the order of a list."""
        return [status for status in RANKS if self.has(status)]

    def has(self, status: Status) -> bool:
        """Return True if activities with this status are wanted."""
        return self.status in (None, status) and (self.any_of is None or status in self.any_of)

    @property
    def has_no_status_or_type(self) -> bool:
        """True if the filter has neither a status nor a task name."""
        return self.status is None and self.any_of is None and self.task_name is None

    @property
    def has_residual_conditions(self) -> bool:
        """True if there are conditions to be looked up for each row that the driving condition finds."""
        return bool(self.metadata) and (len(self.metadata) > 1 or not self.has_no_status_or_type)

    def driving_label(self, rank: int) -> int | None:
        """Return the position of the label that drives the query for activities of a rank, if one does."""
        return self.driving_labels[rank] if self.metadata else None

    def status_groups(self) -> list[tuple[Status, ...]]:
        """Return the statuses of the filter, grouped where a single index has them in the order of the list."""
        together = self.driving_label(RANKS[Status.COMPLETE]) is not None
        groups: list[tuple[Status, ...]] = [(status,) for status in RANKS if not (together and status.final)]
        if together:
            groups.append(tuple(status for status in RANKS if status.final))
        wanted = [tuple(status for status in group if self.has(status)) for group in groups]
        return [group for group in wanted if group]

    def time_conditions(self, created_at: Any) -> list[ColumnElement[bool]]:
        """Return the conditions on the time of creation."""
        conditions = []
        if self.created_after is not None:
            conditions.append(created_at >= self.created_after)
        if self.created_before is not None:
            conditions.append(created_at < self.created_before)
        return conditions


class _Candidate(NamedTuple):
    """Condition that could drive the query for activities of a rank."""

    rank: int
    label: int | None
    """Position of the label; None for status and task name."""
    rows: Select[Any]
    """Times of creation of the activities that meet the condition, newest first."""


class _Selectivity(NamedTuple):
    """Estimate of how few rows meet a condition; the lower, the fewer."""

    rows: int
    oldest: datetime | None


def with_most_selective_index(db: Session, wanted: Filter, ranks: Collection[int] = (0, 1, 2)) -> Filter:
    """Return the filter with the most selective driving condition for each rank. Runs at most one statement.

    A list reads as many rows as meet the driving condition; the other conditions are looked up for each of them.
    """
    if not wanted.metadata:
        return wanted
    if wanted.status is not None or wanted.any_of is not None:
        ranks = sorted({RANKS[status] for status in wanted.statuses})
    candidates = [candidate for rank in ranks for candidate in _candidates(wanted, rank)]
    estimates = _estimate(db, candidates)
    driving = list(wanted.driving_labels)
    for rank in {rank for rank, _ in estimates}:
        labels = {label: estimate for (at, label), estimate in estimates.items() if at == rank}
        driving[rank] = min(labels, key=labels.__getitem__)
    return wanted._replace(driving_labels=(driving[0], driving[1], driving[2]))


def _estimate(db: Session, candidates: Sequence[_Candidate]) -> dict[tuple[int, int | None], _Selectivity]:
    """Return the selectivity of each candidate by rank and label, in one statement."""
    probes = [
        select(
            literal(number).label("number"),
            func.count().label("found"),
            func.min(newest.c.created_at).label("oldest"),
        )
        for number, candidate in enumerate(candidates)
        for newest in [candidate.rows.limit(PROBE_LIMIT).subquery(f"newest_{number}")]
    ]
    estimates: dict[tuple[int, int | None], _Selectivity] = {}
    for row in db.execute(union_all(*probes)):
        rank, label, _ = candidates[row.number]
        found = _Selectivity(row.found, row.oldest)
        # Among several statuses on the same index, the most frequent one decides.
        estimates[rank, label] = max(
            estimates.get((rank, label), _Selectivity(0, None)), found, key=lambda estimate: estimate.rows
        )
    return estimates


def _candidates(wanted: Filter, rank: int) -> Iterator[_Candidate]:
    statuses = [status for status in wanted.statuses if RANKS[status] == rank]
    for position, (name, value) in enumerate(wanted_labels(wanted.metadata)[:MAX_PROBED_LABELS]):
        at: Any = ActivityLabel.created_at
        label = (ActivityLabel.name == name, ActivityLabel.value == value)
        rows = select(at).where(*label, *wanted.time_conditions(at), *since_oldest(statuses, at))
        yield _Candidate(rank, position, rows.order_by(at.desc()))
    if wanted.task_name is None and len(statuses) > 1:
        return  # almost every condition is more selective than having ended
    for status in statuses:
        conditions = [Activity.status == status, *wanted.time_conditions(Activity.created_at)]
        if wanted.task_name is not None:
            conditions.append(Activity.agent_type == wanted.task_name)
        rows = select(Activity.created_at).where(*conditions)
        yield _Candidate(rank, None, rows.order_by(Activity.created_at.desc()))


def since_oldest(statuses: Sequence[Status], created_at: Any) -> list[ColumnElement[bool]]:
    """Return a lower bound on the time, for an active status: nothing older than its oldest activity need be read."""
    if len(statuses) > 1 or statuses[0].final:
        return []
    # As a minimum, MariaDB looks it up before it plans, and starts reading the other index there.
    oldest = select(func.min(_OTHER.created_at)).where(_OTHER.status == statuses[0])
    return [created_at >= oldest.scalar_subquery()]


def _status_and_name(wanted: Filter, statuses: Sequence[Status]) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        Activity.status == statuses[0] if len(statuses) == 1 else Activity.status.in_(statuses)
    ]
    if wanted.task_name is not None:
        conditions.append(Activity.agent_type == wanted.task_name)
    return conditions


def driving_conditions(
    wanted: Filter, statuses: Sequence[Status], label: int | None, source: Any
) -> list[ColumnElement[bool]]:
    """Return the conditions by which rows are found in an index: that of a label, or that of status and task name.

    `source` is the table of the index: ActivityLabel, or Activity if `label` is None.
    """
    if label is None:
        return [*_status_and_name(wanted, statuses), *wanted.time_conditions(source.created_at)]
    name, value = wanted_labels(wanted.metadata)[label]
    has_label = (source.name == name, source.value == value)
    return [
        *has_label,
        *wanted.time_conditions(source.created_at),
        *since_oldest(statuses, source.created_at),
    ]


def residual_conditions(
    wanted: Filter,
    statuses: Sequence[Status],
    label: int | None,
    agent_id: Any,
    created_at: Any,
    queue: str | None = None,
) -> list[ColumnElement[bool]]:
    """Return the other conditions, each of them a look into an index for each row that the driving condition finds.

    All are scalar subqueries: for joins, a planner may start with the other side, and sort.
    """
    labels = wanted_labels(wanted.metadata)
    conditions = []
    if label is not None:
        del labels[label]
        if wanted.task_name is not None or len(statuses) < len(RANKS):
            # With the time, the index by status answers it, which is far smaller than the table.
            same = (Activity.agent_id == agent_id, Activity.created_at == created_at)
            found = select(literal(1)).where(*same, *_status_and_name(wanted, statuses))
            if queue is not None:
                found = found.where(Activity.queue == queue)
            conditions.append(found.scalar_subquery().is_not(None))
    return conditions + [residual_label_condition(other, agent_id, created_at) for other in labels]


def select_matching_ids(wanted: Filter, status: Status, queue: str | None = None) -> Select[Any]:
    """Return a query for the ids of the activities with a status that match a filter, in no order.

    The filter has no queue; with `queue` as well, the index by status has it.
    """
    label = wanted.driving_label(RANKS[status])
    source: Any = Activity if label is None else ActivityLabel
    others = residual_conditions(wanted, (status,), label, source.agent_id, source.created_at, queue)
    driving = driving_conditions(wanted, (status,), label, source)
    if label is None and queue is not None:
        driving.append(Activity.queue == queue)
    return select(source.agent_id).where(*driving, *others)
