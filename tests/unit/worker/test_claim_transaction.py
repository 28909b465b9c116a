"""Endings that wait for a claim are written in its transaction; the writer writes them if none follows."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, event

from agentexec.activity.changes.admissions import StartTerms
from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.sqlite_store import SqliteRecordStore
from agentexec.activity.changes.writer import Writer
from agentexec.db.clock import utc_now
from agentexec.state.sql_backend import SqlBackend
from agentexec.task import Entry, Lease, Status
from agentexec.worker.claim_transaction import ClaimTransaction
from tests.unit.worker.record import QUEUE, Record, open_record

COMPLETE, RUNNING, QUEUED = Status.COMPLETE, Status.RUNNING, Status.QUEUED


class Claims:
    """Claims of a process on a queue in the record, and its writer."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.backend = SqlBackend(record.runtime.engine)
        self._store = SqliteRecordStore(record.runtime.engine)
        self.settled: list[tuple[list[Lease], list[Lease]]] = []
        self.fails = False
        self.woken = 0
        self.writer = Writer(
            self._store,
            result_ttl=60,
            acknowledge=self._acknowledge,
            settle=lambda *endings: self.settled.append(
                tuple([item.lease for item in part] for part in endings)
            ),
            abandon=lambda _: None,
        )
        self.joins = ClaimTransaction(self.writer, self._start)

    def _acknowledge(self, connection: Connection, endings: Sequence[Ending]) -> None:
        self.backend.finish(QUEUE, [ending.lease for ending in endings], transaction=connection)

    def _start(self, queue: str, connection: Connection, leases: Sequence[Lease]) -> None:
        if self.fails:
            raise KeyError
        started = self._store.start_within(
            connection, leases, StartTerms(utc_now(), "Started.", 3, queue=queue)
        )
        assert len(started) == len(leases)

    def _wake(self) -> None:
        self.woken += 1

    def enqueue(self, number: int) -> list[UUID]:
        tasks = self.record.enqueue(number)
        self.backend.push(QUEUE, [Entry(agent_id) for agent_id in tasks])
        return tasks

    def claim(self, limit: int = 2) -> list[Lease]:
        self.joins.open(self._wake)
        options = {"low_quota": 0, "lease_seconds": 60, "joins": self.joins}
        return self.backend.claim(QUEUE, "w", limit=limit, **options).leases

    def end(self, leases: Sequence[Lease], result: str = "1") -> None:
        for lease in leases:
            self.writer.end(Ending(lease, COMPLETE, "Done.", result=result))

    def write(self) -> None:
        """Let the writer's thread write what it has."""
        self.writer.start()
        assert self.writer.close(30)


@pytest.fixture
def claims(tmp_path: Path) -> Generator[Claims]:
    with open_record(tmp_path) as record:
        yield Claims(record)


def test_endings_and_the_claim_in_their_place_are_one_transaction(claims: Claims) -> None:
    commits: list[str] = []

    def trace(connection: Any, *_: Any) -> None:
        connection.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)

    event.listen(claims.record.runtime.engine.pool, "checkout", trace)
    tasks = claims.enqueue(4)
    first = claims.claim()
    claims.end(first)
    assert claims.woken == 1, "whoever claims is told of the first ending"
    commits.clear()
    second = claims.claim()
    assert commits == ["COMMIT"]
    assert claims.record.statuses(tasks) == [COMPLETE, COMPLETE, RUNNING, RUNNING]
    assert claims.settled == [(first, [])]
    assert claims.backend.depth(QUEUE).leased == 2
    claims.end(second)
    assert claims.claim() == []
    assert claims.record.statuses(tasks) == [COMPLETE] * 4, "an ending needs no task that follows"
    assert claims.writer.flush(0)


def test_endings_of_a_claim_that_failed_are_written_by_the_writer(claims: Claims) -> None:
    tasks = claims.enqueue(3)
    first = claims.claim()
    claims.end(first)
    claims.fails = True
    with pytest.raises(KeyError):
        claims.claim()
    assert claims.record.statuses(tasks) == [RUNNING, RUNNING, QUEUED]
    assert not claims.writer.flush(0)
    claims.joins.close()
    claims.write()
    assert claims.record.statuses(tasks) == [COMPLETE, COMPLETE, QUEUED]
    assert claims.settled == [(first, [])]


def test_the_ending_of_a_task_that_was_lost_is_refused(claims: Claims) -> None:
    tasks = claims.enqueue(2)
    kept, lost = claims.claim()
    claims.record.change(lost.agent_id, epoch=lost.epoch + 1)
    claims.end([kept, lost])
    claims.claim()
    assert claims.record.statuses(tasks) == [COMPLETE, RUNNING]
    assert claims.settled == [([kept], [lost])]


def test_an_ending_that_cannot_be_stored_keeps_no_claim_from_its_tasks(claims: Claims) -> None:
    tasks = claims.enqueue(3)
    bad, good = claims.claim()
    claims.end([bad], result="\ud800")
    claims.end([good])
    assert len(claims.claim()) == 1
    assert claims.record.statuses(tasks) == [RUNNING] * 3
    claims.write()
    assert claims.record.statuses(tasks) == [Status.ERROR, COMPLETE, RUNNING]


def test_what_takes_long_to_write_is_left_to_the_writer(claims: Claims) -> None:
    tasks = claims.enqueue(3)
    [first, second] = claims.claim()
    claims.writer.report_progress(first.agent_id, first.epoch, "half", 50)
    claims.end([first])
    assert len(claims.claim(1)) == 1, "a report comes before the ending of its task"
    assert claims.record.statuses(tasks) == [RUNNING] * 3
    assert not claims.joins.waits, "it is left to the writer at once"
    claims.end([second], result='"' + "x" * 300_000 + '"')
    claims.joins.close()
    claims.write()
    assert claims.record.statuses(tasks) == [COMPLETE, COMPLETE, RUNNING]
