"""The preflight ends a start that waiting cannot help, and waits for everything that may pass."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from pathlib import Path

import pytest

from agentexec.config import Settings
from agentexec.errors import UnavailableError, UsageError
from agentexec.worker.preflight import preflight
from tests.unit.worker.record import QUEUE, Record, open_record

SETTINGS = Settings(queue_name=QUEUE, redis_url="redis://localhost:1/0")


@pytest.fixture
def record(tmp_path: Path) -> Generator[Record]:
    with open_record(tmp_path) as record:
        yield record


@pytest.fixture
def pings(record: Record, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Return the errors that the next pings raise, one each."""
    errors: list[Exception] = []

    def ping() -> None:
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr(record.backend, "ping", ping)
    return errors


def test_a_server_that_cannot_be_used_is_refused_immediately(record: Record, pings: list[Exception]) -> None:
    pings += [UsageError("Unusable.")]
    with pytest.raises(UsageError, match="Unusable"):
        preflight(record.runtime, SETTINGS, 30.0)


def test_an_outage_is_waited_for_and_told_once(
    record: Record, pings: list[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pings += [UnavailableError("Away."), UnavailableError("Away.")]
    preflight(record.runtime, SETTINGS, 30.0)
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:2] == ["Away. Waiting for it.", "Connected to the state backend."]


def test_where_workers_already_serve_even_a_refusal_is_waited_for(
    record: Record, pings: list[Exception]
) -> None:
    """Its maintenance process may have to start again while somebody changes permissions or a password."""
    pings += [UsageError("Unusable."), UnavailableError("Away.")]
    preflight(record.runtime, SETTINGS, math.inf)
    assert pings == []
