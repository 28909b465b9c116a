"""Tasks that ended lately, of all or of those with some labels, among a bounded number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select, true, union_all
from sqlalchemy.orm import Session

from agentexec.activity.models import Activity, ActivityLabel
from agentexec.activity.queries.filters import MAX_PROBED_LABELS, PROBE_LIMIT
from agentexec.activity.queries.labels import label_conditions, wanted_labels

MAX_ENDED = 10_000
"""Tasks, the newest by their end, in which those with a label are looked for, unless few tasks have the label at all."""

MAX_ENDED_OF_ALL = 20_000
"""The same without a label."""

Labels = Sequence[tuple[str, str]]


def _rare_label(db: Session, labels: Labels) -> int | None:
    """Return the position of the label that the fewest tasks have; None unless these are few."""
    probes = [
        select(literal(position).label("position"), func.count().label("found")).select_from(
            _with_label(label).limit(PROBE_LIMIT).subquery(f"probe_{position}")
        )
        for position, label in enumerate(labels[:MAX_PROBED_LABELS])
    ]
    rows = db.execute(union_all(*probes)).all() if probes else []
    rarest = min(rows, key=lambda row: row.found, default=None)
    return rarest.position if rarest is not None and rarest.found < PROBE_LIMIT else None


def _with_label(label: tuple[str, str]) -> Select[Any]:
    name, value = label
    return select(ActivityLabel.agent_id).where(ActivityLabel.name == name, ActivityLabel.value == value)


def select_ended(
    db: Session,
    since: datetime,
    metadata_filter: Mapping[str, Any] | None,
    columns: Sequence[Any],
    condition: ColumnElement[bool] | None = None,
) -> tuple[Select[Any], datetime]:
    """Return a query of the tasks that ended after a moment, the newest first, and the moment from which it has them all.

    It looks at every task of a label that few tasks have, or else at those that ended last: MAX_ENDED with labels,
    MAX_ENDED_OF_ALL without.
    """
    labels = wanted_labels(metadata_filter)
    ended = select(*columns).where(Activity.finished_at > since).order_by(Activity.finished_at.desc())
    conditions = [] if condition is None else [condition]
    if (rare := _rare_label(db, labels)) is not None:
        few = _with_label(labels[rare]).subquery("few")
        others = [label for position, label in enumerate(labels) if position != rare]
        ended = ended.join(few, few.c.agent_id == Activity.agent_id)
        return ended.where(*conditions, *label_conditions(others)), since
    conditions += label_conditions(labels)
    limit = MAX_ENDED if labels else MAX_ENDED_OF_ALL
    # Select whether a task matches, not what it is decided by, as the window of a list does.
    hit = case((and_(true(), *conditions), 1), else_=0).label("hit")
    window = ended.add_columns(Activity.finished_at.label("moment"), hit).limit(limit).subquery("window")
    found = select(*(window.c[column.key] for column in columns)).where(window.c.hit == 1)
    return found.order_by(window.c.moment.desc()), _complete_since(db, since, limit)


def _complete_since(db: Session, since: datetime, limit: int) -> datetime:
    """Return the end of the first task that is left out, or `since` if none is."""
    query = select(Activity.finished_at).where(Activity.finished_at > since)
    left_out = db.scalar(query.order_by(Activity.finished_at.desc()).offset(limit).limit(1))
    return since if left_out is None else left_out
