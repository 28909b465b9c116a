"""Tasks that a worker leaves for others: it lacks their names, or it is pinned to another version than theirs.

Those of unknown names end when none has known them for a while. Those of other versions never end for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select, update

from agentexec.activity.changes.admissions import Admissions, LeftTask
from agentexec.activity.changes.crashes import FailedTask
from agentexec.activity.changes.endings import Ending, end
from agentexec.activity.changes.served_tasks import served_names
from agentexec.activity.changes.statements import ACTIVITY
from agentexec.activity.changes.versions import waiting_message
from agentexec.config import CONF
from agentexec.db.chunks import chunks
from agentexec.policy import MAX_EPOCH_LEAD
from agentexec.task import Lease, Status

MAX_UNKNOWN_SECONDS = 600.0
"""Seconds for which a task is left for other workers while none of them reports that it has it; then it ends in ERROR."""

MAX_NAMES_SHOWN = 50
"""Task names listed in an error."""


def left_message(task_name: str) -> str:
    """Return the line in the log of a task that a worker leaves. The row keeps it, and with it the time of the first one."""
    return f"No worker here has task {task_name}; leaving it for others."


def leave_unknown(
    connection: Connection, admissions: Admissions, task_names: Collection[str], now: datetime
) -> None:
    """Sort the unknown tasks of a batch, whose rows are locked, into those that are left and those that end.

    Nothing is written for a task that was left before.
    """
    epochs = dict(admissions.unknown)
    first: dict[tuple[str, Status], list[UUID]] = defaultdict(list)
    given_up: dict[tuple[str, str], list[UUID]] = defaultdict(list)
    for row in _rows(connection, list(epochs)):
        lease = Lease(row.agent_id, epochs[row.agent_id])
        if row.agent_type in task_names:
            leave_run(connection, admissions, lease, row, now)
            continue
        waited = (now - row.updated_at).total_seconds()
        if row.message != left_message(row.agent_type):
            first[row.agent_type, row.status].append(row.agent_id)
            waited = 0.0
        elif waited >= MAX_UNKNOWN_SECONDS:
            served = served_names(connection, row.queue, now) | {*task_names}
            if row.agent_type not in served:
                given_up[row.agent_type, _listed(served)].append(row.agent_id)
                admissions.ended.append(lease)
                continue
        admissions.left.append(LeftTask(lease, row.agent_type, waited))
    for (name, status), ids in first.items():
        # A row that is RUNNING was left by a worker that died.
        left = Ending(Lease(ids[0], 0), Status.QUEUED, left_message(name))
        end(connection, left, ids, now, crashes=int(status is Status.RUNNING))
    for (name, served), ids in given_up.items():
        error = (
            f"no worker had a task named {name} for {MAX_UNKNOWN_SECONDS / 60:.0f} minutes; "
            f"the tasks of the workers on its queue are {served}"
        )
        message = CONF.activity_message_error.format(error=error)
        end(connection, Ending(Lease(ids[0], 0), Status.ERROR, message, error=error), ids, now)
        admissions.failed.extend(FailedTask(agent_id, name, error) for agent_id in ids)


def leave_run(connection: Connection, admissions: Admissions, lease: Lease, row: Any, now: datetime) -> None:
    """Leave a task, whose row is locked, for the workers of its version, or a new one for those of a newer version."""
    if row.version is None:
        admissions.left.append(LeftTask(lease, row.agent_type, 0.0, is_new=True))
        return
    message, waited = waiting_message(row.version), (now - row.updated_at).total_seconds()
    if row.message != message:
        # A row that is RUNNING was left by a worker that died.
        left, crashes = Ending(lease, Status.QUEUED, message), int(row.status is Status.RUNNING)
        end(connection, left, [row.agent_id], now, crashes=crashes)
        waited = 0.0
    elif lease.epoch - row.epoch > MAX_EPOCH_LEAD // 2:
        # It may wait for days, and the record takes no claim that is further ahead.
        connection.execute(
            update(ACTIVITY).where(ACTIVITY.c.agent_id == row.agent_id).values(epoch=lease.epoch - 1)
        )
    admissions.left.append(LeftTask(lease, row.agent_type, waited, row.version))


def _rows(connection: Connection, agent_ids: Sequence[UUID]) -> list[Any]:
    c = ACTIVITY.c
    query = select(c.agent_id, c.agent_type, c.status, c.queue, c.message, c.updated_at, c.version, c.epoch)
    return [
        row
        for chunk in chunks(agent_ids)
        for row in connection.execute(query.where(c.agent_id.in_(chunk))).all()
    ]


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:MAX_NAMES_SHOWN]) or "none"
    return shown if len(names) <= MAX_NAMES_SHOWN else f"{shown} and {len(names) - MAX_NAMES_SHOWN} more"
