"""A worker warns of options of its tasks that those who enqueue them do not know."""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agentexec.registry import Registry
from agentexec.task import Status
from agentexec.worker.option_watch import INTERVAL, OptionWatch
from tests.unit.worker.record import Record, open_record


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


async def handler(agent_id: UUID, context: dict[str, Any]) -> None: ...


def watch(record: Record, **options: Any) -> OptionWatch:
    registry = Registry()
    registry.add("work", handler, **options)
    return OptionWatch(record.runtime.engine, registry)


@pytest.mark.parametrize(
    ("option", "value"), [("webhook", "https://example.com"), ("expires", 60), ("debounce", 5)]
)
def test_an_option_that_new_tasks_lack_is_told_once(
    record: Record, caplog: pytest.LogCaptureFixture, option: str, value: Any
) -> None:
    looking = watch(record, **{option: value})
    record.enqueue(2)
    with caplog.at_level(logging.WARNING, "agentexec.maintenance"):
        for turn in range(3):
            looking.run_if_due(INTERVAL * (turn + 1))
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"Tasks named work are enqueued without the {option}= of their @pool.task")


def test_tasks_that_have_started_tell_nothing_of_what_ends_with_the_start(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    looking = watch(record, expires=60)
    record.start(1)
    looking.run_if_due(INTERVAL)
    assert caplog.records == []


def test_a_task_that_has_completed_without_its_webhook_is_told(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    looking = watch(record, webhook="https://example.com")
    [task] = record.start(1)
    record.change(task, status=Status.COMPLETE)
    looking.run_if_due(INTERVAL)
    assert len(caplog.records) == 1


def test_tasks_with_their_options_and_tasks_from_before_are_left_alone(
    record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    record.enqueue(1)
    looking = watch(record, webhook="https://example.com")
    [task] = record.enqueue(1)
    record.change(task, webhook="https://example.com")
    looking.run_if_due(INTERVAL)
    assert caplog.records == []


def test_a_pool_without_such_options_asks_nothing(record: Record) -> None:
    looking = watch(record, retries=1)
    record.runtime.engine.dispose()
    assert looking._open == []
