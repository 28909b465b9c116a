"""Places of the journal that an attempt has come to, by which it knows whether earlier attempts went further."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from uuid import UUID

from sqlalchemy import Connection, select

from agentexec.activity.changes.statements import ACTIVITY
from agentexec.journal.events import EVENT_WAIT
from agentexec.journal.facts import Fact, FactKind, background_path


class Passed:
    """Places that one attempt has come to: runs and steps that it has claimed, calls that it has made or found answered.

    It only grows, and each of its methods is a single operation on a set, so threads need no lock.
    """

    def __init__(self) -> None:
        self._claimed: set[str] = set()
        self._answered: set[str] = set()
        self._turns: set[tuple[str, int]] = set()
        self._children: set[UUID] = set()

    def note_claimed(self, path: str) -> None:
        """Note that the attempt has come to a run, call, step or wait."""
        self._claimed.add(path)

    def note_answered(self, path: str) -> None:
        """Note that the record has answered a call, so that the code inside it does not run again."""
        self._answered.add(path)

    def note_turn(self, path: str, turn: int) -> None:
        """Note that the record has answered a model call."""
        self._turns.add((path, turn))
        self._claimed.add(background_path(path, turn))

    def note_known_children(self, candidates: Iterable[Sequence[UUID]], known: Container[UUID]) -> None:
        """Note those candidates, at places that the attempt has come to, that exist: children of earlier tries."""
        self._children.update(found for ids in candidates for found in ids if found in known)

    def note_children(self, agent_ids: Iterable[UUID]) -> None:
        """Note the children that are, or will be, at a place that the attempt has come to."""
        self._children.update(agent_ids)

    def has_all(self, facts: Sequence[Fact]) -> bool:
        """Return False if a fact of an earlier attempt is at a place that this one has not come to yet."""
        return all(self._has(fact) for fact in facts)

    def has_all_rows(self, connection: Connection, agent_id: UUID) -> bool:
        """Return False if an earlier attempt enqueued a child, or waited for an event, at a place further on."""
        c = ACTIVITY.c
        children = select(c.agent_id).where(c.parent_id == agent_id)
        if not self._children.issuperset(connection.execute(children).scalars()):
            return False
        waits = select(EVENT_WAIT.c.path).where(EVENT_WAIT.c.agent_id == agent_id)
        return self._claimed.issuperset(connection.execute(waits).scalars())

    def _has(self, fact: Fact) -> bool:
        # A sandbox goes along with its run; what begins with a slash is about the task as a whole.
        if fact.kind in (FactKind.SANDBOX, FactKind.FORK) or fact.path.startswith("/"):
            return True
        if fact.kind is FactKind.MODEL:
            if (fact.path, fact.seq) in self._turns:
                return True
        elif fact.path in self._claimed:
            return True
        return self._is_inside_answered(fact.path)

    def _is_inside_answered(self, path: str) -> bool:
        while path:
            if path in self._answered:
                return True
            path = path.rpartition("/")[0]
        return False
