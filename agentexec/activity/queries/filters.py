"""What a list is limited to, and by which index it is read: that of the condition which the fewest meet."""

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
"""The order of a list, before that of time."""

PROBE_LIMIT = 3_000
"""So many of what meets a condition are counted to find the rarest; of two that more meet, that is rarer whose newest
so many reach further back."""

_OTHER = aliased(Activity)  # made once: SQLAlchemy takes longer for it than a database for a page

Leads = tuple[int | None, int | None, int | None]
"""For each rank the number of the label that leads, or None where status and task name do."""


class Filter(NamedTuple):
    """What a list is limited to; None: not by this."""

    status: Status | None = None
    agent_type: str | None = None
    text: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, Any] | None = None
    driving_labels: Leads = (None, None, 0)
    """By default few are active, and the first label is rarer than the task name."""

    @property
    def is_plain(self) -> bool:
        """True if the numbers by type and status tell how many match."""
        return not (self.text or self.created_after or self.created_before or self.metadata)

    @property
    def has_no_status_or_type(self) -> bool:
        """True if neither a status nor a task name is asked for."""
        return self.status is None and self.agent_type is None

    @property
    def has_residual_conditions(self) -> bool:
        """True if besides the condition that leads there are others, to be looked up."""
        return bool(self.metadata) and (len(self.metadata) > 1 or not self.has_no_status_or_type)

    def driving_label(self, rank: int) -> int | None:
        """The number of the label that leads among activities of a rank."""
        return self.driving_labels[rank] if self.metadata else None

    def status_groups(self) -> list[tuple[Status, ...]]:
        """The statuses asked for, together where one index has them in the order of the list."""
        together = self.driving_label(RANKS[Status.COMPLETE]) is not None
        groups: list[tuple[Status, ...]] = [(status,) for status in RANKS if not (together and status.final)]
        if together:
            groups.append(tuple(status for status in RANKS if status.final))
        if self.status is not None:
            groups = [(self.status,) for group in groups if self.status in group]
        return groups

    def within(self, created_at: Any) -> list[ColumnElement[bool]]:
        """The conditions by time."""
        conditions = []
        if self.created_after is not None:
            conditions.append(created_at >= self.created_after)
        if self.created_before is not None:
            conditions.append(created_at < self.created_before)
        return conditions


def with_most_selective_index(db: Session, wanted: Filter, ranks: Collection[int] = (0, 1, 2)) -> Filter:
    """The filter, led by the condition that is rarest among running, queued and ended activities, in one statement.

    What a list reads is bounded by the rarest: the others are looked up for each activity that meets it.
    """
    if not wanted.metadata:
        return wanted
    sources = [
        (rank, lead, source)
        for rank in ((RANKS[wanted.status],) if wanted.status else ranks)
        for lead, source in _sources(wanted, rank)
    ]
    looks = [
        select(
            literal(number).label("number"),
            func.count().label("found"),
            func.min(newest.c.created_at).label("reach"),
        )
        for number, (_, _, source) in enumerate(sources)
        for newest in [source.limit(PROBE_LIMIT).subquery(f"newest_{number}")]
    ]
    found: dict[tuple[int, int | None], tuple[int, datetime | None]] = {}
    for row in db.execute(union_all(*looks)):
        rank, lead, _ = sources[row.number]
        # Of several statuses with the same index the one that has the most tells how rare they are.
        found[rank, lead] = max(
            found.get((rank, lead), (0, None)), (row.found, row.reach), key=lambda one: one[0]
        )
    leads = list(wanted.driving_labels)
    for rank in {rank for rank, _ in found}:
        choices = [(lead, rarity) for (at, lead), rarity in found.items() if at == rank]
        leads[rank] = min(choices, key=lambda choice: choice[1])[0]
    return wanted._replace(driving_labels=(leads[0], leads[1], leads[2]))


def _sources(wanted: Filter, rank: int) -> Iterator[tuple[int | None, Select[Any]]]:
    """What may lead among the activities of a rank: when they were made, the newest first."""
    statuses = [status for status in RANKS if RANKS[status] == rank and wanted.status in (None, status)]
    for lead, (name, value) in enumerate(wanted_labels(wanted.metadata)):
        at: Any = ActivityLabel.created_at
        label = (ActivityLabel.name == name, ActivityLabel.value == value)
        found = select(at).where(*label, *wanted.within(at), *since_oldest(statuses, at))
        yield lead, found.order_by(at.desc())
    if wanted.agent_type is None and len(statuses) > 1:
        return  # hardly anything is rarer than what has ended
    for status in statuses:
        conditions = [Activity.status == status, *wanted.within(Activity.created_at)]
        if wanted.agent_type is not None:
            conditions.append(Activity.agent_type == wanted.agent_type)
        yield None, select(Activity.created_at).where(*conditions).order_by(Activity.created_at.desc())


def since_oldest(statuses: Sequence[Status], created_at: Any) -> list[ColumnElement[bool]]:
    """What is active is mostly new: nothing older than the oldest of it needs to be read."""
    if len(statuses) > 1 or statuses[0].final:
        return []
    # As a minimum MariaDB looks it up before it plans, and enters the other index there.
    oldest = select(func.min(_OTHER.created_at)).where(_OTHER.status == statuses[0])
    return [created_at >= oldest.scalar_subquery()]


def _kind(wanted: Filter, statuses: Sequence[Status]) -> list[ColumnElement[bool]]:
    """The conditions by status and task name."""
    kind: list[ColumnElement[bool]] = [
        Activity.status == statuses[0] if len(statuses) == 1 else Activity.status.in_(statuses)
    ]
    if wanted.agent_type is not None:
        kind.append(Activity.agent_type == wanted.agent_type)
    return kind


def driving_conditions(
    wanted: Filter, statuses: Sequence[Status], lead: int | None, source: Any
) -> list[ColumnElement[bool]]:
    """The conditions by which an index is entered, of the label that leads or of status and task name."""
    if lead is None:
        return [*_kind(wanted, statuses), *wanted.within(source.created_at)]
    name, value = wanted_labels(wanted.metadata)[lead]
    this = (source.name == name, source.value == value)
    return [*this, *wanted.within(source.created_at), *since_oldest(statuses, source.created_at)]


def residual_conditions(
    wanted: Filter, statuses: Sequence[Status], lead: int | None, agent_id: Any, created_at: Any
) -> list[ColumnElement[bool]]:
    """The other conditions, each answered by one look into an index for each activity that the leading one finds.

    All are scalar subqueries: of joins a planner may begin with the other side, and sort.
    """
    labels = wanted_labels(wanted.metadata)
    conditions = []
    if lead is not None:
        del labels[lead]
        if wanted.agent_type is not None or len(statuses) < len(RANKS):
            # With the time it is in the index by status, which is far smaller than the table.
            this = (Activity.agent_id == agent_id, Activity.created_at == created_at)
            kind = select(literal(1)).where(*this, *_kind(wanted, statuses))
            conditions.append(kind.scalar_subquery().is_not(None))
    return conditions + [residual_label_condition(label, agent_id, created_at) for label in labels]


def select_matching_ids(wanted: Filter, status: Status) -> Select[Any]:
    """The ids of activities with a status that meet a filter, in no order."""
    lead = wanted.driving_label(RANKS[status])
    source: Any = Activity if lead is None else ActivityLabel
    others = residual_conditions(wanted, (status,), lead, source.agent_id, source.created_at)
    return select(source.agent_id).where(*driving_conditions(wanted, (status,), lead, source), *others)
