"""Tasks that a task enqueues. A child's id is derived from its place in the parent, so it is the same in every attempt.

Nothing else needs to be recorded: a handler that runs again arrives at the id of a task that exists.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.activity.changes.statements import ACTIVITY
from agentexec.arguments.budgets import NO_BUDGET, dump_budget, inherit_budget, load_budget
from agentexec.db.chunks import chunks
from agentexec.journal.canonical import canonical_json
from agentexec.journal.forks import read_fork
from agentexec.journal.recorder import Scope
from agentexec.runtime import RUNTIME
from agentexec.task import FAILED_STATUSES, Status


class Child(NamedTuple):
    """A task that is to be enqueued, or that an earlier attempt enqueued."""

    task: NewTask
    is_new: bool


class Place(NamedTuple):
    """A child's place in its parent, as the ids that it may have there: for the first attempt, then for each retry."""

    ids: list[UUID]
    former_ids: Sequence[UUID] = ()
    """The ids that earlier releases gave it, if an earlier attempt may have used them."""
    text: str = ""
    """The place itself, of which its ids are made."""


def candidate_ids(scope: Scope, new: NewTask) -> Place:
    """Return the ids that a child may have at its place.

    The place consists of the position of the running code, the child's name, queue and context, and its ordinal among
    identical siblings. A task with an idempotency key has one id of its own.
    """
    if new.idempotency_key is not None:
        return Place([new.agent_id])
    identity = None if new.context is None else canonical_json(json.loads(new.context))
    place, ids = _ids_of(scope, new, identity)
    if identity == new.context or scope.recorder.lease.epoch == 1:
        return Place(ids, text=place)
    return Place(ids, _ids_of(scope, new, new.context)[1], place)


def _ids_of(scope: Scope, new: NewTask, context: str | None) -> tuple[str, list[UUID]]:
    """Return a child's place, and the ids that it may have there."""
    parent, recorder = scope.recorder.lease.agent_id, scope.recorder
    content = hashlib.sha256(f"{new.queue}\n{context}".encode("utf-8", "replace")).hexdigest()
    stem = f"{scope.path}/{new.task_name}/{content}"
    place = f"{stem}#{recorder.next_ordinal(stem)}"
    return place, _ids_at(parent, place, recorder.failures)


def _ids_at(parent: UUID, place: str, failures: int) -> list[UUID]:
    return [_child_id(parent, f"{place}~{number}") for number in range(failures + 1)]


def _child_id(parent: UUID, place: str) -> UUID:
    """Return a UUID of version 7 with the time of the parent, so that children are next to it in an index."""
    hashed = hashlib.sha256(parent.bytes + place.encode("utf-8", "replace")).digest()
    value = int.from_bytes(parent.bytes[:6] + hashed[:10])
    value = value & ~(0xF << 76) | (0x7 << 76)
    return UUID(int=value & ~(0x3 << 62) | (0x2 << 62))


def choose_children(
    connection: Connection,
    scope: Scope,
    batch: Sequence[NewTask],
    places: Sequence[Place],
    detached: bool,
    *,
    may_exist: bool = False,
) -> list[Child]:
    """Return the existing child for each new task that has one, else the task as a new child.

    `may_exist`: this attempt may have added them already.
    """
    known: dict[UUID, Status] = {}
    if may_exist or scope.recorder.repeats:
        for chunk in chunks([agent_id for place in places for agent_id in (*place.ids, *place.former_ids)]):
            query = select(ACTIVITY.c.agent_id, ACTIVITY.c.status).where(ACTIVITY.c.agent_id.in_(chunk))
            known.update((row.agent_id, row.status) for row in connection.execute(query))
        places = _with_forked(connection, scope.recorder.lease.agent_id, places, known)
        scope.recorder.passed.note_known_children((place.ids for place in places), known)
    parent = None if detached else scope.recorder.lease.agent_id
    children = [
        Child(_with_budget(scope, new._replace(agent_id=agent_id, parent_id=parent)), agent_id not in known)
        for new, agent_id in zip(batch, (choose_at(place, known) for place in places), strict=True)
    ]
    scope.recorder.passed.note_children(child.task.agent_id for child in children)
    return children


def _with_forked(
    connection: Connection, agent_id: UUID, places: Sequence[Place], known: dict[UUID, Status]
) -> Sequence[Place]:
    """Let a fork find the children that its origins had enqueued before the fork; add their statuses to `known`."""
    fork = read_fork(connection, agent_id)
    if fork is None:
        return places
    until = {
        candidate: (place.text, origin.until)
        for place in places
        if place.text
        for origin in fork.origins
        for candidate in _ids_at(origin.agent_id, place.text, origin.attempts)
    }
    adopted: dict[str, list[UUID]] = {}
    for chunk in chunks(list(until)):
        query = select(ACTIVITY.c.agent_id, ACTIVITY.c.status, ACTIVITY.c.created_at)
        rows = {row.agent_id: row for row in connection.execute(query.where(ACTIVITY.c.agent_id.in_(chunk)))}
        for candidate in chunk:
            text, moment = until[candidate]
            if candidate in rows and rows[candidate].created_at < moment:
                known[candidate] = rows[candidate].status
                adopted.setdefault(text, []).append(candidate)
    return [place._replace(former_ids=adopted.get(place.text, place.former_ids)) for place in places]


def _with_budget(scope: Scope, child: NewTask) -> NewTask:
    """Return a child that counts for the budgets of its parent; one that is detached does not."""
    parent = scope.recorder.budget.task
    if child.parent_id is None or parent == NO_BUDGET:
        return child
    own, definition = load_budget(child.budget), RUNTIME.definition(child.task_name)
    if own.on_budget is None and definition is not None:
        own = own._replace(on_budget=definition.budget.on_budget)
    return child._replace(budget=dump_budget(inherit_budget(own, child.parent_id, parent)))


def choose_at(place: Place, known: Mapping[UUID, Status]) -> UUID:
    """Return the id that a child has at its place, given the statuses of the tasks that exist."""
    was_enqueued_before = any(agent_id in known for agent_id in place.former_ids)
    return choose_id(place.former_ids if was_enqueued_before else place.ids, known)


def choose_id(candidates: Sequence[UUID], known: Mapping[UUID, Status]) -> UUID:
    """Decide which of its candidate ids a child has; `known` are the statuses of the tasks that exist.

    A child that failed before its parent raised is replaced by the next candidate, so that the retry tries it again.
    After a mere crash there is no next candidate: the new attempt sees what the crashed one saw.
    """
    for agent_id in candidates:
        if known.get(agent_id) not in FAILED_STATUSES:
            return agent_id
    return candidates[-1]
