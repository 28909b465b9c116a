"""The writer of a worker process, on a store that fails when told to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast
from uuid import UUID

import pytest

from agentexec.activity.changes.endings import Ending
from agentexec.activity.changes.progress import Progress
from agentexec.activity.changes.store import Recorded, RecordStore
from agentexec.activity.changes.writer import Writer
from agentexec.errors import UnavailableError
from agentexec.task import Lease, Status


class FakeStore:
    """Records the batches that it is given, after the failures that are planned."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], list[str]]] = []
        self.failures: list[Exception] = []
        self.refused: list[Lease] = []
        self.reject: Callable[[Ending], bool] = lambda ending: False

    def record(self, progress: Sequence[Progress], endings: Sequence[Ending], **options: Any) -> Recorded:
        if self.failures:
            raise self.failures.pop(0)
        if any(self.reject(ending) for ending in endings):
            raise ValueError("cannot be stored")
        batch = ([report.message for report in progress], [ending.message for ending in endings])
        self.batches.append(batch)
        return Recorded([ending.lease for ending in endings if ending.lease in self.refused], [])


class Writing:
    """A writer with what it has settled."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.settled: list[tuple[list[str], list[str]]] = []
        self.abandoned: list[UUID] = []
        self.writer = Writer(
            cast(RecordStore, self.store),
            result_ttl=60,
            acknowledge=None,
            settle=self._settle,
            abandon=self.abandoned.append,
        )

    def _settle(self, written: Sequence[Ending], refused: Sequence[Ending]) -> None:
        self.settled.append(([item.message for item in written], [item.message for item in refused]))

    def run(self) -> None:
        self.writer.start()
        assert self.writer.close(30)


@pytest.fixture
def writing() -> Iterator[Writing]:
    yield Writing()


def ending(number: int, message: str, status: Status = Status.COMPLETE) -> Ending:
    return Ending(Lease(UUID(int=number), 1), status, message)


def test_reports_and_endings_taken_together_are_one_batch(writing: Writing) -> None:
    writing.writer.report_progress(UUID(int=1), 1, "half", 50)
    writing.writer.end(ending(1, "one"))
    writing.writer.end(ending(2, "two"))
    writing.run()
    assert writing.store.batches == [(["half"], ["one", "two"])]
    assert writing.settled == [(["one", "two"], [])]


def test_refused_endings_are_settled_apart(writing: Writing) -> None:
    writing.store.refused = [Lease(UUID(int=2), 1)]
    writing.writer.end(ending(1, "one"))
    writing.writer.end(ending(2, "two"))
    writing.run()
    assert writing.settled == [(["one"], ["two"])]


def test_an_outage_is_waited_out_and_logged_once(writing: Writing, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agentexec.writer")
    writing.store.failures = [UnavailableError("The database is away.") for _ in range(2)]
    writing.writer.end(ending(1, "one"))
    writing.run()
    assert writing.store.batches == [([], ["one"])]
    assert [record.getMessage() for record in caplog.records] == [
        "The database is away. Results wait until it is back.",
        "The database is back; results are written.",
    ]


def test_an_ending_that_cannot_be_stored_fails_its_task_alone(writing: Writing) -> None:
    writing.store.reject = lambda item: item.message == "bad"
    for number, message in enumerate(("one", "bad", "three")):
        writing.writer.end(ending(number, message))
    writing.run()
    assert [batch[1] for batch in writing.store.batches] == [
        ["one"],
        ["The result could not be stored: ValueError."],
        ["three"],
    ]
    assert writing.abandoned == []


def test_a_task_whose_ending_cannot_be_stored_at_all_is_abandoned(writing: Writing) -> None:
    """Its lease would be renewed forever otherwise."""
    writing.store.reject = lambda item: item.lease.agent_id == UUID(int=1)
    for number in range(3):
        writing.writer.end(ending(number, str(number)))
    writing.run()
    assert [batch[1] for batch in writing.store.batches] == [["0"], ["2"]]
    assert writing.abandoned == [UUID(int=1)]
