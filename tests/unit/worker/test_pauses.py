"""A process knows which of its queues are paused, from the record, and a wait for a change ends with it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from agentexec.activity.changes.queue_pauses import record_pause, record_resumption
from agentexec.db.clock import utc_now
from agentexec.worker.pauses import Pauses
from tests.unit.worker.record import Record, open_record


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


def pause(record: Record, queue: str) -> bool:
    return record_pause(record.runtime.engine, queue, by="me@here", reason=None, now=utc_now())


def resume(record: Record, queue: str) -> bool:
    return record_resumption(record.runtime.engine, queue, by="me@here", now=utc_now())


def test_the_first_question_reads_the_record_and_later_ones_what_was_refreshed(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert pause(record, "high")
    assert not pause(record, "high"), "it is paused already"
    assert pause(record, "elsewhere")
    pauses = Pauses(record.runtime.engine, ["high", "low"])
    assert pauses.paused() == {"high"}
    assert resume(record, "high")
    assert not resume(record, "high")
    assert pauses.paused() == {"high"}, "a claim makes no round trip for this"
    pauses.refresh()
    pauses.refresh()
    assert pauses.paused() == frozenset()
    assert [line.message for line in caplog.records] == [
        "Queue high is paused: its tasks are not claimed until it is resumed.",
        "Queue high is resumed.",
    ]
    assert pause(record, "high"), "again"


def test_a_wait_for_a_change_ends_with_it(record: Record) -> None:
    pauses = Pauses(record.runtime.engine, ["high"])
    known = pauses.paused()
    ended = threading.Event()
    thread = threading.Thread(target=lambda: (pauses.wait_for_change(known, 60), ended.set()))
    thread.start()
    pause(record, "high")
    pauses.refresh()
    assert ended.wait(10)
    pauses.wait_for_change(known, 60)  # it has changed before
