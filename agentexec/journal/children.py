"""Tasks that a task enqueues. What makes them the same in every attempt is their id: it is made of their place.

So nothing else is to be recorded: a handler that runs again comes to the id of a task that is there already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from agentexec.activity.changes.statements import ACTIVITY
from agentexec.activity.changes.transitions import NewTask
from agentexec.db.chunks import chunks
from agentexec.journal.recorder import Scope
from agentexec.task import Status

FAILED = (Status.ERROR, Status.CANCELED)


class Child(NamedTuple):
    """A task to be enqueued, or one that was."""

    task: NewTask
    is_new: bool


def candidate_ids(scope: Scope, new: NewTask) -> list[UUID]:
    """The ids that a child has at its place in the task: in the first attempt, and after each one that raised.

    Its place is where the code stands, its name, queue and context, and the how manieth of these it is.
    """
    if new.idempotency_key is not None:
        return [new.agent_id]
    parent, recorder = scope.recorder.lease.agent_id, scope.recorder
    content = hashlib.sha256(f"{new.queue}\n{new.context}".encode("utf-8", "replace")).hexdigest()
    stem = f"{scope.path}/{new.task_name}/{content}"
    place = f"{stem}#{recorder.next_ordinal(stem)}"
    return [_child_id(parent, f"{place}~{failures}") for failures in range(recorder.failures + 1)]


def _child_id(parent: UUID, place: str) -> UUID:
    """A UUID of version 7, as others are: with the time of the parent, so that children stand beside it in an index."""
    hashed = hashlib.sha256(parent.bytes + place.encode("utf-8", "replace")).digest()
    value = int.from_bytes(parent.bytes[:6] + hashed[:10])
    value = value & ~(0xF << 76) | (0x7 << 76)
    return UUID(int=value & ~(0x3 << 62) | (0x2 << 62))


def choose_children(
    connection: Connection,
    scope: Scope,
    batch: Sequence[NewTask],
    places: Sequence[Sequence[UUID]],
    detached: bool,
) -> list[Child]:
    """Of each child the one that is there, else a new one. A child that failed is not taken after its parent has failed.

    After a mere crash it is: the attempt that follows sees what the one before has seen.
    """
    known: dict[UUID, Status] = {}
    if scope.recorder.lease.epoch > 1:
        for chunk in chunks([agent_id for place in places for agent_id in place]):
            query = select(ACTIVITY.c.agent_id, ACTIVITY.c.status).where(ACTIVITY.c.agent_id.in_(chunk))
            known.update((row.agent_id, row.status) for row in connection.execute(query))
    parent = None if detached else scope.recorder.lease.agent_id
    chosen: list[Child] = []
    for new, place in zip(batch, places, strict=True):
        agent_id = next(one for one in place if known.get(one) not in FAILED or one == place[-1])
        chosen.append(Child(new._replace(agent_id=agent_id, parent_id=parent), agent_id not in known))
    return chosen
