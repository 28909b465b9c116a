"""Locks and limits on the SQL backend: the tasks that each has admitted, and those that wait for it.

A group's rows are changed by one transaction at a time: each locks the stripe of the group first, a row that many groups
share. Stripes come before the queue's rows, except those that a claim has found unlocked.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Uuid, bindparam, text

from agentexec.state.groups import capacity, is_lock
from agentexec.state.sql_backend.dialects import SqlDialect
from agentexec.state.sql_models import LEASED, PARKED, RANKED, QueueEntry, QueueMember
from agentexec.state.sql_models import Counter as CounterRow
from agentexec.task import LIMIT, LOCK, Entry, Priority

IDLE, HAS_LOCK, HAS_LIMIT, WAITS = range(4)
"""States of a task in one of its groups."""

PLAIN_LANES = tuple(Priority)
"""Lanes of ready tasks that do not take turns."""

STRIPES = 64
"""Rows that all groups share."""

MAX_FREED = 100
"""Tasks of one group that one call lets in."""

INTACT = "intact:"
"""Start of the name of the counter that says that a queue's index is complete."""

MAX_HOLDERS = 20
"""Holders of a group that are shown."""


class GroupStatements:
    """Statements on the members of groups."""

    def __init__(self, dialect: SqlDialect) -> None:
        members, queue, counters, ids = (
            QueueMember.__tablename__,
            QueueEntry.__tablename__,
            CounterRow.__tablename__,
            dialect.ids,
        )
        in_ids, now = f"agent_id {dialect.in_ids}", dialect.now
        names, in_names = dialect.names, dialect.in_names
        state_held = f"CASE WHEN SUBSTR(name, 1, {len(LOCK)}) = '{LOCK}' THEN {HAS_LOCK} ELSE {HAS_LIMIT} END"

        self.lock_stripes = text(
            f"SELECT name FROM {counters} WHERE name {in_names} ORDER BY name{dialect.for_update}"
        ).bindparams(names)
        self.create_stripe = text(
            f"{dialect.insert} INTO {counters} (name, value) VALUES (:name, 0){dialect.on_conflict}"
        )
        self.insert = text(
            f"{dialect.insert} INTO {members} (agent_id, name, queue, state, priority, place) "
            f"VALUES (:id, :name, :queue, :state, :priority, COALESCE(:place, {now} + :shift)){dialect.on_conflict}"
        ).bindparams(bindparam("id", type_=Uuid()))
        self.drop_orphans = text(
            f"DELETE FROM {members} WHERE {in_ids} "
            f"AND NOT EXISTS (SELECT 1 FROM {queue} q WHERE q.agent_id = {members}.agent_id)"
        ).bindparams(ids)
        self.drop_all_orphans = text(
            f"DELETE FROM {members} WHERE queue = :queue "
            f"AND NOT EXISTS (SELECT 1 FROM {queue} q WHERE q.agent_id = {members}.agent_id)"
        )
        self.members = (
            text(f"SELECT agent_id, name, state FROM {members} WHERE {in_ids}")
            .bindparams(ids)
            .columns(agent_id=Uuid())
        )
        # A member whose task the queue has lost holds nothing.
        held = (
            f"FROM {members} m JOIN {queue} q ON q.agent_id = m.agent_id WHERE m.queue = :queue AND m.name {in_names} "
            f"AND (m.state = {HAS_LOCK} OR m.state = {HAS_LIMIT} AND q.lane = {LEASED})"
        )
        self.counts = text(
            f"SELECT m.name, COUNT(*) AS held {held} GROUP BY m.name "
            f"UNION ALL SELECT name, value FROM {counters} WHERE name = :intact"
        ).bindparams(names)
        self.holders = (
            text(f"SELECT m.agent_id {held} LIMIT {MAX_HOLDERS}").bindparams(names).columns(agent_id=Uuid())
        )
        self.hold = text(f"UPDATE {members} SET state = {state_held} WHERE {in_ids}").bindparams(ids)
        self.hold_locks = text(
            f"UPDATE {members} SET state = {HAS_LOCK} WHERE {in_ids} AND SUBSTR(name, 1, {len(LOCK)}) = '{LOCK}'"
        ).bindparams(ids)
        self.leave_limits = text(
            f"UPDATE {members} SET state = {IDLE} WHERE state = {HAS_LIMIT} AND {in_ids}"
        ).bindparams(ids)
        self.ready_before = text(
            f"SELECT agent_id, at FROM {queue} WHERE queue = :queue AND lane = :lane AND at <= :at AND grouped <> 0"
        ).columns(agent_id=Uuid())
        self.parked = text(f"SELECT agent_id FROM {queue} WHERE queue = :queue AND lane = {PARKED}").columns(
            agent_id=Uuid()
        )
        self.park = text(f"UPDATE {queue} SET lane = {PARKED} WHERE {in_ids}").bindparams(ids)
        self.wait = text(
            f"UPDATE {members} SET state = {WAITS}, place = CASE WHEN place > {now} THEN {now} ELSE place END "
            f"WHERE SUBSTR(name, 1, :length) = :prefix AND {in_ids}"
        ).bindparams(ids)
        waiting = (
            f"FROM {members} m JOIN {queue} q ON q.agent_id = m.agent_id AND q.lane = {PARKED} "
            f"WHERE m.queue = f.queue AND m.name = f.name AND m.state = {WAITS}"
        )
        self.next_waiting = (
            text(
                f"SELECT f.name, (SELECT m.agent_id {waiting} ORDER BY m.priority, m.place, m.agent_id LIMIT 1) AS next_id "
                f"FROM {members} f WHERE f.{in_ids}"
            )
            .bindparams(ids)
            .columns(next_id=Uuid())
        )
        self.waiting_before = text(
            f"SELECT f.name, (SELECT COUNT(*) {waiting} AND (m.priority < f.priority OR m.priority = f.priority "
            "AND (m.place < f.place OR m.place = f.place AND m.agent_id < f.agent_id))) AS before_it "
            f"FROM {members} f JOIN {queue} p ON p.agent_id = f.agent_id AND p.lane = {PARKED} "
            f"WHERE f.agent_id = :id AND f.state = {WAITS}"
        ).bindparams(bindparam("id", type_=Uuid()))
        self.unpark = text(
            # One that takes turns has had its turn: it goes to the front.
            f"UPDATE {queue} SET lane = CASE WHEN flow IS NULL THEN priority ELSE {RANKED} + priority END, "
            f"at = CASE WHEN flow IS NULL THEN at ELSE -({now}) END WHERE lane = {PARKED} AND {in_ids}"
        ).bindparams(ids)
        self.stop_waiting = text(
            f"UPDATE {members} SET state = {IDLE} WHERE state = {WAITS} AND {in_ids}"
        ).bindparams(ids)
        self.forget = text(f"DELETE FROM {members} WHERE {in_ids}").bindparams(ids)


class Occupancy:
    """Tasks in each group while a claim lets further ones in.

    `ahead`: the position of the first task of a lock that another transaction is claiming. `is_complete`: False for an index that
    was emptied. It does not know who has a lock, nor who comes first, so no lock is given away.
    """

    def __init__(
        self,
        limits: Mapping[str, int],
        counts: Counter[str],
        ahead: Mapping[str, tuple[int, UUID]],
        *,
        is_complete: bool,
    ) -> None:
        self._limits = limits
        self._counts = counts
        self._ahead = ahead
        self._is_complete = is_complete
        self._joined_limits: set[str] = set()

    def add(self, groups: Mapping[str, int], position: tuple[int, UUID] | None) -> str | None:
        """Count a task in its groups, up to the first one that is full; return that one's kind."""
        for name, state in groups.items():
            if state in (HAS_LOCK, HAS_LIMIT):
                continue
            most, held = capacity(name, self._limits), self._counts.get(name, 0)
            of_lock = is_lock(name)
            is_full = most is not None and held >= most
            is_full |= of_lock and not self._is_complete
            if is_full or (position is not None and self._ahead.get(name, position) < position):
                return LOCK if of_lock else LIMIT
            self._counts[name] = held + 1
            if not of_lock:
                self._joined_limits.add(name)
        return None

    def open_limits(self) -> set[str]:
        """Return the limits that let a task in and have room for more: they were raised, or removed."""
        capacities = {name: capacity(name, self._limits) for name in self._joined_limits}
        return {name for name, most in capacities.items() if most is None or self._counts[name] < most}


class Groups:
    """Groups of the tasks on the SQL backend. Every method is part of the caller's transaction."""

    def __init__(self, dialect: SqlDialect) -> None:
        self.sql = GroupStatements(dialect)
        self._params = dialect.params
        self.has_row_locks = bool(dialect.for_update)

    def join(self, connection: Connection, members: Sequence[dict[str, Any]]) -> None:
        """Note the groups of new tasks, before their rows are added, in statements whose results nobody reads."""
        ids = sorted({member["id"] for member in members})
        connection.execute(self.sql.drop_orphans, {"ids": ids})
        connection.execute(self.sql.insert, members[0] if len(members) == 1 else list(members))

    def members(self, connection: Connection, agent_ids: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
        """Return the groups of tasks, the locks first, each with the task's state there."""
        found: dict[UUID, dict[str, int]] = {}
        rows = connection.execute(self.sql.members, {"ids": list(agent_ids)}).all()
        for row in rows:
            found.setdefault(row.agent_id, {})[row.name] = row.state
        if len(found) == len(rows):
            return found  # each has one group
        return {
            agent_id: dict(sorted(groups.items(), key=lambda item: not is_lock(item[0])))
            for agent_id, groups in found.items()
        }

    def lock(self, connection: Connection, queue: str, names: Iterable[str]) -> None:
        """Keep other transactions from changing these groups until this one ends."""
        if not self.has_row_locks:
            return  # the transaction has the database's write lock
        self._lock_stripes(connection, sorted({_stripe(queue, name) for name in names}))

    def lock_all(self, connection: Connection) -> None:
        """Keep other transactions from changing any group until this one ends."""
        if self.has_row_locks:
            self._lock_stripes(connection, sorted(f"group:{number}" for number in range(STRIPES)))

    def _lock_stripes(self, connection: Connection, stripes: Sequence[str]) -> None:
        known = connection.execute(self.sql.lock_stripes, {"names": stripes}).scalars().all()
        if missing := sorted({*stripes} - {*known}):
            connection.execute(self.sql.create_stripe, [{"name": name} for name in missing])
            connection.execute(self.sql.lock_stripes, {"names": stripes})

    def admit(
        self, connection: Connection, queue: str, rows: Sequence[Any], limits: Mapping[str, int]
    ) -> tuple[set[UUID], list[UUID]]:
        """Let ready tasks of one lane into their groups, in order; return those, and tasks whose groups are lost.

        Of the others, each waits for its first group that is full, and has those before it.
        """
        members = self.members(connection, [row.agent_id for row in rows])
        lost = [row.agent_id for row in rows if row.agent_id not in members]
        names = {name for groups in members.values() for name in groups}
        if not names:
            return set(), lost
        self.lock(connection, queue, names)
        ahead = self._find_ahead(connection, queue, rows)
        counts = self.counts(connection, queue, names)
        occupancy = Occupancy(limits, counts, ahead, is_complete=counts[INTACT + queue] > 0)
        admitted: list[UUID] = []
        waiting: dict[str, list[UUID]] = {LOCK: [], LIMIT: []}
        for row in rows:
            if row.agent_id in members:
                position = _position(row) if ahead else None
                full = occupancy.add(members[row.agent_id], position)
                (admitted if full is None else waiting[full]).append(row.agent_id)
        self._write(connection, admitted, waiting)
        if open_limits := occupancy.open_limits():
            self.advance(connection, admitted, open_limits)
        return {*admitted}, lost

    def _find_ahead(
        self, connection: Connection, queue: str, rows: Sequence[Any]
    ) -> dict[str, tuple[int, UUID]]:
        """Return the first ready task of each lock that another transaction is claiming before these tasks.

        It is about to decide about that task, which these tasks must not overtake.
        """
        if not self.has_row_locks:
            return {}
        # Claims of tasks that take turns wait for each other.
        plain = [row for row in rows if row.lane in PLAIN_LANES]
        if not plain:
            return {}
        values = {"queue": queue, "lane": plain[-1].lane, "at": plain[-1].at}
        found = connection.execute(self.sql.ready_before, values).all()
        mine = {row.agent_id for row in rows}
        skipped = {row.agent_id: row.at for row in found if row.agent_id not in mine}
        ahead: dict[str, tuple[int, UUID]] = {}
        for agent_id, groups in (self.members(connection, [*skipped]) if skipped else {}).items():
            for name in filter(is_lock, groups):
                position = (skipped[agent_id], agent_id)
                ahead[name] = min(ahead.get(name, position), position)
        return ahead

    def _write(
        self, connection: Connection, admitted: Sequence[UUID], waiting: Mapping[str, Sequence[UUID]]
    ) -> None:
        if admitted:
            connection.execute(self.sql.hold, {"ids": admitted})
        if waiting[LIMIT]:
            # First in line for the lock, and no other task may overtake it there.
            connection.execute(self.sql.hold_locks, {"ids": waiting[LIMIT]})
        for prefix, agent_ids in waiting.items():
            if agent_ids:
                connection.execute(self.sql.park, {"ids": agent_ids})
                values = self._params(ids=agent_ids, prefix=prefix, length=len(prefix))
                connection.execute(self.sql.wait, values)

    def counts(self, connection: Connection, queue: str, names: Iterable[str]) -> Counter[str]:
        """Return the number of tasks that each group has admitted, and 1 for the name that says that the index is complete."""
        values = {"queue": queue, "names": sorted(names), "intact": INTACT + queue}
        rows = connection.execute(self.sql.counts, values)
        return Counter({row.name: row.held for row in rows})

    def advance(self, connection: Connection, agent_ids: Sequence[UUID], names: Iterable[str]) -> bool:
        """Put the next tasks of groups back into their lanes, one for each of these members that is in the group.

        Returns False if none waits. Members whose rows are gone from the queue count, until they are forgotten.
        """
        wanted = {*names}
        for turn in range(MAX_FREED):
            rows = connection.execute(self.sql.next_waiting, {"ids": list(agent_ids)}).all()
            found = {row.next_id for row in rows if row.name in wanted} - {None}
            if not found:
                return turn > 0
            connection.execute(self.sql.unpark, self._params(ids=sorted(found)))
            connection.execute(self.sql.stop_waiting, {"ids": sorted(found)})
            # A lock lets one task in; a limit, as many as have left it.
            numbers = Counter(row.name for row in rows)
            wanted = {name for name in wanted if not is_lock(name) and numbers[name] > turn + 1}
        return True

    def go_on(self, connection: Connection, queue: str, agent_ids: Sequence[UUID]) -> bool:
        """Let one task into each lock that nobody has, and into each limit, of those for which these tasks wait."""
        one_each: dict[str, UUID] = {}
        for agent_id, groups in self.members(connection, agent_ids).items():
            one_each.update((name, agent_id) for name, state in groups.items() if state == WAITS)
        if not one_each:
            return False
        self.lock(connection, queue, one_each)
        counts = self.counts(connection, queue, one_each)
        stalled = [name for name in one_each if not (is_lock(name) and counts[name])]
        return bool(stalled) and self.advance(
            connection, sorted({one_each[name] for name in stalled}), stalled
        )


def _position(row: Any) -> tuple[int, UUID] | None:
    """Return the place of a ready task in its lane, None if it takes turns."""
    return (row.at, row.agent_id) if row.lane in PLAIN_LANES else None


def members_of(queue: str, entry: Entry, place: Mapping[str, Any], *, leased: bool) -> list[dict[str, Any]]:
    """Return the rows of a task's groups, with the parameters of its place in their lines."""
    return [
        {
            **place,
            "id": entry.agent_id,
            "name": name,
            "queue": queue,
            "priority": int(entry.priority),
            "state": _state(name) if leased or (entry.holds_lock and is_lock(name)) else IDLE,
        }
        for name in entry.groups
    ]


def _state(name: str) -> int:
    return HAS_LOCK if is_lock(name) else HAS_LIMIT


def _stripe(queue: str, name: str) -> str:
    return f"group:{zlib.crc32(f'{queue}/{name}'.encode(errors='replace')) % STRIPES}"
