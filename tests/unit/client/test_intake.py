"""Tasks that come together are written together, and one that cannot be written harms no other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from uuid import uuid4

import pytest
from sqlalchemy.exc import DataError, IntegrityError, StatementError

from agentexec.activity.changes.new_tasks import NewTask
from agentexec.client.intake import Intake
from agentexec.db.chunks import CHUNK_SIZE
from agentexec.errors import UnavailableError, UsageError
from tests.waiting import patient


def new(name: str = "work", queue: str = "q") -> NewTask:
    return NewTask(uuid4(), name, None, queue, 1, None, None, None, "Waiting.")


ERRORS = [
    IntegrityError("insert", {}, Exception("unique")),
    DataError("insert", {}, Exception("out of range")),
    StatementError("insert", "insert", {}, Exception("no such type")),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    OverflowError("too large"),
    UsageError("refused"),
    KeyError("whatever it is"),
]
"""Errors that a single task can cause; a task with such a name causes it."""


class Store:
    """Target of an intake: it keeps the batches, refuses some names, and can hold up a write."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def write(self, batch: Sequence[NewTask]) -> None:
        self.entered.set()
        assert self.gate.wait(10)
        names = [task.task_name for task in batch]
        for error in ERRORS:
            if type(error).__name__ in names:
                raise error
        if "lost" in names:
            raise UnavailableError("away")
        self.batches.append(names)


def test_a_task_alone_is_written_by_its_caller() -> None:
    store = Store()
    intake = Intake(store.write)
    done, must_run = intake.put(new("a"))
    assert must_run
    assert intake.run(until=done)
    assert done.result(0) is None
    assert store.batches == [["a"]]
    assert intake.put(new("b"))[1]


def test_callers_that_come_during_a_write_share_the_next_one() -> None:
    store = Store()
    intake = Intake(store.write)
    store.gate.clear()
    first, must_run = intake.put(new("a"))
    assert must_run
    thread = threading.Thread(target=intake.run)
    thread.start()
    assert store.entered.wait(10)
    later = [intake.put(new(name)) for name in "bcd"]
    assert [must for _, must in later] == [False] * 3
    store.gate.set()
    for done in (first, *(done for done, _ in later)):
        assert done.result(10) is None
    thread.join(patient(10))
    assert store.batches == [["a"], ["b", "c", "d"]]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_only_the_task_that_causes_an_error_fails(error: Exception) -> None:
    store = Store()
    intake = Intake(store.write)
    futures = [intake.put(new(name))[0] for name in ("a", type(error).__name__, "b")]
    intake.run()
    assert futures[0].result(0) is None
    assert futures[2].result(0) is None
    with pytest.raises(type(error)):
        futures[1].result(0)
    assert store.batches == [["a"], ["b"]]


def test_an_outage_fails_all_waiting_callers_and_the_next_task_is_tried_again() -> None:
    store = Store()
    intake = Intake(store.write)
    futures = [intake.put(new(name))[0] for name in ("a", "lost")]
    intake.run()
    for future in futures:
        with pytest.raises(UnavailableError):
            future.result(0)
    done, must_run = intake.put(new("b"))
    assert must_run
    intake.run()
    assert done.result(0) is None


def test_each_queue_is_written_separately_and_canceled_tasks_are_not_written() -> None:
    store = Store()
    intake = Intake(store.write)
    intake.put(new("a", "one"))
    canceled, _ = intake.put(new("gone", "one"))
    intake.put(new("b", "two"))
    intake.put(new("c", "one"))
    assert canceled.cancel()
    intake.run()
    assert store.batches == [["a", "c"], ["b"]]


def test_a_caller_with_its_own_task_done_leaves_the_others_to_another() -> None:
    store = Store()
    intake = Intake(store.write)
    done, _ = intake.put(new())
    for _ in range(CHUNK_SIZE):
        intake.put(new())
    assert intake.run(until=done) is False
    assert intake.run() is True
    assert [len(batch) for batch in store.batches] == [CHUNK_SIZE, 1]
