"""Claims of the SQL backend: tasks that are ready move into leases."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from agentexec.db.deadlocks import retry_on_deadlock
from agentexec.db.transactions import looking_up, writing
from agentexec.llm.rate_limits import MICROS_PER_SECOND
from agentexec.state.backend import ClaimResult
from agentexec.state.capabilities import JoinFailed, JoinsClaim
from agentexec.state.groups import MAX_PARKED, NO_LIMITS
from agentexec.state.sql_backend.comparison import SqlComparison
from agentexec.state.sql_backend.fair_lanes import FairClaim, FairLanes, NextTasks
from agentexec.state.sql_backend.postgres_claim import plain_claims
from agentexec.task import Lease, Priority


@dataclass(slots=True)
class ClaimInProgress:
    """One claim: its arguments, and the tasks that it has leased and those that it found waiting for their groups."""

    queue: str
    worker: str
    lease_seconds: float
    limits: Mapping[str, int]
    joins: JoinsClaim | None = None
    fair: FairClaim | None = None
    leases: list[Lease] = field(default_factory=list)
    parked: int = 0

    @property
    def is_needed(self) -> bool:
        """True if its transaction writes something even if no task is ready."""
        return self.joins is not None and self.joins.waits

    def begin(self, connection: Connection) -> None:
        """Write what waits for the transaction."""
        if self.joins is not None:
            self.joins.begin(connection)

    def note_commit(self) -> None:
        """Note that the transaction is committed."""
        if self.joins is not None:
            self.joins.note_commit()


class SqlClaims(SqlComparison):
    """Part of the SQL backend that claims tasks."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._claimed_groups: set[UUID] = set()
        self._fair = FairLanes(engine, self._dialect, self._readable)
        self._plain = plain_claims(engine)
        self._marks = threading.local()

    @retry_on_deadlock
    def claim(
        self,
        queue: str,
        worker: str,
        *,
        limit: int,
        low_quota: int,
        lease_seconds: float,
        limits: Mapping[str, int] = NO_LIMITS,
        joins: JoinsClaim | None = None,
    ) -> ClaimResult:
        """Do what the protocol says. `joins` takes part in the transaction, where the database has a single writer."""
        self._note_mark(queue)
        for _ in range(2):
            claim = ClaimInProgress(queue, worker, lease_seconds, limits, joins)
            with contextlib.suppress(JoinFailed):
                return self._claim(claim, limit, low_quota)
        raise AssertionError("what joins a claim has failed twice")

    def _claim(self, claim: ClaimInProgress, limit: int, low_quota: int) -> ClaimResult:
        first = None
        if self._plain is not None:
            leases, first = self._plain.claim(
                claim.queue,
                claim.worker,
                limit=limit,
                low_quota=low_quota,
                lease_seconds=claim.lease_seconds,
            )
            if leases is not None:
                # A worker that filled its slots claims again before it waits.
                return ClaimResult(leases, None if len(leases) == limit > 0 else _seconds_until_due(first))
        if first is None and not claim.is_needed:
            with looking_up(self._engine) as connection:
                # Without a lock, so idle workers do not block a writer.
                first = self._fair.read_next(connection, claim.queue)
        if claim.is_needed and not _is_due(first, limit):
            claimed, first = self._claim_joined(claim, limit, low_quota)
            if claimed is not None:
                return claimed
        if first is None or not _is_due(first, limit):
            return ClaimResult([], None if first is None else _seconds_until_due(first))
        return self._claim_any(claim, first, limit, low_quota)

    def _claim_joined(
        self, claim: ClaimInProgress, limit: int, low_quota: int
    ) -> tuple[ClaimResult | None, NextTasks]:
        """Write what waits, and claim tasks without a look before; return None for tasks that take turns, and the first ones."""
        claimed = None
        with writing(self._engine, relaxed=True) as connection:
            claim.begin(connection)
            first = self._fair.read_next(connection, claim.queue)
            if not any(map(first.is_fair, Priority)):
                claimed = self._claim_ready(connection, claim, first, limit, low_quota)
        claim.note_commit()
        return claimed, first

    def _claim_any(self, claim: ClaimInProgress, first: NextTasks, limit: int, low_quota: int) -> ClaimResult:
        """Claim tasks of any kind, some of which are ready."""
        if is_fair := any(map(first.is_fair, Priority)):
            self._fair.rank(claim.queue, first)
        with writing(self._engine, relaxed=True, in_index_order=True) as connection:
            claim.begin(connection)
            claim.fair = self._fair.open(connection, claim.queue) if is_fair else None
            claimed = self._claim_ready(connection, claim, first, limit, low_quota)
        claim.note_commit()
        return claimed

    def _claim_ready(
        self, connection: Connection, claim: ClaimInProgress, first: NextTasks, limit: int, low_quota: int
    ) -> ClaimResult:
        """Claim tasks within a transaction."""
        if not _is_due(first, limit):
            return ClaimResult([], _seconds_until_due(first))
        for priority, lane_limit in (
            (Priority.LOW, low_quota),
            (Priority.HIGH, limit),
            (Priority.LOW, limit),
        ):
            if first.is_ready(priority):
                most = min(limit, len(claim.leases) + lane_limit)
                self._take(connection, claim, first, priority, most)
        if claim.fair is not None:
            claim.fair.close()
        if claim.joins is not None and claim.leases:
            claim.joins.start(claim.queue, connection, claim.leases)
        # A worker that filled its slots claims again before it waits.
        if len(claim.leases) == limit:
            return ClaimResult(claim.leases, None)
        return ClaimResult(claim.leases, _seconds_until_due(self._fair.read_next(connection, claim.queue)))

    def _take(
        self, connection: Connection, claim: ClaimInProgress, first: NextTasks, priority: Priority, most: int
    ) -> None:
        """Lease tasks of one priority until a claim has `most` tasks."""
        while len(claim.leases) < most and claim.parked < MAX_PARKED:
            found = self._ready_rows(connection, claim, first, priority, most - len(claim.leases))
            rows = self._admitted(connection, claim, found)
            if rows:
                values = self._params(
                    ids=[row.agent_id for row in rows],
                    lease=int(claim.lease_seconds * MICROS_PER_SECOND),
                    worker=claim.worker,
                )
                connection.execute(self._tasks.lease, values)
                claim.leases.extend(Lease(row.agent_id, row.epoch + 1) for row in rows)
            if len(rows) == len(found):
                return  # none of them waits for a group, so these were all
            claim.parked += len(found) - len(rows)

    def _admitted(self, connection: Connection, claim: ClaimInProgress, rows: Sequence[Any]) -> Sequence[Any]:
        """Return the rows of ready tasks that their groups admit."""
        grouped = [row for row in rows if row.grouped]
        if not grouped:
            return rows
        admitted, lost = self._groups.admit(connection, claim.queue, grouped, claim.limits)
        self._claimed_groups.update(admitted)
        if lost:
            # The reconciler pushes them again with their groups.
            connection.execute(self._tasks.remove, {"ids": lost})
        return [row for row in rows if not row.grouped or row.agent_id in admitted]

    def _ready_rows(
        self,
        connection: Connection,
        claim: ClaimInProgress,
        first: NextTasks,
        priority: Priority,
        most: int,
    ) -> list[Any]:
        """Lock and return the next tasks of a priority."""
        if claim.fair is not None and first.is_fair(priority):
            return claim.fair.take(priority, most, with_plain=first.is_due(first.plain[priority]))
        wanted = self._params(queue=claim.queue, lane=priority, most=most)
        return self._readable(connection, connection.execute(self._tasks.ready, wanted).all())

    def _note_mark(self, queue: str) -> None:
        """Note for a `wait` of this thread that changes count from now on."""
        self._wakeup.note_queues((queue,))
        self._marks.__dict__.setdefault("by_queue", {})[queue] = self._wakeup.mark()


def _is_due(first: NextTasks | None, limit: int) -> bool:
    """Return True if tasks may be claimed now."""
    return first is not None and limit > 0 and _seconds_until_due(first) == 0


def _seconds_until_due(first: NextTasks) -> float | None:
    """Return the seconds until the first task may start, None for an empty queue."""
    soonest = first.soonest
    return None if soonest is None else max(0.0, (soonest - first.now) / MICROS_PER_SECOND)
