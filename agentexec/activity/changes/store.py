"""The record store: starts, reports and endings of tasks in transactions of their own, on any database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine

from agentexec.activity.changes.admissions import (
    Admissions,
    Admitted,
    StartTerms,
    decide_admissions,
    start_tasks,
)
from agentexec.activity.changes.crashes import fail_poison_tasks
from agentexec.activity.changes.endings import Ending, end, find_busy, select_rows
from agentexec.activity.changes.expirations import end_expired
from agentexec.activity.changes.new_tasks import NewTask, insert_tasks, one_or_many, with_context
from agentexec.activity.changes.postponements import end_invalid, find_postponed
from agentexec.activity.changes.progress import Progress, accepted_reports, write_progress
from agentexec.activity.changes.statements import INSERT_RESULT, statements_for
from agentexec.activity.changes.unknown_tasks import leave_unknown
from agentexec.activity.deaths import UNKNOWN_REASON
from agentexec.db.round_trips import batched
from agentexec.db.transactions import inserting, writing
from agentexec.state.answers import PushStatement
from agentexec.task import Lease, Status


class Recorded(NamedTuple):
    """Items that `RecordStore.record` did not write: those on activities that were lost, are unknown, or are locked."""

    refused: list[Lease]
    """Endings whose lease another worker has."""
    unknown: list[UUID]
    """Activities of reports."""
    busy: frozenset[UUID] = frozenset()
    """Activities that another process has locked."""


Acknowledge = Callable[[Connection, Sequence[Ending]], None]
"""Function that is called within a transaction with the endings that it writes, for statements whose results nobody reads."""


class RecordStore:
    """Store of starts, reports and endings, for any database. Each method is one transaction.

    It locks its rows first (on SQLite the transaction holds the write lock), decides, then writes in as few statements
    as there are different values: a batch of a hundred tasks costs about as much as one task.

    A subclass overrides what its database does in fewer round trips, and leaves the same rows.
    """

    starts_within = False
    """True if `start_within` starts tasks in the transaction that claims them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def insert(
        self,
        tasks: Sequence[NewTask],
        now: datetime,
        *,
        push: Callable[[Connection], None] | None = None,
        push_statement: PushStatement | None = None,
    ) -> bool:
        """Add tasks, each with its first log line and its labels, and return whether workers were woken for them.

        `push` is called within the transaction, for statements whose results nobody reads; a store that takes a single
        statement uses `push_statement` in its place, and its `wake` after the commit.
        Raises IntegrityError for an idempotency key that is taken.
        """
        tasks = [with_context(task) for task in tasks]
        with inserting(self._engine) as connection:
            insert_tasks(connection, tasks, now)
            if push is not None:
                push(connection)
        return False

    def start_fresh(self, claims: Sequence[Lease], terms: StartTerms) -> list[Admitted]:
        """Make claimed tasks RUNNING that need no decision, and return them in the order of the claims.

        Such a task is QUEUED and has not expired, its process never crashed, its epoch is older than the claim, no other task has
        its lock, and it is one that may start under the `terms`. Any number of them may be left to `admit`, which knows all cases; the general store leaves all of them.
        """
        return []

    def start_within(
        self, connection: Connection, claims: Sequence[Lease], terms: StartTerms
    ) -> list[Admitted]:
        """Do what `start_fresh` does, within a transaction that also claims the tasks, if `starts_within`."""
        return []

    def admit(self, claims: Sequence[Lease], terms: StartTerms, *, suspect_running: bool) -> Admissions:
        """Make claimed tasks RUNNING under their new epochs, where the record agrees; those that need no decision first.

        `suspect_running`: no suspect may start now. Tasks that another process has locked are given back.
        """
        with writing(self._engine, relaxed=True) as connection:
            started = self.start_within(connection, claims, terms)
            if started:
                fresh = {admitted.lease for admitted in started}
                claims = [lease for lease in claims if lease not in fresh]
            if not claims:
                return Admissions(started)
            admissions = self._admit(
                connection, claims, terms, suspect_running=suspect_running or bool(started)
            )
        admissions.started = [*started, *admissions.started]
        return admissions

    def _admit(
        self, connection: Connection, claims: Sequence[Lease], terms: StartTerms, *, suspect_running: bool
    ) -> Admissions:
        """Admit tasks that need a decision, within a transaction, which a database that can batch commits here."""
        sql, now = statements_for(connection), terms.now
        ids = list({lease.agent_id: None for lease in claims})
        rows = select_rows(connection, sql.select_claimed, ids)
        busy = find_busy(connection, ids, rows)
        admissions = decide_admissions(
            [lease for lease in claims if lease.agent_id not in busy] if busy else claims,
            rows,
            terms,
            suspect_running=suspect_running,
            postponed=find_postponed(connection, rows, terms.keys),
        )
        if busy:
            admissions.leave_busy(claims, busy)
        if admissions.postponed:
            names = {row.agent_id: row.agent_type for row in rows}
            admissions.failed.extend(end_invalid(connection, admissions.postponed, names, now))
        if admissions.unknown:
            leave_unknown(connection, admissions, terms.task_names or (), now)
        with batched(connection, commit=True):
            start_tasks(connection, admissions.started, terms)
            if admissions.poisoned:
                failed = fail_poison_tasks(connection, admissions.poisoned, UNKNOWN_REASON, now)
                admissions.failed.extend(failed)
            end_expired(connection, admissions.expired, now)
        return admissions

    def complete_within(
        self,
        connection: Connection,
        endings: Sequence[Ending],
        now: datetime,
        result_ttl: int,
        acknowledge: Acknowledge | None,
    ) -> list[Ending] | None:
        """Complete tasks, see `complete_alike`, within a transaction that also claims some, if `starts_within`.

        Return the endings that are written, or None to leave all of them to `record`.
        """
        return None

    def record(
        self,
        progress: Sequence[Progress],
        endings: Sequence[Ending],
        *,
        now: datetime,
        result_ttl: int,
        relaxed: bool = False,
        acknowledge: Acknowledge | None = None,
        queue_table: str | None = None,
        skips_busy: bool = False,
    ) -> Recorded:
        """Write progress reports, then endings, each fenced by its epoch.

        `acknowledge` is called within the transaction with the endings that are written, for statements whose results
        nobody reads. `queue_table`: the table of agentexec's own queue from which it removes them, for a store that can do that
        by itself. `relaxed` as for `writing`; `result_ttl` is in seconds. `skips_busy`: leave out activities that another
        process has locked.
        """
        with writing(self._engine, relaxed=relaxed) as connection:
            ids = list({item.agent_id for item in (*progress, *[ending.lease for ending in endings])})
            rows, busy = _lock_states(connection, ids, skips_busy=skips_busy)
            written = [ending for ending in endings if _holds(ending.lease, rows)]
            with batched(connection, commit=True):
                write_progress(connection, accepted_reports(progress, rows), rows)
                _write_endings(connection, written, rows, now, now + timedelta(seconds=result_ttl))
                if acknowledge is not None and written:
                    acknowledge(connection, written)
        refused = _refused(endings, rows, busy) if len(written) < len(endings) else []
        known = {*rows, *busy}
        return Recorded(refused, [item.agent_id for item in progress if item.agent_id not in known], busy)

    def close(self) -> None:
        """Do nothing: the runtime closes the engine."""


def _lock_states(
    connection: Connection, ids: Sequence[UUID], *, skips_busy: bool
) -> tuple[dict[UUID, Any], frozenset[UUID]]:
    """Lock activities and return their rows; with `skips_busy`, also those that are left out because others have them locked."""
    sql = statements_for(connection)
    found = select_rows(connection, sql.select_free_state if skips_busy else sql.select_state, ids)
    busy = find_busy(connection, ids, found) if skips_busy else ()
    return {row.agent_id: row for row in found}, frozenset(busy)


def _refused(endings: Sequence[Ending], rows: Mapping[UUID, Any], busy: Collection[UUID]) -> list[Lease]:
    return [lease for lease, *_ in endings if not (lease.agent_id in busy or _holds(lease, rows))]


def _holds(lease: Lease, rows: Mapping[UUID, Any]) -> bool:
    """Return True if the task is RUNNING under the lease."""
    row = rows.get(lease.agent_id)
    return row is not None and row.status is Status.RUNNING and row.epoch == lease.epoch


def _write_endings(
    connection: Connection,
    endings: Sequence[Ending],
    rows: Mapping[UUID, Any],
    now: datetime,
    expires_at: datetime,
) -> None:
    groups: dict[tuple[object, ...], list[Ending]] = defaultdict(list)
    for ending in endings:
        groups[ending.row_values].append(ending)
    may_have_webhooks = bool([row for row in rows.values() if row.webhook is not None])
    for group in groups.values():
        ids = [ending.lease.agent_id for ending in group]
        end(connection, group[0], ids, now, may_have_webhooks=may_have_webhooks)
    results = [
        {"agent_id": ending.lease.agent_id, "value": ending.result, "expires_at": expires_at}
        for ending in endings
        if ending.status is Status.COMPLETE and ending.result is not None
    ]
    if results:
        connection.execute(INSERT_RESULT, one_or_many(results))


def refused_leases(endings: Sequence[Ending], written: Sequence[Ending]) -> list[Lease]:
    """Return the leases of those endings that are not written."""
    if len(written) == len(endings):
        return []
    known = {ending.lease for ending in written}
    return [ending.lease for ending in endings if ending.lease not in known]


def complete_alike(endings: Sequence[Ending]) -> bool:
    """Return True if all are plain completions with the same message."""
    if not endings or endings[0].status is not Status.COMPLETE:
        return False
    plain = Ending(endings[0].lease, Status.COMPLETE, endings[0].message)
    return all(ending.row_values == plain.row_values for ending in endings)
