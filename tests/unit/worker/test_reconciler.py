"""One host leads the reconciler of a queue; another takes over when it resigns."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest

from agentexec.config import Settings
from agentexec.db.clock import utc_now
from agentexec.worker.reconciler import Reconciler
from tests.unit.worker.record import QUEUE, Record, open_record


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


def test_only_the_leader_repairs_the_index(record: Record) -> None:
    first, second = (
        Reconciler(record.runtime, Settings(queue_name=QUEUE), owner) for owner in ("first", "second")
    )
    first.run_once()
    [lost] = record.enqueue(1)
    record.change(lost, created_at=utc_now() - timedelta(seconds=30))
    record.backend.remove(QUEUE, [lost])
    second.run_once()
    second.resign()
    assert record.backend.unknown_tasks(QUEUE, [lost]) == [lost], "the first one leads"
    first.resign()
    second.run_once()
    assert record.backend.unknown_tasks(QUEUE, [lost]) == []
