"""Comparison of the SQL backend's queue with the record, and removal of rows that no task can have."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Executable

from agentexec.db.chunks import CHUNK_SIZE, chunks
from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import reading, writing
from agentexec.llm.rate_limits import MICROS_PER_SECOND
from agentexec.policy import MAX_EPOCH, fits_record
from agentexec.state.backend import Comparison, Depth, TaskPage
from agentexec.state.sql_backend.control import SqlControl
from agentexec.state.sql_backend.fair_lanes import RANKED_LANES, fits_lane
from agentexec.state.sql_backend.statements import QueueStatements
from agentexec.state.sql_backend.wakeup import TASKS
from agentexec.state.sql_models import LEASED, PARKED, QueueEntry
from agentexec.task import Entry

TURN_LANES = (*RANKED_LANES, PARKED)
"""Lanes in which `at` may be a turn rather than a time."""

log = logging.getLogger("agentexec.sql_queue")


class SqlComparison(SqlControl):
    """Part of the SQL backend that knows which rows are right."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._tasks = QueueStatements(self._dialect)

    def unknown_tasks(self, queue: str, agent_ids: Sequence[UUID]) -> list[UUID]:
        known: set[UUID] = set()
        with reading(self._engine, by_key_only=True) as connection:
            for chunk in chunks(agent_ids):
                known.update(connection.execute(self._tasks.known, {"ids": chunk, "queue": queue}).scalars())
        return [agent_id for agent_id in agent_ids if agent_id not in known]

    def compare(self, queue: str, entries: Sequence[Entry], lease_seconds: float) -> Comparison:
        known: dict[UUID, Any] = {}
        with reading(self._engine, by_key_only=True) as connection:
            for chunk in chunks([entry.agent_id for entry in entries]):
                rows = connection.execute(self._tasks.entries, self._params(ids=chunk))
                known.update((row.agent_id, row) for row in rows)
            members = self._members_of(connection, entries, known)
        missing = [entry.agent_id for entry in entries if entry.agent_id not in known]
        wrong = [
            entry.agent_id
            for entry in entries
            if (row := known.get(entry.agent_id)) is not None
            and not _fits(row, members.get(entry.agent_id, set()), queue, entry, lease_seconds)
        ]
        self._go_on(queue, [agent_id for agent_id, row in known.items() if row.lane == PARKED])
        return Comparison(missing, wrong)

    def _members_of(
        self, connection: Connection, entries: Sequence[Entry], rows: Mapping[UUID, Any]
    ) -> dict[UUID, set[str]]:
        """Return the groups of those tasks that have some, by the record or by their rows."""
        ids = [
            entry.agent_id
            for entry in entries
            if entry.groups or ((row := rows.get(entry.agent_id)) is not None and row.grouped)
        ]
        return {
            agent_id: {*groups}
            for chunk in chunks(ids)
            for agent_id, groups in self._groups.members(connection, chunk).items()
        }

    @retry_on_deadlock
    def _go_on(self, queue: str, parked: Sequence[UUID]) -> None:
        """Let tasks into groups that nobody has: a process of an earlier release may have left them so."""
        freed = False
        for chunk in chunks(parked):
            with writing(self._engine, relaxed=True) as connection:
                freed |= self._groups.go_on(connection, queue, chunk)
        if freed:
            self._wakeup.announce(TASKS)

    def list_tasks(self, queue: str, cursor: str) -> TaskPage:
        try:
            after = UUID(cursor)
        except ValueError:
            after = UUID(int=0)
        rows = self._read(self._tasks.page, {"queue": queue, "after": after, "most": CHUNK_SIZE})
        ids = [row.agent_id for row in rows]
        # A page that is shorter because rows were removed ends the walk; the next one finds what follows.
        return TaskPage(ids, str(ids[-1]) if len(ids) == CHUNK_SIZE else "")

    def depth(self, queue: str) -> Depth:
        with reading(self._engine) as connection:
            return Depth(*map(int, connection.execute(self._tasks.depth, self._params(queue=queue)).one()))

    def _readable(self, connection: Connection, rows: Sequence[Any]) -> list[Any]:
        """Return the rows of tasks, and remove others: if the record has their tasks, the reconciler pushes them again."""
        readable = [row for row in rows if _is_readable(row)]
        if len(readable) < len(rows):
            bad = [row.agent_id for row in rows if not _is_readable(row)]
            known = [agent_id for agent_id in bad if isinstance(agent_id, UUID)]
            if known:
                connection.execute(self._tasks.remove, {"ids": known})
            for raw in bad:
                if not isinstance(raw, UUID):
                    connection.execute(self._tasks.remove_unreadable, {"raw": raw})
            log.warning("Removed %d row(s) of %s that no task can have.", len(bad), QueueEntry.__tablename__)
        return readable

    def _read(self, statement: Executable, values: dict[str, Any]) -> list[Any]:
        """Return the rows of tasks that a query finds."""
        with reading(self._engine, in_index_order=True) as connection:
            rows = connection.execute(statement, values).all()
        if all(map(_is_readable, rows)):
            return list(rows)
        with writing(self._engine, relaxed=True) as connection:
            return self._readable(connection, rows)


def _is_readable(row: Any) -> bool:
    """Return True for a row of a task with an epoch that a claim can raise."""
    return isinstance(row.agent_id, UUID) and type(row.epoch) is int and 0 <= row.epoch < MAX_EPOCH


def _fits(row: Any, groups: set[str], queue: str, entry: Entry, lease_seconds: float) -> bool:
    """Return True if a row of the queue's table can follow from the record."""
    if row.queue != queue or any(
        type(value) is not int for value in (row.priority, row.lane, row.at, row.epoch, row.grouped)
    ):
        return False
    if bool(row.grouped) != bool(entry.groups) or groups != {*entry.groups}:
        return False
    if not fits_lane(row) or (row.lane == PARKED and not row.grouped):
        return False
    return fits_record(
        recorded_epoch=entry.epoch,
        due=entry.run_at,
        epoch=row.epoch,
        leased=row.lane == LEASED,
        at=0.0 if row.lane in TURN_LANES else row.at / MICROS_PER_SECOND,
        now=row.now_us / MICROS_PER_SECOND,
        lease_seconds=lease_seconds,
    )
